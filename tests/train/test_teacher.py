"""Learning from the scores of other engines."""

import csv

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from training_data import write_noise

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.checkpoint import load_checkpoint
from train.__main__ import main
from train.batches import LabelledImages
from train.data import UNKNOWN, read_data
from train.teacher import read_teachers

NAMES = ("a.png", "b.png", "c.png")


def write_scores(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *FINDINGS])
        writer.writerows([name, *[value] * len(FINDINGS)] for name, value in rows.items())
    return path


def test_several_teachers_are_averaged_image_by_image(tmp_path):
    one = write_scores(tmp_path / "1.csv", {"x/c.jpg": 0.2, "x/a.jpg": 0.4, "x/b.jpg": 0.6, "x/d.jpg": 1.0})
    other = write_scores(tmp_path / "2.csv", {"a.png": 0.6, "b.png": 0.6, "c.png": 0.4})
    own = read_teachers([one, other], NAMES, tmp_path / "labels.csv")
    assert own.shape == (3, len(FINDINGS))
    np.testing.assert_allclose(own[:, 0], [0.5, 0.6, 0.3], atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a.png": 0.1, "c.png": 0.1}, "no row of 1 of the 3 training images, such as b.png"),
        ({"a.png": 0.1, "b.png": 1.5, "c.png": 0.1}, "the scores of b.png are not probabilities"),
        ({"a.png": 0.1, "b.png": "nan", "c.png": 0.1}, "the scores of b.png are not probabilities"),
    ],
)
def test_a_table_that_does_not_teach_all_images(rows, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        read_teachers([write_scores(tmp_path / "1.csv", rows)], NAMES, tmp_path / "labels.csv")


def test_targets_are_mixed_and_unknown_labels_are_the_teachers():
    labels = np.array([[1] * 14, [0] * 14, [UNKNOWN] * 14, [1] * 14], np.uint8)
    images = LabelledImages(np.zeros((4, 8, 8), np.uint8), labels, np.zeros((4, 3), np.float32), 8)
    images.teach(np.arange(3), np.full((3, 14), 0.6, np.float32), 0.25)
    expected = torch.tensor([0.9, 0.15, 0.6, 1.0])
    torch.testing.assert_close(images.targets[:, 5], expected)
    (batch,) = images.validation(np.arange(4), 4)
    torch.testing.assert_close(batch.labels[:, 5], expected)


@pytest.mark.parametrize(
    ("fields", "arguments", "message"),
    [
        ("teacher = 0.5", (), "--teacher and a recipe with teacher go together"),
        ("", ("--teacher",), "--teacher and a recipe with teacher go together"),
        ("teacher = 1.5", (), "it must be 1 or less"),
        ('teacher = 0.5\nloss = "w-cel"', (), "and the loss bce"),
    ],
)
def test_what_does_not_go_together(fields, arguments, message, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'setting = "paper"\nimage_size = 64\ncrop_size = 64\nbatch = 2\nlearning_rate = 1e-3\nbetas = [0.9, 0.99]\n'
        f"patience = 1\nepochs = 1\n{fields}\n"
    )
    (tmp_path / "labels.csv").write_text(
        f"image,patient_id,split,{','.join(FINDINGS)}\n"
        + "".join(
            f"{name},{name},{split},{','.join('0' * 14)}\n"
            for name, split in zip(NAMES, ("train", "train", "val"), strict=True)
        )
    )
    if arguments:
        arguments = (*arguments, write_scores(tmp_path / "scores.csv", dict.fromkeys(NAMES, 0.5)))
    paths = ("--labels", tmp_path / "labels.csv", "--images", tmp_path, "--out", tmp_path / "out")
    result = CliRunner().invoke(main, [str(recipe), *map(str, paths), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.usefixtures("one_thread")
def test_what_the_teacher_says_is_learned(tmp_path):
    """From the same start, with labels of no weight: the mean score moves to the teacher's."""
    write_noise(tmp_path)
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'setting = "paper"\nimage_size = 48\ncrop_size = 32\nbatch = 4\nlearning_rate = 1e-3\nbetas = [0.9, 0.99]\n'
        "patience = 1\nepochs = 3\nteacher = 1.0\n"
    )
    data = read_data(tmp_path / "labels.csv")
    for score in (0.02, 0.98):
        table = write_scores(tmp_path / f"{score}.csv", dict.fromkeys(data.names, score))
        paths = ("--labels", tmp_path / "labels.csv", "--images", tmp_path, "--out", tmp_path / f"{score}")
        result = CliRunner().invoke(main, [*map(str, (recipe, *paths, "--teacher", table)), "--device", "cpu"])
        assert result.exit_code == 0, result.output
    low, high = (load_checkpoint(tmp_path / f"{score}" / "last.safetensors").network.eval() for score in (0.02, 0.98))
    crops = torch.zeros(1, 3, 32, 32)
    with torch.inference_mode():
        assert (high(crops) - low(crops)).min() > 0.1
