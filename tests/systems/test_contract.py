"""What holds for every system: its facts, its networks, its checkpoints."""

import json

import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
pytest.importorskip("timm", reason="needs pip install timm")

from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn.functional import binary_cross_entropy_with_logits  # noqa: E402

from cxr_trt.errors import CheckpointError, UsageError  # noqa: E402
from cxr_trt.model.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from cxr_trt.systems import SYSTEMS, find_system, setting_names  # noqa: E402
from cxr_trt.systems.yan2018 import YAN2018  # noqa: E402
from cxr_trt.views import Size  # noqa: E402
from train.recipe import RECIPES, read_recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

BUILT = [
    "paper",
    "no-se",
    "alexnet-average",
    "alexnet-max",
    "googlenet-lse",
    "vgg16-max",
    "resnet50-lse",
    "chexnet-2017",
    "agcnn-densenet121",
    "li2018-12",
    "yao2018-r5",
    "yao2017-a",
    "yao2017-b2",
    "dnetloc",
    "dualnet",
    "edge",
]
SAVED = [
    "paper",
    "alexnet-lse",
    "googlenet-average",
    "chexnet-2017",
    "yao2018-r0",
    "yao2017-b1",
    "edge",
]  # small enough to be written to disk
VERY_SLOW = (pytest.mark.slow, pytest.mark.long)
LARGE = ["agcnn-densenet121", "li2018-20", "dnetloc", "dualnet"]


@pytest.fixture(scope="module", params=BUILT)
def built(request):
    """A system and one of its networks."""
    system = find_system(request.param)
    torch.manual_seed(0)
    return system, system.build(request.param)


def crop_of(system):
    """A small crop that is not square."""
    if system.planes > 1:
        return 128, 64
    return (128, 256) if system.name in ("yao2017", "guendel2018", "edge") else (64, 128)


def test_each_system_is_among_those_that_are_built_here():
    assert {find_system(setting).name for setting in BUILT} == {system.name for system in SYSTEMS}


def test_names_are_unique():
    assert len(set(setting_names())) == sum(len(system.settings) for system in SYSTEMS)
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_a_system_has_published_results_a_recipe_and_refuses_odd_settings(system):
    assert bool(system.published) != bool(system.unpublished)
    assert all(0.5 < row.mean_auc < 1 and row.source for row in system.published)
    assert {read_recipe(path.stem).setting for path in RECIPES.glob("*.toml")} & set(system.settings)
    with pytest.raises(
        UsageError, match=f"setting 'odd' is none of {system.name}'s, which are {next(iter(system.settings))}"
    ):
        system.build("odd")
    with pytest.raises(UsageError, match="setting 'odd' is none of paper, chexnet"):
        find_system("odd")


def test_outputs_and_maps_agree_with_forward(built):
    system, network = built
    crops = torch.randn(2, len(system.mean), *crop_of(system))
    with torch.inference_mode():
        outputs, maps = network.eval().outputs_and_maps(crops)
        assert torch.equal(network(crops), outputs)
    assert outputs.shape == (2, 14)
    assert outputs.std() > 0
    assert (maps is None) == (system.maps == "none")
    if maps is not None:
        assert maps.shape[:2] == (2, 14)
        assert min(maps.shape[2:]) > 0


def test_gradients_are_finite_and_reach_every_weight_that_is_trained(built):
    system, network = built
    for part in system.parts or ("",):
        network.part = part
        network.requires_grad_(False).train().get_submodule(part).requires_grad_()
        labels = torch.tensor([[1.0] * 14, [0.0] * 14])
        logits, known = network.training_outputs(torch.randn(2, len(system.mean), *crop_of(system)), labels)
        binary_cross_entropy_with_logits(logits, known).backward()
        for name, parameter in network.named_parameters():
            is_trained = name.startswith(part)
            assert (parameter.grad is not None) == is_trained, name
            assert not is_trained or torch.isfinite(parameter.grad).all(), name
        network.zero_grad()
    network.part = ""


@pytest.mark.parametrize("setting", [*SAVED, *(pytest.param(name, marks=VERY_SLOW) for name in LARGE)])
def test_a_checkpoint_gives_the_same_network_and_how_it_is_scored(setting, tmp_path):
    system = find_system(setting)
    network, path = system.build(setting), tmp_path / "a.safetensors"
    save_checkpoint(network, path, weights="untrained", setting=setting)
    loaded = load_checkpoint(path, setting)
    assert loaded.weights == "untrained"
    assert not loaded.network.training
    assert type(loaded.network) is type(network)
    assert loaded.network.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(value, loaded.network.state_dict()[key]) for key, value in network.state_dict().items())
    spec = loaded.spec
    sides, planes = (system.image_size, system.crop_size), system.planes
    assert (spec.image_size, spec.crop_size) == tuple(Size(planes * side, side) for side in sides)
    assert spec.plane_size == Size.square(system.image_size)
    assert (spec.views, spec.mean, spec.std) == (system.views, system.mean, system.std)
    assert (spec.pooling is None) == (system is not YAN2018)
    assert loaded.maps == system.maps

    save_checkpoint(network, path, weights="untrained", setting=setting, sizes=(160, 128))
    if planes > 1:
        with pytest.raises(CheckpointError, match="stacked to a whole image"):
            load_checkpoint(path)
        return
    spec = load_checkpoint(path).spec
    assert (spec.image_size, spec.crop_size) == (Size.square(160), Size.square(128))
    assert spec.views == ("ten-crop" if system.views == "ten-crop" else "center")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(find_system("alexnet-max").build("alexnet-max"), path, weights="untrained", setting="alexnet-max")
    return path


def test_a_state_dict_needs_its_setting(saved, tmp_path):
    torch.save(load_file(saved), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"add --setting paper\|.*\|alexnet-average\|.*\|chexnet-2017"):
        load_checkpoint(tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt", "alexnet-max").spec.image_size == Size.square(1024)
    with pytest.raises(CheckpointError, match="does not fit the network: missing"):
        load_checkpoint(tmp_path / "a.pt", "chexnet-2017")


@pytest.mark.parametrize("setting", ["paper", "alexnet-lse", "chexnet-2017"])
def test_a_setting_that_contradicts_the_header_is_refused(saved, setting):
    with pytest.raises(CheckpointError, match=f"was saved as alexnet-max, which is not --setting {setting}; leave"):
        load_checkpoint(saved, setting)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"system": "wang2018"}, "no system 'wang2018' has a setting 'alexnet-max'"),
        ({"system": ["wang2017"]}, r"no system \['wang2017'\] has a setting"),
        ({"setting": "paper"}, "no system 'wang2017' has a setting 'paper'"),
        ({"setting": ["alexnet-max"]}, "has a setting"),
        ({"setting": None}, "has a setting None"),
        ({"views": "all"}, "views are 'all'"),
        ({"views": ["whole"]}, "views are"),
        ({"views": "dense"}, "dense views are only possible"),
        ({"sizes": [64, 128]}, "do not fit into an image"),
        ({"sizes": [1e9, 1e9]}, "does not fit this version"),
    ],
)
def test_a_header_that_makes_no_sense_is_one_sentence(saved, change, sentence):
    header = {"system": "wang2017", "setting": "alexnet-max", "weights": "trained", "sizes": [64, 64], "views": "whole"}
    save_file(load_file(saved), saved, metadata={"cxr_trt": json.dumps(header | change)})
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)
