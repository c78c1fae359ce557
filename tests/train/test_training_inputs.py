import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from torchvision.models import densenet121  # noqa: E402

from cxr_trt.errors import CheckpointError, UsageError  # noqa: E402
from cxr_trt.images import decode  # noqa: E402
from cxr_trt.images.preprocess import preprocess  # noqa: E402
from cxr_trt.model.checkpoint import PAPER_SIZES  # noqa: E402
from cxr_trt.model.network import Network  # noqa: E402
from cxr_trt.model.settings import SETTINGS  # noqa: E402
from train.augment import Augmentation, center_crops, cut_crops, random_crops  # noqa: E402
from train.batches import LabelledImages  # noqa: E402
from train.cache import cached_images  # noqa: E402
from train.imagenet import load_imagenet  # noqa: E402
from train.recipe import RECIPES, Recipe, read_recipe  # noqa: E402


@pytest.fixture
def images():
    """30 images of 40 pixels, each pixel naming its image; cut to 32."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 8, (30, 40, 40), np.uint8) + np.arange(0, 240, 8, dtype=np.uint8)[:, None, None]
    return LabelledImages(pixels, np.eye(30, 14, dtype=np.uint8), np.eye(30, 3, dtype=np.float32), 32)


def epoch(images, start=0, seed=0, number=0):
    none = Augmentation()
    return list(images.training(np.arange(30), 4, augmentation=none, seed=seed, epoch=number, start=start))


def places(crop, pixels):
    """Where a crop comes from: (y, x, mirrored)."""
    return [
        (y, x, mirrored)
        for y in range(9)
        for x in range(9)
        for mirrored in (False, True)
        if np.array_equal(crop, pixels[y : y + 32, x : x + 32][:, :: -1 if mirrored else 1])
    ]


def test_an_epoch_shows_each_image_once_cropped_and_mirrored_at_random(images):
    batches = epoch(images)
    assert len(batches) == 7
    seen, found = [], []
    for crops, labels, traits, _ in batches:
        assert (crops.shape, crops.dtype, labels.dtype) == ((4, 32, 32), torch.uint8, torch.float32)
        for crop, label, trait in zip(crops.numpy(), labels.numpy(), traits.numpy(), strict=True):
            number = int(crop[0, 0]) // 8
            seen.append(number)
            np.testing.assert_array_equal(label, images.labels[number])
            np.testing.assert_array_equal(trait, images.traits[number])
            (place,) = places(crop, images.pixels[number])
            found.append(place)
    assert len(set(seen)) == 28
    assert seen != sorted(seen)
    assert {y for y, _, _ in found} >= {0, 8}
    assert {x for _, x, _ in found} >= {0, 8}
    assert 6 < sum(mirrored for _, _, mirrored in found) < 22


def test_an_epoch_can_begin_at_any_step(images):
    for step in (0, 3, 6, 7):
        rest = epoch(images, start=step)
        assert len(rest) == 7 - step
        assert all(torch.equal(a[0], b[0]) for a, b in zip(rest, epoch(images)[step:], strict=True))


def test_each_batch_of_a_spread_has_crops_of_its_own_size(images):
    """In a picture of 128 pixels, crops of 64 to 128, each where the same seed's crop of 96 lies in proportion."""
    rows, columns = np.indices((128, 128), np.uint8)
    places = LabelledImages(np.stack([rows, columns] * 15), images.labels, images.traits, 96)

    def epoch(spread, start=0):
        options = {"augmentation": Augmentation(), "seed": 0, "epoch": 0, "start": start}
        return list(places.training(np.arange(30), 2, spread=spread, **options))

    batches, even = epoch(32), epoch(0)
    assert {batch.crops.shape for batch in batches} == {(2, side, side) for side in (64, 96, 128)}
    for batch, same in zip(batches, even, strict=True):
        assert torch.equal(batch.labels, same.labels)
        low, base = (crops.flatten(1).min(1).values.int() for crops in (batch.crops, same.crops))
        assert torch.equal(low, base * (128 - batch.crops.shape[1]) // 32)
        assert torch.equal(batch.crops.flatten(1).max(1).values.int(), low + batch.crops.shape[1] - 1)
    assert all(torch.equal(a.crops, b.crops) for a, b in zip(epoch(32, start=9), batches[9:], strict=True))


def test_epochs_and_seeds_differ(images):
    first = epoch(images)[0][0]
    assert not torch.equal(first, epoch(images, number=1)[0][0])
    assert not torch.equal(first, epoch(images, seed=1)[0][0])


def test_validation_is_the_centre_of_every_image_in_order(images):
    batches = list(images.validation(np.arange(5, 12), 4))
    assert [len(batch.crops) for batch in batches] == [4, 3]
    np.testing.assert_array_equal(torch.cat([batch.crops for batch in batches]), images.pixels[5:12, 4:36, 4:36])


def test_a_crop_is_turned_and_scaled_about_its_own_centre():
    image = np.zeros((1, 101, 101), np.uint8)
    image[0, 60, 70] = 255  # 10 right of the middle of the crop at (30, 30)
    for degrees, scale, place in ((0, 2, (30, 35)), (90, 1, (40, 30)), (-90, 0.5, (10, 30))):
        changes = {"offsets": np.array([[30.0, 30.0]]), "scale": np.array([scale]), "rotation": np.array([degrees])}
        crops = dataclasses.replace(center_crops(np.array([0]), 40), **changes)
        (crop,) = cut_crops(image, crops, 61)
        assert np.unravel_index(crop.argmax(), crop.shape) == place


def test_contrast_stretches_greys_about_the_middle_and_shifts_them():
    greys = np.array([[[0, 100, 127, 128, 200, 255]]], np.uint8).repeat(6, 1)
    crops = dataclasses.replace(center_crops(np.array([0]), 0), contrast=np.array([1.2]), shift=np.array([10.0]))
    np.testing.assert_array_equal(cut_crops(greys, crops, 6)[0, 0], [0, 104, 137, 138, 224, 255])


def test_random_changes_stay_within_their_ranges():
    crops = random_crops(np.arange(1000), 32, 8, Augmentation(0.1, 10, 0.2), np.random.default_rng(0))
    for values, low, high in (
        (crops.scale, 0.9, 1.1),
        (crops.rotation, -10, 10),
        (crops.contrast, 0.8, 1.2),
        (crops.shift, -51, 51),
    ):
        assert values.min() == pytest.approx(low, abs=(high - low) / 100)
        assert values.max() == pytest.approx(high, abs=(high - low) / 100)


def test_a_resized_crop_lies_in_its_image_and_shows_what_it_says():
    rows, columns = np.indices((80, 80))
    images = np.stack([3 * rows, 3 * columns]).astype(np.uint8)
    crops = random_crops(np.array([0, 1] * 500), 40, 40, Augmentation(min_area=0.1), np.random.default_rng(0))
    sides = 40 * crops.shown
    assert (crops.offsets >= 0).all()
    assert (crops.offsets + sides <= 80).all()
    assert (sides == sides.round()).all()
    area, ratio = sides.prod(1) / 80**2, sides[:, 0] / sides[:, 1]
    assert (area.min(), area.max()) == pytest.approx((0.1, 1), abs=0.03)
    assert (ratio.min(), ratio.max()) == pytest.approx((3 / 4, 4 / 3), abs=0.05)
    for place, row in ((crops.offsets[:, 0], 0), (crops.offsets[:, 1], 1)):
        assert {0, 40} < set(place)
        chosen = crops.rows == row
        cut = cut_crops(images, crops, 40)[chosen].astype(float) / 3
        middle = (place + (sides[:, row] - 1) / 2)[chosen]
        np.testing.assert_allclose(cut.mean((1, 2)), middle, atol=0.5)
        spread = np.ptp(cut, axis=row + 1).mean(1)
        np.testing.assert_allclose(spread, 39 / 40 * sides[chosen, row], atol=1.5)


def test_a_crop_can_be_moved_beyond_its_image():
    image = np.full((1, 32, 32), 200, np.uint8)
    crops = random_crops(np.zeros(500, int), 32, 0, Augmentation(translation=8), np.random.default_rng(0))
    assert (crops.offsets.min(), crops.offsets.max()) == pytest.approx((-8, 8), abs=0.1)
    seen = (cut_crops(image, crops, 32) > 100).sum((1, 2)) / 32**2
    expected = ((32 - np.abs(crops.offsets)) / 32).prod(1)
    np.testing.assert_allclose(seen, expected, atol=0.05)
    assert seen.min() < 0.65


def write_images(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(40)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (70, 90), np.uint8))
    return paths


def test_the_cache_holds_what_scoring_would_see_and_is_built_once(tmp_path):
    paths, reports = write_images(tmp_path), []
    cache = cached_images(paths, 32, tmp_path / "cache", lambda done, total: reports.append((done, total)))
    expected = np.stack([preprocess(decode(path.read_bytes()).pixels, 32) for path in paths])
    np.testing.assert_array_equal(cache, expected)
    assert reports[-1] == (40, 40)
    reports.clear()
    np.testing.assert_array_equal(cached_images(paths, 32, tmp_path / "cache", lambda *_: reports.append(0)), expected)
    assert not reports


def test_another_order_size_or_content_is_another_cache(tmp_path):
    paths = write_images(tmp_path)
    first = cached_images(paths, 32, tmp_path, lambda *_: None)
    np.testing.assert_array_equal(cached_images(paths[::-1], 32, tmp_path, lambda *_: None), first[::-1])
    assert cached_images(paths, 16, tmp_path, lambda *_: None).shape == (40, 16, 16)
    cv2.imwrite(str(paths[0]), np.zeros((70, 91), np.uint8))
    assert not cached_images(paths, 32, tmp_path, lambda *_: None)[0].any()


def test_an_unreadable_image_is_named_and_leaves_no_cache(tmp_path):
    paths = write_images(tmp_path)
    paths[30].write_bytes(b"rubbish")
    with pytest.raises(UsageError, match=r"30\.png: the file is not a DICOM"):
        cached_images(paths, 32, tmp_path, lambda *_: None)
    assert not list(tmp_path.glob("*.uint8"))


@pytest.fixture(scope="module")
def torchvision_weights():
    """A state dict as torchvision's file has it: dotted keys, no counters, a classifier of 1,000."""
    torch.manual_seed(1)
    weights = {}
    for key, value in densenet121(weights=None).state_dict().items():
        if not key.endswith("num_batches_tracked"):
            for kind in ("norm", "conv"):
                for number in "12":
                    if "denselayer" in key:
                        key = key.replace(f".{kind}{number}.", f".{kind}.{number}.")
            weights[key] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in weights
    return weights


@pytest.mark.parametrize("setting", ["paper", "chexnet"])
def test_imagenet_weights_fill_the_backbone(torchvision_weights, tmp_path, setting):
    torch.save(torchvision_weights, tmp_path / "densenet121.pth")
    network = Network(SETTINGS[setting])
    gates = [f"features.transition{i}.se.{part}.weight" for i in (1, 2, 3) for part in ("squeeze", "excite")]
    transfer = ["transfer.conv.weight", "transfer.conv.bias"]
    assert load_imagenet(network, tmp_path / "densenet121.pth") == (gates if setting == "paper" else []) + transfer
    own = network.state_dict()
    assert torch.equal(own["features.conv0.weight"], torchvision_weights["features.conv0.weight"])
    key = "features.denseblock4.denselayer16.conv{}2.weight"
    assert torch.equal(own[key.format("")], torchvision_weights[key.format(".")])


def test_other_weights_are_refused(torchvision_weights, tmp_path):
    network, path = Network(SETTINGS["chexnet"]), tmp_path / "a.pth"
    for change, sentence in (
        ({"features.more": torch.zeros(1)}, "features.more and 0 more tensors differ"),
        ({"features.conv0.weight": torch.zeros(1)}, "features.conv0.weight and 0 more"),
    ):
        torch.save({**torchvision_weights, **change}, path)
        with pytest.raises(CheckpointError, match=sentence):
            load_imagenet(network, path)
    torch.save({key: value for key, value in torchvision_weights.items() if "conv0" not in key}, path)
    with pytest.raises(CheckpointError, match=r"features\.conv0\.weight"):
        load_imagenet(network, path)
    path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        load_imagenet(network, path)


def test_the_recipes_of_the_paper_differ_in_the_network_alone():
    papers = {name: read_recipe(name) for name in ("paper", "chexnet", "no-se", "single-map", "max-only")}
    for name, recipe in papers.items():
        assert recipe == Recipe(name, 512, 448, 16, 1e-4, 5, 40, betas=(0.9, 0.99))
    demo = [read_recipe(f"demo-{stretch}") for stretch in (1, 2, 3)]
    assert {recipe.setting for recipe in demo} == {"paper"}
    assert (demo[2].image_size, demo[2].crop_size) == PAPER_SIZES


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("batch = 16", "batch = 0", "batch is 0; it must be above 0"),
        ("batch = 16", "batch = 16.5", "batch is 16.5; it must be of type int"),
        ("batch = 16", "batch = 16\naccumulate = 3", "batch 16 cannot be divided into 3 equal parts"),
        ("batch = 16", "batchsize = 16", "unknown field batchsize"),
        ("batch = 16", "", "missing 1 required positional argument: 'batch'"),
        ("batch = 16", "batch = ", "Invalid value"),
        ('"paper"', '"resnet"', "setting 'resnet' is none of paper"),
        ("448", "450", "crop_size 450 must be a multiple of 32"),
        ("448", "448\ncrop_spread = 96", "crop_spread 96 must be a multiple of 32 by which a crop of 448 can grow"),
        ("0.99]", "1.5]", "must be two numbers from 0 to below 1"),
        ("betas", "# betas", r"betas \[\] must be two numbers"),
        ("batch = 16", 'batch = 16\nloss = "hinge"', "loss is 'hinge'; it must be bce or w-cel"),
        ("batch = 16", 'batch = 16\nselect = ["auc"]', r"select is \['auc'\]; it must be loss or auc"),
        ("batch = 16", 'batch = 16\nsplit = "mine"', "split is 'mine'; it must be official or random by patient or"),
        (
            "batch = 16",
            "batch = 16\nrate_steps = [20, 10]",
            r"rate_steps \[20, 10\] must be numbers of epochs that rise",
        ),
        ("batch = 16", "batch = 16\nrate_steps = [0.5]", r"rate_steps \[0\.5\] must be"),
        ("batch = 16", "batch = 16\nrate_factor = 1", "rate_factor is 1.0; it must be below 1"),
        ("batch = 16", "batch = 16\nstop_after = -1", "stop_after is -1; it must be 0 or more"),
        ("batch = 16", "batch = 16\none_cycle = true\nstop_after = 2", "leave out rate_steps and stop_after"),
        ("448", "448\ncrop_spread = 64\nmin_area = 0.1", "both choose the size of crops"),
        ("batch = 16", "batch = 16\npart = 'fusion'", "part is 'fusion'; paper is trained as a whole"),
        (
            '"paper"',
            '"agcnn-resnet50"',
            "agcnn-resnet50 is trained in stages: give a .* of global_branch, local_branch",
        ),
        ("epochs = 40", "epochs = 40\n[[stage]]\npart = ''", "its stages train ; paper is trained in no stages"),
        ("epochs = 40", "epochs = 40\n[stage]\npart = ''", "stage must be tables"),
        ("batch = 16", 'batch = 16\noptimizer = ["sgd"]', r"optimizer is \['sgd'\]; it must be adam or sgd"),
        ("batch = 16", 'batch = 16\noptimizer = "sgd"', "betas is of the optimizer adam; leave it out with sgd"),
        ("batch = 16", "batch = 16\nmomentum = 0.9", "momentum is of the optimizer sgd; leave it out with adam"),
        ("batch = 16", "batch = 16\nmomentum = 1", "momentum is 1.0; it must be below 1"),
        (
            '"paper"',
            '"vgg16-max"\nanneal = 2',
            r"anneal works with networks that pool their class maps only \(paper, .*, edge, .*for vgg16-max",
        ),
        ('"paper"', '"vgg16-max"\nprior_bias = true', "prior_bias works with networks that pool their class maps only"),
        ('"paper"', '"vgg16-max"\nauxiliary = 0.5', "auxiliary works with networks that pool their class maps only"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path, old, new, sentence):
    text = (RECIPES / "paper.toml").read_text().replace(old, new, 1)
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UsageError, match=sentence) as caught:
        read_recipe(str(tmp_path / "bad.toml"))
    assert "\n" not in str(caught.value)
