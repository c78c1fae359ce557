"""`--precision auto` on a GPU: a simulated one, and ONNX Runtime with the CPU in the place of CUDA."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper
from simulated_backend import SimulatedBackend
from simulated_gpu import SimulatedGpu, SimulatedNetwork

from cxr_trt.engine import timing
from cxr_trt.engine.gpu.onnxruntime_cuda import CudaBackend
from cxr_trt.engine.gpu.pipeline import BATCHES_IN_FLIGHT, GpuRunner
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.engine.timing import TURNS, in_words, time_runners
from cxr_trt.export.from_network import export_onnx
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess
from cxr_trt.precision import planning
from cxr_trt.precision.calibration_images import MIN_CALIBRATION_IMAGES
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification
from cxr_trt.views import Size

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = """
<ir_version: 10, opset_import: ["": 20]>
small (float[N, 1, 64, 64] picture) => (float[N, 2] answer)
{
    a = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (picture, first)
    b = Relu (a)
    c = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (b, second)
    d = Relu (c)
    e = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d, third)
    f = Relu (e)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    answer = Gemm (h, last)
}
"""
CARD = 'findings = ["Effusion", "Mass"]\nimage_size = 64\nmean = [0.5]\nstd = [0.25]\n'


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A scoring graph of a network that takes no time."""
    folder = tmp_path_factory.mktemp("small")
    model, rng = onnx.parser.parse_model(NETWORK), np.random.default_rng(0)
    shapes = {"first": (8, 1, 3, 3), "second": (8, 8, 3, 3), "third": (8, 8, 3, 3), "last": (8, 2)}
    for name, shape in shapes.items():
        weights = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    onnx.save(model, folder / "network.onnx")
    (folder / "card.toml").write_text(CARD)
    export_onnx(folder / "network.onnx", folder / "card.toml").graph.save(folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture
def simulated(monkeypatch):
    """Makes the simulated backend known in place of TensorRT, and time pass by its clock."""

    def simulate(latency, refused=()):
        backend = SimulatedBackend(latency, refused)
        monkeypatch.setitem(BACKENDS, "tensorrt", backend)
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: backend.clock))
        return backend

    return simulate


def assert_scores(bundle, difference):
    graph = ScoringGraph.load(bundle / "model.onnx")
    pictures = check_pictures(graph.spec.image_size)
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"images": pictures})
    with Engine(bundle) as engine:
        np.testing.assert_allclose(engine.run(pictures).probabilities, expected, rtol=0, atol=difference)


def test_each_precision_is_built_once_and_the_fastest_is_the_engine_that_was_timed(source, simulated, cli, tmp_path):
    backend = simulated({"fp32": 0.4, "tf32": 0.2, "fp16": 0.1})
    bundle = tmp_path / "auto.cxr"
    done = cli("build-engine", source, "-o", bundle, "--precision", "auto")  # of which the GPU is found first
    assert done.exit_code == 0, done.stderr
    assert backend.built == ["fp32", "tf32", "fp16"]
    assert backend.most_open == 1
    manifest = read_manifest(bundle)
    assert (manifest.precision, manifest.backend, manifest.settings["computes"]) == ("fp16", "tensorrt", "fp16")
    measured = manifest.settings["tuning"]["precision"]
    assert list(measured) == ["fp32, tensorrt", "tf32, tensorrt", "fp16, tensorrt"]
    seconds = {label: found["seconds_per_xray"] for label, found in measured.items()}
    assert seconds == {"fp32, tensorrt": 0.2, "tf32, tensorrt": 0.1, "fp16, tensorrt": 0.05}  # in batches of two
    assert "fp32, tensorrt: 0.20 s per X-ray, probabilities differ from float32 by at most" in done.stderr
    assert "fp16, tensorrt: 50.00 ms per X-ray, probabilities differ" in done.stderr
    assert measured["fp16, tensorrt"]["largest_difference"] == manifest.settings["parity"]["largest"]
    assert measured["fp16, tensorrt"]["largest_difference"] > measured["fp32, tensorrt"]["largest_difference"]
    assert (bundle / "precision.json").is_file()
    assert_scores(bundle, 2e-2)


def test_calibrated_int8_takes_part(source, simulated, cli, radiographs, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "MAX_UNIT_ERROR", 1.0)  # random weights hardly tell the pictures apart
    backend = simulated({"fp32": 0.4, "tf32": 0.3, "fp16": 0.2, "int8": 0.1})
    xrays = tmp_path / "xrays"
    xrays.mkdir()
    picture = preprocess(decode((radiographs / "RG1_UNCR.dcm").read_bytes()).pixels, 256)
    for i in range(MIN_CALIBRATION_IMAGES):
        cv2.imwrite(str(xrays / f"{i}.png"), (picture * (0.6 + 0.025 * i)).astype(np.uint8))
    done = cli("build-engine", source, "-o", tmp_path / "a.cxr", "--precision", "auto", "--calibrate", xrays)
    assert done.exit_code == 0, done.stderr
    assert backend.built == ["fp32", "tf32", "fp16", "int8"]
    assert read_manifest(tmp_path / "a.cxr").precision == "int8"


def test_a_precision_that_the_gpu_has_no_kernels_for_is_left_out(source, simulated, cli, tmp_path):
    backend = simulated({"fp32": 0.1, "fp16": 0.2}, refused=("tf32",))
    done = cli("build-engine", source, "-o", tmp_path / "a.cxr", "--precision", "auto", "--backend", "tensorrt")
    assert done.exit_code == 0, done.stderr
    assert backend.built == ["fp32", "tf32", "fp16"]
    assert "tf32, tensorrt is left out: no kernel for tf32" in done.stderr
    assert read_manifest(tmp_path / "a.cxr").precision == "fp32"


def test_float32_by_default_says_that_others_may_be_faster(source, simulated, cli, tmp_path):
    simulated({"fp32": 0.1})
    said = {
        options: cli("build-engine", source, "-o", tmp_path / f"{len(options)}.cxr", *options).stderr
        for options in ((), ("--precision", "fp32"))
    }
    assert "--precision auto builds and times each" in said[()]
    assert "--precision auto" not in said["--precision", "fp32"]


class OnTheProcessors(CudaBackend):
    provider = "CPUExecutionProvider"

    def why_not_run(self):
        return self.why_not_build()

    def _provider_options(self, settings):
        return {}


def test_onnx_runtime_takes_the_same_path(source, cli, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "cuda", OnTheProcessors())
    bundle = tmp_path / "auto.cxr"
    command = ("build-engine", source, "-o", bundle, "--backend", "cuda", "--max-batch", 2, "--precision", "auto")
    done = cli(*command)
    assert done.exit_code == 0, done.stderr
    settings = json.loads((bundle / "manifest.json").read_text())["settings"]
    measured = settings["tuning"]["precision"]
    assert list(measured) == ["fp32, cuda", "tf32, cuda", "fp16, cuda"]
    assert all(found["seconds_per_xray"] > 0 for found in measured.values())
    assert_scores(bundle, 2e-2)


def test_what_is_timed_are_replayed_graphs_with_all_places_in_use():
    gpu = SimulatedGpu()
    with gpu.current():
        network = SimulatedNetwork(gpu, size=64)
    runner = GpuRunner(gpu, network)
    captured = []
    spec = Specification(image_size=Size.square(64), crop_size=Size.square(64), views="center")
    seconds = time_runners({"a": runner}, spec, lambda done: captured.append(gpu.calls.count("capture")))
    runner.close()
    assert captured == [BATCHES_IN_FLIGHT] * (1 + timing.TIMED_ROUNDS)
    batches = TURNS * BATCHES_IN_FLIGHT * (1 + timing.TIMED_ROUNDS)
    assert gpu.calls.count("upload") == batches
    assert gpu.calls.count("launch") == batches - BATCHES_IN_FLIGHT
    uploads = [call for call in gpu.calls if call in ("upload", "event synchronize")]
    assert uploads[:BATCHES_IN_FLIGHT] == ["upload"] * BATCHES_IN_FLIGHT  # before the first is waited for
    assert list(seconds) == ["a"]


def test_times_have_the_unit_in_which_they_can_be_read():
    assert [in_words(seconds) for seconds in (0.48, 0.0999, 0.00125)] == ["0.48 s", "99.90 ms", "1.25 ms"]
