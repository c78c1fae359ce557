"""A data set of noise for short trainings."""

import csv
from pathlib import Path

import cv2
import numpy as np

from cxr_trt.findings import FINDINGS


def write_noise(folder: Path, images: int = 16) -> None:
    """Write small images with random labels into a folder, and `labels.csv`; three of them are for validation."""
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient_id", "split", "view_position", "sex", "age", *FINDINGS])
        for i in range(images):
            split = "val" if i < 3 else "train"
            writer.writerow([f"{i}.png", i, split, "AP", "F", 20 + i, *rng.integers(0, 2, 14)])
            cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (80, 60), np.uint8))
