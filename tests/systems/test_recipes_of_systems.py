"""A short training of each system on real X-rays, through the command line, up to a checkpoint that can be loaded."""

import csv

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
pytest.importorskip("timm", reason="needs pip install timm")

from cxr_trt.findings import FINDINGS  # noqa: E402
from cxr_trt.model.checkpoint import load_checkpoint  # noqa: E402
from cxr_trt.systems import SYSTEMS, find_system  # noqa: E402
from cxr_trt.views import Size  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.recipe import RECIPES, read_recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "paper": (112, 96),
    "wang2017-alexnet": (128, 96),
    "chexnet-2017": (96, 96),
    "agcnn-densenet121": (112, 96),
    "li2018-bags": (64, 64),
    "li2018": (64, 64),
    "yao2018": (128, 128),
    "yao2017-b2": (128, 128),
    "dnetloc": (256, 256),
    "rubin2018": (64, 64),
    "edge": (144, 128),
}


def test_each_system_is_among_those_that_are_trained_here():
    trained = {find_system(read_recipe(name).setting).name for name in SIZES}
    assert trained == {system.name for system in SYSTEMS}


@pytest.fixture(scope="module")
def labels(cxr14, tmp_path_factory):
    """Twelve X-rays of the subset: eight for training, four for validation, each of which has findings."""
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    with (cxr14 / "labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if any(row[finding] == "1" for finding in FINDINGS)]
    patients = {row["patient_id"]: row for row in rows}
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "lateral"])
        writer.writeheader()
        for number, row in enumerate(list(patients.values())[:12]):
            writer.writerow(row | {"split": "val" if number < 4 else "train", "lateral": rows[-1]["image"]})
    boxed = [row["image"] for row in list(patients.values())[2:6]]  # two of validation, two of training
    lines = [f"{image},Mass,100,40,80,90" for image in boxed]
    path.with_name("boxes.csv").write_text("\n".join(["image,finding,x,y,width,height", *lines]))
    return path


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_trains_validates_and_writes_a_checkpoint(name, labels, cxr14, tmp_path):
    """With its own loss and optimizer; small images and small batches."""
    recipe, (image_size, crop_size) = read_recipe(name), SIZES[name]
    system = find_system(recipe.setting)
    small = {"image_size": image_size, "crop_size": crop_size, "batch": 4, "accumulate": 2, "epochs": 1, "anneal": 0}
    lines = (RECIPES / f"{name}.toml").read_text().splitlines()
    kept = [line for line in lines if line.split(" =")[0] not in small]
    (tmp_path / "small.toml").write_text("\n".join([*(f"{key} = {value}" for key, value in small.items()), *kept]))
    options = ["--labels", labels, "--images", cxr14 / "images", "--out", tmp_path / "run", "--device", "cpu"]
    if recipe.box_weight:
        options += ["--boxes", labels.with_name("boxes.csv")]
    torch.manual_seed(recipe.seed)
    before = find_system(recipe.setting).build(recipe.setting).state_dict()

    result = CliRunner().invoke(main, [str(tmp_path / "small.toml"), *map(str, options)])
    assert result.exit_code == 0, result.output
    assert "8 training and 4 validation images" in result.stderr
    assert "epoch 1: loss " in result.stderr
    assert ("learning the boxes of 2 training images" in result.stderr) == bool(recipe.box_weight)

    again = CliRunner().invoke(main, [str(tmp_path / "small.toml"), *map(str, options)])
    assert again.exit_code == 0
    assert "epoch 1: loss " not in again.stderr

    last = recipe.stages[-1].part if recipe.stages else ""
    loaded = load_checkpoint(tmp_path / "run" / last / "best.safetensors", recipe.setting)
    assert loaded.weights == "trained"
    sizes = tuple(Size(system.planes * side, side) for side in (image_size, crop_size))
    assert (loaded.spec.image_size, loaded.spec.crop_size) == sizes
    moved = [key for key, value in loaded.network.named_parameters() if not torch.equal(value, before[key])]
    trained = [key for key, _ in loaded.network.named_parameters() if not key.startswith(recipe.frozen)]
    assert set(moved) <= set(trained)
    assert len(moved) > 0.9 * len(trained)
    with torch.inference_mode():
        outputs, maps = loaded.network.outputs_and_maps(
            torch.randn(2, len(system.mean), system.planes * crop_size, crop_size)
        )
    assert torch.isfinite(outputs).all()
    assert (maps is None) == (system.maps == "none")
