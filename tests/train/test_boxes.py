"""Learning boxes (Li et al. 2018): its loss in NumPy, boxes on patches, and folds in which no patient leaks."""

import csv

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from cxr_trt.errors import UsageError  # noqa: E402
from cxr_trt.findings import FINDINGS  # noqa: E402
from cxr_trt.geometry import Rectangle  # noqa: E402
from train.augment import Augmentation  # noqa: E402
from train.batches import LabelledImages  # noqa: E402
from train.boxed_folds import FOLDS  # noqa: E402
from train.boxed_folds import main as boxed_folds  # noqa: E402
from train.boxes import read_grids, touched  # noqa: E402
from train.data import read_data  # noqa: E402
from train.errors import DataError  # noqa: E402
from train.losses import box_cross_entropy, cross_entropy  # noqa: E402
from train.recipe import Recipe, read_recipe  # noqa: E402

LAMBDA = 5.0


def expected_loss(patches, labels, inside):
    """The products of the paper, entry by entry in float64."""
    p = 1 / (1 + np.exp(-patches.astype(np.float64)))
    positive, negative = 0.98 + 0.02 * p, 0.98 + 0.02 * (1 - p)
    losses = []
    for n, k in np.ndindex(labels.shape):
        if inside[n, k].any():
            chance = np.prod(positive[n, k][inside[n, k]]) * np.prod(negative[n, k][~inside[n, k]])
            losses.append(-LAMBDA * np.log(chance))
        elif not np.isnan(labels[n, k]):
            bag = 1 - np.prod(negative[n, k])
            losses.append(-np.log(bag if labels[n, k] else 1 - bag))
    return np.mean(losses)


def test_the_loss_is_that_of_the_papers_products():
    rng = np.random.default_rng(0)
    patches = rng.normal(0, 3, (4, 14, 6, 6)).astype(np.float32)
    labels = (rng.random((4, 14)) < 0.3).astype(np.float32)
    labels[rng.random((4, 14)) < 0.2] = np.nan
    inside = np.zeros(patches.shape, bool)
    inside[0, 3, 1:4, 2:5] = inside[0, 5, 0, 0] = inside[2, 3, 5, :] = True
    inside[3, 7] = True  # a box that fills the grid is one, too
    from cxr_trt.model.patch_bags import PatchBags

    logits = torch.from_numpy(patches).requires_grad_()
    scores = PatchBags()(logits)
    found = box_cross_entropy(scores, logits, torch.from_numpy(labels), torch.from_numpy(inside), LAMBDA)
    assert float(found.detach()) == pytest.approx(expected_loss(patches, labels, inside), rel=1e-5)
    found.backward()
    assert torch.isfinite(logits.grad).all()
    gradient = logits.grad.numpy()
    assert (gradient[0, 3][inside[0, 3]] < 0).all()
    assert (gradient[0, 3][~inside[0, 3]] > 0).all()

    none = torch.zeros(patches.shape, dtype=torch.bool)
    plain = cross_entropy(scores, torch.from_numpy(labels), None)
    torch.testing.assert_close(box_cross_entropy(scores, logits, torch.from_numpy(labels), none, LAMBDA), plain)


def test_a_box_touches_the_patches_with_which_it_shares_an_area():
    height, width, patches = 90, 120, 6
    boxes = [
        (0, 0, 90, 120),
        (15, 20, 15, 20),
        (14, 20, 1, 1),
        (15.5, 39.5, 29.5, 0.5),
        (89, 119, 1, 1),
        (-0.5, 3, 10, 9),
    ]
    for y, x, tall, wide in boxes:
        grid = touched(Rectangle(y, x, tall, wide), (height, width), patches)
        for row, column in np.ndindex(patches, patches):
            down = min(y + tall, (row + 1) * 15) - max(y, row * 15)
            across = min(x + wide, (column + 1) * 20) - max(x, column * 20)
            assert grid[row, column] == (down > 0 and across > 0)


def test_grids_are_mirrored_with_their_images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 32, 32), np.uint8)
    grids = {row: rng.random((14, 4, 4)) < 0.3 for row in (1, 4, 6)}
    images = LabelledImages(pixels, np.zeros((8, 14), np.uint8), np.zeros((8, 3), np.float32), 32, grids=grids)
    seen = set()
    (batch,) = images.training(np.arange(8), 8, augmentation=Augmentation(), seed=0, epoch=0, start=0)
    for crop, inside in zip(batch.crops.numpy(), batch.inside.numpy(), strict=True):
        (row,) = [i for i, own in enumerate(pixels) if (crop == own).all() or (crop == own[:, ::-1]).all()]
        mirrored = (crop != pixels[row]).any()
        expected = grids.get(row, np.zeros((14, 4, 4), bool))
        np.testing.assert_array_equal(inside, expected[..., ::-1] if mirrored else expected)
        seen.add((row in grids, bool(mirrored)))
    assert (True, True) in seen


@pytest.fixture
def data(tmp_path):
    """40 images of 20 patients, of whom the first ten have a box on one of their two images."""
    rng = np.random.default_rng(0)
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient_id", *FINDINGS])
        for number in range(40):
            writer.writerow([f"{number}.png", f"p{number // 2}", *rng.integers(0, 2, 14)])
    lines = [f"{2 * patient}.jpg,Mass,10,20,30,40" for patient in range(10)]
    (tmp_path / "boxes.csv").write_text("\n".join(["image,finding,x,y,width,height", *lines]))
    return tmp_path


def test_no_patient_is_on_two_sides_and_each_boxed_one_is_tested_once(data):
    tested, divisions = [], []
    for fold in range(1, FOLDS + 1):
        out = data / f"{fold}.csv"
        options = ["--labels", data / "labels.csv", "--boxes", data / "boxes.csv", "--out", out]
        done = CliRunner().invoke(boxed_folds, [str(fold), *map(str, options)])
        assert done.exit_code == 0, done.output
        images = read_data(out)  # refuses a patient on two sides
        sides = {}
        for patient, split in zip(images.patients, images.splits, strict=True):
            sides.setdefault(split, set()).add(patient)
        assert not sides["train"] & sides["test"]
        boxed = {f"p{patient}" for patient in range(10)}
        assert len(sides["test"] & boxed) == 2
        assert boxed - sides["test"] <= sides["train"]
        tested += sorted(sides["test"] & boxed)
        np.testing.assert_array_equal(images.labels, read_data(data / "labels.csv").labels)
        divisions.append({patient: split for split, patients in sides.items() for patient in patients - boxed})
        assert divisions[-1] == divisions[0]
    assert sorted(tested) == sorted(boxed)


def test_boxes_of_other_than_training_images_are_not_learned(data):
    for number in (0, 2, 4):
        cv2.imwrite(str(data / f"{number}.png"), np.full((100, 80), 90, np.uint8))
    names = [f"a/{number}.png" for number in (0, 2, 4)]
    grids = read_grids(data / "boxes.csv", names[:2], [data / f"{number}.png" for number in (0, 2)], 10)
    assert sorted(grids) == [0, 1]
    assert {FINDINGS[finding] for finding in np.nonzero(grids[0].any((1, 2)))[0]} == {"Mass"}
    rows, columns = np.nonzero(grids[0][FINDINGS.index("Mass")])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 5, 1, 4)
    with pytest.raises(DataError, match="none of its boxes is on a training image"):
        read_grids(data / "boxes.csv", ["39.png"], [data / "39.png"], 10)


def test_a_recipe_with_boxes_sees_whole_images_of_a_network_with_patches():
    recipe = vars(read_recipe("li2018"))
    assert recipe["box_weight"] == LAMBDA
    for change, sentence in (
        ({"setting": "chexnet-2017"}, "box_weight is for the loss bce and the networks li2018-12, li2018-16"),
        ({"loss": "w-cel"}, "box_weight is for the loss bce"),
        ({"rotation": 5.0}, "boxes that stay where they are; leave out rotation"),
        ({"crop_size": 448}, "crop_size must be image_size 512"),
        ({"split": "random by image"}, "box_weight needs a split by patient"),
        ({"box_weight": -1.0}, "box_weight is -1.0; it must be 0 or more"),
    ):
        with pytest.raises(UsageError, match=sentence):
            Recipe(**{**recipe, **change})
