"""Networks of any architecture go from an ONNX file or a checkpoint to the scores of the original, run directly."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from any_network import CARD, FINDINGS, statistics, timm_network, write_onnx
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError, GraphError
from cxr_trt.export import from_network
from cxr_trt.export.from_network import export_onnx
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS as CXR14
from cxr_trt.precision.plan import FLOAT32
from cxr_trt.precision.planning import plan_precision
from cxr_trt.progress import ignore_progress
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification
from cxr_trt.views import Size

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
pytest.importorskip("timm", reason="needs pip install timm")
pytest.importorskip("onnxscript", reason="needs pip install onnxscript")

SOFTMAX = 'output = "softmax-logits"\n'
NETWORKS = {
    "convnext": ("convnext_atto", (3, 64, 64), None, {"depths": (1, 1, 2, 1)}),
    "vit": ("vit_tiny_patch16_224", (3, 64, 64), None, {"img_size": 64}),
    "vit for one crop": ("vit_tiny_patch16_224", (3, 64, 64), 1, {"img_size": 64, "depth": 2}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        (3, 56, 56),
        None,
        {"img_size": 56, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
    ),
    "resnet, tall and grey": ("resnet10t", (1, 384, 256), None, {"in_chans": 1}),
    "resnet for sixteen crops": ("resnet10t", (3, 64, 64), 16, {}),
    "densenet": ("densenet121", (3, 64, 64), None, {"block_config": (2, 2, 3, 2)}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network_file(request, tmp_path_factory):
    """An ONNX file, its card, and the shape of its crops."""
    name, shape, batch, options = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp("network")
    path = write_onnx(timm_network(name, **options), folder / "network.onnx", shape, batch=batch)
    card = folder / "card.toml"
    card.write_text(f"{CARD}image_size = [{shape[1]}, {shape[2]}]\n{statistics(shape[0])}")
    return path, card, shape


def original_probabilities(path, pictures, crops):
    """The file as its own project would run it, crop by crop: resized, normalised, sigmoid."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    found = []
    for picture in pictures:
        crop = (np.repeat(picture, crops[0], 0)[None] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
        filled = np.repeat(crop, batch if isinstance(batch, int) else 1, 0).astype(np.float32)
        found.append(1 / (1 + np.exp(-session.run(None, {"picture": filled})[0][0])))
    return np.array(found)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_engine_gives_the_scores_of_the_original_file(network_file, build, backend):
    path, card, shape = network_file
    graph = export_onnx(path, card).graph
    pictures = check_pictures(Size(*shape[1:]))
    expected = original_probabilities(path, pictures, shape)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it matters what is on the picture
    with Engine(build(graph, backend, max_batch=3)) as engine:
        found = engine.run(np.concatenate([pictures, pictures[:1]])).probabilities
        assert engine.spec.findings == FINDINGS
    np.testing.assert_allclose(found, expected[[0, 1, 0]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("network_file", ["convnext", "vit", "vit for one crop", "densenet"], indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_it(network_file, tmp_path, precision):
    pytest.importorskip("tensorrt_rtx", reason="needs pip install 'cxr-trt[tensorrt-rtx-cu13]'")
    path, card, _ = network_file
    graph = export_onnx(path, card).graph
    plan = plan_precision(precision, graph, FLOAT32, None, "max", ignore_progress)
    manifest = build_bundle(BuildRequest(graph, BACKENDS["tensorrt-rtx"], plan), tmp_path / "rtx.cxr")
    assert manifest.precision == precision
    assert sum(file.stat().st_size for file in (tmp_path / "rtx.cxr").iterdir()) > path.stat().st_size / 2


@pytest.mark.parametrize("network_file", ["convnext", "vit"], indirect=True)
def test_what_stays_float32_is_measured_by_kind(network_file, tmp_path):
    """float16 on the CPU rounds as a GPU would; no kind of layer may move the scores much."""
    path, card, shape = network_file
    graph = export_onnx(path, card).graph
    plan = plan_precision("fp16", graph, FLOAT32, None, "max", ignore_progress)
    build_bundle(BuildRequest(graph, BACKENDS["onnxruntime"], plan), tmp_path / "half.cxr")
    with Engine(tmp_path / "half.cxr") as engine:
        found = engine.run(check_pictures(Size(*shape[1:]))).probabilities
    difference = np.abs(found - original_probabilities(path, check_pictures(Size(*shape[1:])), shape)).max()
    assert 0 < difference < 5e-3
    assert {layer.split(".")[0] for layer in plan.float32} <= {"network"}


def test_exclusive_classes_of_which_some_are_reported(build, tmp_path):
    """Fifteen classes with No Finding, of which the fourteen findings become columns."""
    network = timm_network("resnet10t", outputs=15)
    path = write_onnx(network, tmp_path / "network.onnx", (3, 64, 64))
    card = tmp_path / "card.toml"
    names = [*CXR14, "No Finding"]
    card.write_text(f"findings = {names}\nreport = {names[:14]}\nimage_size = 64\n{statistics()}" + SOFTMAX)
    pictures = check_pictures(64)
    crops = torch.from_numpy((np.repeat(pictures, 3, 1) / np.float32(255) - np.float32(0.5)) / np.float32(0.25))
    with torch.inference_mode():
        expected = torch.softmax(network(crops), 1)[:, :14]
    with Engine(build(export_onnx(path, card).graph)) as engine:
        assert engine.spec.findings == CXR14
        np.testing.assert_allclose(engine.run(pictures).probabilities, expected, rtol=0, atol=1e-5)


def test_a_scoring_graph_gives_its_network_back(network_file, tmp_path):
    path, card, _ = network_file
    graph = export_onnx(path, card).graph
    graph.save(tmp_path / "model.onnx")
    loaded = ScoringGraph.load(tmp_path / "model.onnx")
    again = ScoringGraph.around(loaded.network_graph, loaded.info)
    assert again.model.graph == graph.model.graph
    assert again.weights_sha256 == graph.weights_sha256


def test_the_maps_of_a_linear_layer_on_the_mean_have_the_logits_as_their_mean(network_file, request):
    path, card, shape = network_file
    graph = export_onnx(path, card).graph
    name = request.node.callspec.params["network_file"]
    assert graph.has_class_maps == name.startswith(("resnet", "densenet"))  # the others end in other layers
    if not graph.has_class_maps:
        return
    picture = check_pictures(Size(*shape[1:]))[:1]
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities, maps = session.run(["probabilities", "class_maps"], {"images": picture})
    assert maps.shape[2:] == graph.spec.class_map_cells
    np.testing.assert_allclose(1 / (1 + np.exp(-maps.mean((2, 3)))), probabilities, atol=1e-5)


@pytest.fixture
def small(tmp_path):
    """A network of one convolution: five logits for a grey crop of 32 x 32 pixels. Call it to write it."""

    def write(card="", *, change=None, network="network.onnx"):
        rng = np.random.default_rng(0)
        kernel = numpy_helper.from_array(rng.normal(size=(5, 1, 4, 4)).astype(np.float32), "kernel")
        nodes = [
            helper.make_node("Conv", ["x", "kernel"], ["features"], strides=[4, 4]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 1, 32, 32])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 5])],
            [kernel],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        if change:
            model = change(model) or model
        onnx.save(model, tmp_path / network)
        (tmp_path / "card.toml").write_text(card or f"{CARD}image_size = 32\n{statistics(1)}")
        return tmp_path / network, tmp_path / "card.toml"

    return write


def test_views_mirrors_and_reported_outputs_are_those_of_the_card(small, build):
    """Ten crops by hand, with the order, the mean and the softmax that the card asks for."""
    card = f'{CARD}report = ["No Finding", "Effusion"]\nimage_size = [48, 40]\ncrop_size = 32\n{statistics(1)}'
    card += 'pixel_range = [-1.0, 3.0]\nviews = "ten-crop"\noutput = "softmax-logits"\n'
    path, card = small(card)
    graph = export_onnx(path, card).graph
    picture = np.random.default_rng(1).integers(0, 256, (48, 40), np.uint8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    crops = [picture[y : y + 32, x : x + 32] for y, x in ((0, 0), (0, 8), (16, 0), (16, 8), (8, 4))]
    values = np.array([*crops, *(crop[:, ::-1] for crop in crops)], np.float32)[:, None]
    (logits,) = session.run(None, {"x": (-1 + values / 255 * 4 - np.float32(0.5)) / np.float32(0.25)})
    powers = np.exp(logits)
    expected = (powers / powers.sum(1, keepdims=True)).mean(0)[[4, 1]]
    with Engine(build(graph)) as engine:
        assert engine.spec.findings == ("No Finding", "Effusion")
        np.testing.assert_allclose(engine.run(picture[None]).probabilities[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fit", ["stretch", "pad", "center-crop"])
def test_a_picture_is_fitted_as_the_card_says(fit):
    from cxr_trt.images.preprocess import preprocess

    picture = np.full((300, 200), 200, np.float32)
    picture[140:160, 90:110] = 0
    found = preprocess(picture, Size(60, 80), fit)
    inner = {"stretch": (60, 80), "pad": (60, 40), "center-crop": (60, 80)}[fit]
    assert found.shape == (60, 80)
    assert (found > 0).any(0).sum() == inner[1]
    y, x = np.argwhere(cv2.copyMakeBorder(found, 0, 0, 0, 0, cv2.BORDER_CONSTANT)[20:40, 30:50] == 0).mean(0)
    assert abs(y - 9.5) <= 1
    assert abs(x - 9.5) <= 1


def softmaxed(model):
    model.graph.node.append(helper.make_node("Softmax", ["y"], ["p"], axis=1))
    model.graph.output[0].name = "p"


def two_images(model):
    model.graph.input.append(helper.make_tensor_value_info("lateral", TensorProto.FLOAT, ["B", 1, 32, 32]))


def any_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"


def unknown_operator(model):
    model.graph.node[1].domain = "org.example"
    model.opset_import.append(helper.make_opsetid("org.example", 1))


def weights_elsewhere(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../elsewhere.bin")


def weights_missing(model):
    weights_elsewhere(model)
    model.graph.initializer[0].external_data[0].value = "weights.bin"


def impossible_shape(model):
    model.graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["z"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 7]), "shape"))
    model.graph.output[0].name = "z"


ONE_LESS = 'findings = ["a", "b", "c", "d"]\nimage_size = 32\n'


@pytest.mark.parametrize(
    ("card", "change", "sentence"),
    [
        (f"{CARD}image_size = 32\nspeed = 9\n{statistics(1)}", None, "unknown key speed"),
        (f"image_size = 32\n{statistics(1)}", None, "lacks the key findings"),
        (f"{CARD}{statistics(1)}", None, "lacks the key image_size"),
        (f"{CARD}image_size = 32\nmean = [0.5]\n", None, "lacks the key std"),
        (f"{ONE_LESS}{statistics(1)}", None, r"no output has 4 scores per image.*y \[1, 5\]"),
        (f"{CARD}image_size = 32\n{statistics(3)}", None, "has 3 channels, but the network of .* has 1"),
        (f"{CARD}image_size = 32\nchannels = 3\n{statistics(1)}", None, "mean has 1 numbers for 3 channels"),
        (f"{CARD}image_size = 64\n{statistics(1)}", None, "image_size is 64, but the network of .* takes 32"),
        (
            f"{CARD}image_size = 32\nmean = [0.5]\nstd = [0]\n",
            None,
            r"std is \[0\]; it must be: list of numbers",
        ),
        (
            f'{CARD}image_size = 32\n{statistics(1)}output = "sigmoid"\n',
            None,
            "output is 'sigmoid'; it must be",
        ),
        (f"{CARD}image_size = 32\n{statistics(1)}pixel_range = [1, 1]\n", None, "must be: .* two different numbers"),
        (f'{CARD}report = ["Mass"]\nimage_size = 32\n{statistics(1)}', None, "reports 'Mass', which is none"),
        (f'{CARD}image_size = 32\n{statistics(1)}output = "probabilities"\n', None, "the network gives values from"),
        (f'{CARD}image_size = 32\n{statistics(1)}output = "softmax"\n', None, "the network gives values from"),
        ("findings = [", None, "not a TOML file"),
        (
            f"findings = {[str(i) for i in range(600)]}\n",
            None,
            r"findings is \['0', '1', '2', '3', '4', '5', \.\.\.\]; it must be: .*a network has 1 to 512",
        ),
        ("", two_images, r"must have one input, the image, but has 2 \(x, lateral\)"),
        ("", any_size, "without a fixed image size"),
        ("", impossible_shape, r"ONNX Runtime failed in it \(.*\); export it again"),
        ("", unknown_operator, "ONNX Runtime cannot run it.*GlobalAveragePool"),
        ("", weights_elsewhere, r"keeps weights outside its folder \(\.\./elsewhere\.bin\)"),
        ("", weights_missing, r"keeps weights in the file weights\.bin, which is not there"),
    ],
)
def test_bad_input_is_one_sentence(small, card, change, sentence):
    path, card_path = small(card, change=change)
    with pytest.raises(GraphError, match=sentence) as caught:
        export_onnx(path, card_path)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(("scale", "off", "is_refused"), [(1, 5e-5, True), (1e4, 5e-5, False), (1e4, 1e-2, True)])
def test_what_float32_rounds_of_large_logits_is_allowed_and_no_more(small, monkeypatch, scale, off, is_refused):
    def scaled(model):
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), tensor.name))

    reference = from_network.reference_probabilities
    monkeypatch.setattr(from_network, "reference_probabilities", lambda *args: reference(*args) + off)
    files = small(change=scaled)
    if is_refused:
        with pytest.raises(GraphError, match="nothing was written"):
            export_onnx(*files)
    else:
        assert export_onnx(*files).difference == pytest.approx(off, rel=0.1)


def test_probabilities_that_are_no_softmax_are_noticed(small):
    def halved(model):
        softmaxed(model)
        model.graph.node.append(helper.make_node("Mul", ["p", "half"], ["q"]))
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
        model.graph.output[0].name = "q"

    with pytest.raises(GraphError, match=r"the outputs sum to 0\.5 instead of 1"):
        export_onnx(*small(f'{CARD}image_size = 32\n{statistics(1)}output = "softmax"\n', change=halved))


def test_a_softmax_network_is_taken_as_it_is(small):
    path, card = small(f'{CARD}image_size = 32\n{statistics(1)}output = "softmax"\n', change=softmaxed)
    assert export_onnx(path, card).difference <= 1e-6


def test_weights_in_a_file_beside_it_are_read(small, tmp_path):
    def beside(model):
        onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)

    path, card = small(change=beside)
    assert (tmp_path / "weights.bin").is_file()
    assert export_onnx(path, card).difference <= 1e-6


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_in_a_constant_is_freed(small, build, batch):
    def fixed(model):
        model.graph.node[2].CopyFrom(helper.make_node("Reshape", ["pooled", "shape"], ["y"]))
        model.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value_ints=[batch, 5]))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch

    graph = export_onnx(*small(change=fixed)).graph
    assert not graph.one_by_one
    pictures = check_pictures(32)
    with Engine(build(graph, max_batch=2)) as engine:
        together = engine.run(pictures).probabilities
        np.testing.assert_allclose(together[1:], engine.run(pictures[1:]).probabilities, atol=1e-6)
    assert np.ptp(together, axis=0).min() > 1e-3


def test_a_float16_network_stays_as_it_is(small, build):
    def halved(model):
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16

    path, card = small(change=halved)
    graph = export_onnx(path, card).graph
    assert graph.network_graph.is_float16
    with Engine(build(graph, "onnxruntime")) as engine:
        assert engine.manifest.settings["parity"]["largest"] <= 1e-5


def test_a_quantized_network_stays_as_it_is(small, build, cli, tmp_path):
    def quantized(model):
        scale = numpy_helper.from_array(np.float32(0.05), "scale")
        model.graph.initializer.extend([scale, numpy_helper.from_array(np.int8(0), "zero")])
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["restored"]),
            *model.graph.node,
        ]
        nodes[2].input[0] = "restored"
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    path, card = small(change=quantized)
    graph = export_onnx(path, card).graph
    graph.save(tmp_path / "model.onnx")
    for backend in ("openvino", "onnxruntime"):
        with Engine(build(graph, backend)) as engine:
            assert engine.manifest.settings["parity"]["largest"] <= 0.01
    result = cli("build-engine", tmp_path / "model.onnx", "-o", tmp_path / "m.cxr", "--precision", "fp16")
    assert result.exit_code == 2
    assert "the network is quantized already, and stays as it is" in result.stderr


def test_the_command_line_takes_a_file_with_its_card(small, cli, tmp_path):
    path, card = small()
    result = cli("export", path, "-o", tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert "add --card FILE.toml" in result.stderr
    result = cli("export", path, "--card", card, "-o", tmp_path / "model.onnx")
    assert result.exit_code == 0, result.stderr
    assert "agrees with network.onnx on 2 images" in result.stderr
    result = cli("build-engine", path, "-o", tmp_path / "m.cxr")
    assert result.exit_code == 2
    assert "cxr-trt export network.onnx --card CARD.toml" in result.stderr


@pytest.mark.parametrize("option", ["--timm", "--torchvision"])
def test_a_checkpoint_of_a_library_is_loaded_strictly(option, cli, tmp_path):
    if option == "--timm":
        network, name = timm_network("resnet10t"), "resnet10t"
    else:
        from torchvision.models import squeezenet1_1

        torch.manual_seed(0)
        network, name = squeezenet1_1(num_classes=len(FINDINGS)).eval(), "squeezenet1_1"
    (tmp_path / "card.toml").write_text(CARD)
    weights = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "weights.pth")
    command = ("export", tmp_path / "weights.pth", option, name, "-o", tmp_path / "m.onnx")
    assert "add --card FILE.toml" in cli(*command).stderr
    result = cli(*command, "--card", tmp_path / "card.toml")
    assert result.exit_code == 0, result.stderr
    spec = ScoringGraph.load(tmp_path / "m.onnx").spec
    assert spec.image_size == spec.crop_size == Size.square({"--timm": 176, "--torchvision": 224}[option])

    key = next(iter(weights))
    torch.save({"state_dict": {k: v for k, v in weights.items() if k != key}}, tmp_path / "weights.pth")
    result = cli(*command, "--card", tmp_path / "card.toml", "--overwrite")
    assert result.exit_code == 2
    assert f"missing {key.removeprefix('module.')}" in result.stderr


def test_a_pytorch_whose_exporter_is_too_old_is_one_sentence(monkeypatch):
    from cxr_trt.export.from_module import export_module

    monkeypatch.setattr(torch, "__version__", "2.6.0a0+df5bbc09d1.nv24.12")
    with pytest.raises(BackendError) as caught:
        export_module(torch.nn.Flatten(), Specification(), "network")
    assert str(caught.value).startswith("exporting this network needs PyTorch 2.7.0 or newer, but 2.6.0a0+df5bbc09d1")


def test_a_name_that_the_library_does_not_have_is_refused(cli, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    (tmp_path / "card.toml").write_text(CARD)
    for option, name, sentence in (
        ("--timm", "resnet9000", "timm has no network"),
        ("--torchvision", "x", "no network"),
    ):
        result = cli(
            *("export", tmp_path / "weights.pth", option, name, "--card", tmp_path / "card.toml"),
            "-o",
            tmp_path / "m.onnx",
        )
        assert result.exit_code == 2
        assert sentence in result.stderr
