"""Learning from the class maps and features of other networks."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from training_data import write_noise

from cxr_trt.errors import CheckpointError, UsageError
from cxr_trt.hashing import hash_file
from cxr_trt.images.load import load_images
from cxr_trt.model.checkpoint import load_checkpoint, save_checkpoint
from cxr_trt.model.weights_file import read_weights
from cxr_trt.systems import find_system
from train.__main__ import main
from train.batches import Batch
from train.data import read_data
from train.group import Group
from train.inner_teacher import InnerTeachers, feature_distance, map_distance
from train.objective import Objective
from train.recipe import read_recipe

RECIPE = """\
setting = "paper"
image_size = 96
crop_size = 96
batch = 4
learning_rate = 1e-3
betas = [0.9, 0.99]
patience = 1
epochs = 2
"""


def save(path, setting, seed=0):
    torch.manual_seed(seed)
    network = find_system(setting).build(setting).eval()
    save_checkpoint(network, path, weights="untrained", setting=setting)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save(tmp_path_factory.mktemp("teacher") / "t.safetensors", "paper", seed=1)


def train(folder, recipe, *arguments):
    (folder / "r.toml").write_text(recipe)
    paths = ("--labels", folder / "labels.csv", "--images", folder, "--out", folder / "out")
    return CliRunner().invoke(main, [*map(str, (folder / "r.toml", *paths, *arguments)), "--device", "cpu"])


def test_only_the_pattern_counts():
    maps = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert map_distance(5 * maps - 7, maps).item() == pytest.approx(0, abs=1e-5)
    assert map_distance(-maps, maps).item() == pytest.approx(2, abs=1e-5)
    half = torch.stack([maps[:, 0], -maps[:, 1]], 1)
    assert map_distance(half, maps).item() == pytest.approx(1, abs=1e-5)


def test_in_which_xrays_a_finding_is_seen_counts_too():
    """Each map alone is flat, so that all that there is to learn is which X-ray has it."""
    seen = torch.tensor([0.0, 1.0, 0.0])[:, None, None, None].expand(3, 1, 4, 4)
    assert map_distance(seen * 2 + 1, seen).item() == pytest.approx(0, abs=1e-5)
    assert map_distance(seen.roll(1, 0), seen).item() == pytest.approx(1.5, abs=1e-5)


def test_flat_maps_teach_nothing_and_break_nothing():
    maps = torch.ones(2, 3, 4, 4, requires_grad=True)
    distance = map_distance(maps, torch.zeros(2, 3, 4, 4))
    distance.backward()
    assert distance.item() == 1
    assert not maps.grad.any()


def test_features_are_compared_whatever_their_number_and_order():
    features = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    alike = torch.cat([3 * features.flip(1), 3 * features], 1) + 1
    assert feature_distance(features, [alike]).item() == pytest.approx(0, abs=1e-5)
    other = torch.randn(2, 9, 4, 4, generator=torch.Generator().manual_seed(1))
    assert 0.5 < feature_distance(features, [other]).item() < 1
    mean = (feature_distance(features, [other]) + feature_distance(features, [alike])) / 2
    torch.testing.assert_close(feature_distance(features, [other, alike]), mean)
    assert feature_distance(torch.ones(2, 6, 4, 4), [other]).item() == 1


@pytest.mark.parametrize("setting", ["paper", "edge"])
def test_a_teacher_sees_pixels_as_it_was_trained(setting, tmp_path):
    """`edge` is normalised otherwise than `paper`."""
    if setting == "edge":
        pytest.importorskip("timm")
    path, system = save(tmp_path / "t.safetensors", setting), find_system(setting)
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 96, 96), np.uint8))
    mean, std = (torch.tensor(own)[:, None, None] for own in (system.mean, system.std))
    expected = load_checkpoint(path).network.class_maps((crops[:, None] / 255 - mean) / std)
    torch.testing.assert_close(InnerTeachers([path])(crops)[1], expected, rtol=1e-4, atol=1e-4)


def test_several_teachers_are_averaged(teacher, tmp_path):
    other = save(tmp_path / "o.safetensors", "paper", seed=2)
    crops = torch.zeros(1, 64, 64, dtype=torch.uint8)
    one, two = (InnerTeachers([path])(crops)[1] for path in (teacher, other))
    torch.testing.assert_close(InnerTeachers([teacher, other])(crops)[1], (one + two) / 2)
    assert not torch.equal(one, two)


def test_a_network_without_such_maps_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot be an inner teacher, .*such as paper or edge"):
        InnerTeachers([save(tmp_path / "t.safetensors", "dnetloc")])


def test_files_that_are_no_checkpoints_are_refused(paper_model, tmp_path):
    with pytest.raises(UsageError, match=r"\.onnx: is a scoring graph; --inner-teacher takes the checkpoint"):
        InnerTeachers([paper_model])
    with pytest.raises(CheckpointError, match=r"missing\.safetensors"):
        InnerTeachers([tmp_path / "missing.safetensors"])


@pytest.mark.parametrize(
    ("fields", "is_given", "message"),
    [
        ("map_teacher = 1", False, "--inner-teacher and a recipe with map_teacher or feature_teacher go together"),
        ("", True, "--inner-teacher and a recipe with map_teacher or feature_teacher go together"),
        ("map_teacher = -1", True, "map_teacher is -1.0; it must be 0 or more"),
    ],
)
def test_what_does_not_go_together(fields, is_given, message, teacher, tmp_path):
    write_noise(tmp_path)
    result = train(tmp_path, RECIPE + fields, *(("--inner-teacher", teacher) if is_given else ()))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_student_without_such_maps_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE.replace('"paper"', '"dnetloc"') + "map_teacher = 1")
    with pytest.raises(UsageError, match="map_teacher works with networks that pool their class maps only"):
        read_recipe(str(tmp_path / "r.toml"))


@pytest.mark.usefixtures("one_thread")
def test_what_a_teacher_has_inside_is_learned(teacher, tmp_path):
    """The maps of the training images come nearer to those of a teacher with other random weights."""
    write_noise(tmp_path)
    start = save(tmp_path / "start.safetensors", "paper")
    recipe = RECIPE.replace("epochs = 2", "epochs = 4") + "map_teacher = 5"
    result = train(tmp_path, recipe, "--start", start, "--inner-teacher", teacher)
    assert result.exit_code == 0, result.output
    data = read_data(tmp_path / "labels.csv")
    images = load_images([tmp_path / data.names[row] for row in data.rows("train")], 96)
    crops = torch.from_numpy(images[:, 0])
    taught = InnerTeachers([teacher])(crops)[1]
    before, after = (
        map_distance(InnerTeachers([path])(crops)[1], taught).item()
        for path in (start, tmp_path / "out" / "last.safetensors")
    )
    assert before > 0.7
    assert after < before - 0.2


@pytest.mark.parametrize(("map_weight", "feature_weight"), [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_what_is_learned_is_weighted_by_the_recipe(map_weight, feature_weight, teacher, tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE + f"map_teacher = {map_weight}\nfeature_teacher = {feature_weight}")
    recipe, teachers = read_recipe(str(tmp_path / "r.toml")), InnerTeachers([teacher])
    path = save(tmp_path / "student.safetensors", "paper")
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 96, 96), np.uint8))
    labels = np.zeros((4, 14), np.uint8)
    batch = Batch(crops, torch.from_numpy(labels).float(), torch.zeros(4, 3))
    with Group("cpu") as group, torch.no_grad():
        network = load_checkpoint(path).network
        _, further = Objective(recipe, network, None, labels, group, teachers).losses(batch, None)
    (features,), maps = InnerTeachers([path])(crops)
    taught_features, taught_maps = teachers(crops)
    maps_part, features_part = map_distance(maps, taught_maps), feature_distance(features, taught_features)
    assert min(maps_part, features_part) > 1e-3
    torch.testing.assert_close(further, map_weight * maps_part + feature_weight * features_part)


@pytest.mark.usefixtures("one_thread")
def test_another_teacher_is_another_run(teacher, tmp_path):
    write_noise(tmp_path)
    recipe = RECIPE + "map_teacher = 1"
    assert train(tmp_path, recipe, "--inner-teacher", teacher).exit_code == 0
    result = train(tmp_path, recipe, "--inner-teacher", save(tmp_path / "o.safetensors", "paper", seed=2))
    assert result.exit_code == 2
    assert "another inner teacher;" in result.stderr
    training = read_weights(tmp_path / "out" / "best.safetensors")[0]["training"]
    recipe = torch.load(tmp_path / "out" / "state.pt", weights_only=True)["identity"]["recipe"]
    assert "map_teacher" in recipe
    assert "feature_teacher" not in recipe  # so that a new field of recipes does not make this run another one
    assert training["inner_teachers"] == [hash_file(teacher)]
