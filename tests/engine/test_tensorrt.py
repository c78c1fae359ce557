"""TensorRT and TensorRT-RTX: real builds on the CPU with TensorRT-RTX, real runs where there is a GPU."""

import ast
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
from click.testing import Result
from onnx import numpy_helper, parser

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.gpu import caches, tensorrt, tensorrt_config, tensorrt_plugin, tensorrt_runtime
from cxr_trt.engine.gpu.build_progress import BuildProgress
from cxr_trt.engine.gpu.cuda_versions import driver_cuda, install_command
from cxr_trt.engine.gpu.tensorrt import TensorRTBackend
from cxr_trt.engine.gpu.tensorrt_plugin import Plugin, find_plugin, load_plugin
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.export.pooling import max_min_pool_function
from cxr_trt.spec import Specification

RTX = TensorRTBackend("tensorrt_rtx")
MODULES = (tensorrt, tensorrt_config, tensorrt_plugin, tensorrt_runtime, caches)

# A scoring graph in small: 64 x 64 pixels, one convolution in place of the network, and the pooling as a function.
SCORING_GRAPH = """
<ir_version: 10, opset_import: ["": 20, "cxr_trt": 1]>
scoring (uint8[N, 1, 64, 64] images) => (float[N, 14] probabilities, float[N, 14, 4, 4] class_maps)
<float scale = {0.01}, int64[1] windows = {1}>
{
    pixels = Cast <to: int = 1> (images)
    x = Mul (pixels, scale)
    class_maps = Conv <strides: ints = [16, 16]> (x, weight)
    window_scores = cxr_trt.MaxMinPool <k_max: int = 2, k_min: int = 3, alpha: float = 0.7> (class_maps)
    scores = Squeeze (window_scores, windows)
    probabilities = Sigmoid (scores)
}
"""

# Biases as onnxruntime's quantizer writes them by default.
INT32_BIAS_GRAPH = """
<ir_version: 10, opset_import: ["": 20]>
quantized (uint8[N, 1, 64, 64] images) => (float[N, 1, 64, 64] probabilities)
<int32 bias = {3}, float bias_scale = {0.5}>
{
    x = Cast <to: int = 1> (images)
    [dequantize_bias] b = DequantizeLinear (bias, bias_scale)
    probabilities = Add (x, b)
}
"""

UNKNOWN_OP_GRAPH = """
<ir_version: 10, opset_import: ["": 20, "elsewhere": 1]>
strange (uint8[N, 1, 64, 64] images) => (float[N, 1, 64, 64] probabilities)
{
    x = Cast <to: int = 1> (images)
    [strange_node] probabilities = elsewhere.Strange (x)
}
"""


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    model = parser.parse_model(SCORING_GRAPH)
    weight = np.random.default_rng(0).normal(0, 0.05, (14, 1, 16, 16)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    model.functions.append(max_min_pool_function(20))
    onnx.checker.check_model(model, full_check=True)
    return model


def paper_pooling(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with k_max = k_min = 1."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("k_max", "k_min"):
                attribute.i = 1
    return copy


@pytest.fixture
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.mark.usefixtures("trt")
class TestBuild:
    def test_a_plan_and_its_settings(self, graph: onnx.ModelProto, tmp_path: Path) -> None:
        settings = RTX.build(graph, tmp_path, BuildOptions(4))
        assert [path.name for path in tmp_path.iterdir()] == ["engine.plan"]
        assert (tmp_path / "engine.plan").stat().st_size > 14 * 16 * 16 * 4  # at least the weights
        assert json.loads(json.dumps(settings)) == settings
        assert settings["max_batch"] == 4
        assert (settings["gpu"], settings["compute_capability"]) == (None, None)

    def test_activation_memory_grows_with_the_batch(self, graph: onnx.ModelProto, tmp_path: Path) -> None:
        small, large = (RTX.build(graph, tmp_path, BuildOptions(n))["activation_bytes"] for n in (1, 64))
        assert 0 < small < large

    def test_progress_rises_to_one(self, graph: onnx.ModelProto, tmp_path: Path) -> None:
        calls: list[tuple[str, float]] = []
        RTX.build(graph, tmp_path, BuildOptions(2, lambda phase, fraction: calls.append((phase, fraction))))
        assert [fraction for phase, fraction in calls if phase == "parse"] == [0, 1]
        fractions = [fraction for phase, fraction in calls if phase == "build"]
        assert fractions == sorted(fractions)
        assert len(set(fractions)) > 3
        assert 0 < fractions[0] < fractions[-1] == 1

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenPipeError("the terminal is gone")])
    def test_an_error_while_reporting_cancels_the_build(
        self, graph: onnx.ModelProto, tmp_path: Path, error: BaseException
    ) -> None:
        def report(phase: str, fraction: float) -> None:
            if phase == "build":
                raise error

        with pytest.raises(type(error)):
            RTX.build(graph, tmp_path, BuildOptions(2, report))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            (INT32_BIAS_GRAPH, ["dequantize_bias (DequantizeLinear)", "Int32"]),
            (UNKNOWN_OP_GRAPH, ["strange_node (Strange)"]),
        ],
    )
    def test_a_refused_graph_names_the_node_in_one_sentence(self, text: str, names: list[str], tmp_path: Path) -> None:
        with pytest.raises(BackendError) as caught:
            RTX.build(parser.parse_model(text), tmp_path, BuildOptions(2))
        message = str(caught.value)
        assert message.startswith("TensorRT-RTX refuses the graph at node ")
        assert "\n" not in message
        assert [name for name in names if name not in message] == []

    def test_a_graph_with_another_input_is_refused(self, tmp_path: Path) -> None:
        model = parser.parse_model(UNKNOWN_OP_GRAPH.replace("images", "pixels").replace("elsewhere.Strange", "Relu"))
        with pytest.raises(BackendError, match="one input, `images`, but this graph has pixels"):
            RTX.build(model, tmp_path, BuildOptions(2))

    def test_the_profile_spans_one_image_to_the_largest_batch(self, trt: Any, graph: onnx.ModelProto) -> None:
        log = tensorrt_runtime.Log(trt)
        builder = trt.Builder(log.logger)
        network = builder.create_network(tensorrt_config.network_flags(trt))
        inlined = onnx.inliner.inline_local_functions(graph)
        assert trt.OnnxParser(network, log.logger).parse(inlined.SerializeToString())
        profile = tensorrt_config.batch_profile(builder, network, 6)
        assert [tuple(shape) for shape in profile.get_shape("images")] == [(n, 1, 64, 64) for n in (1, 6, 6)]

    def test_single_xrays_get_a_profile_of_their_own_if_asked_for(self, graph: onnx.ModelProto, tmp_path: Path) -> None:
        asked = [BuildOptions(6), BuildOptions(6, single_xrays=True), BuildOptions(1, single_xrays=True)]
        assert [tensorrt_config.profile_batches(options) for options in asked] == [[6], [6, 1], [1]]
        sizes, memory = [], []
        for options in asked[:2]:
            memory.append(RTX.build(graph, tmp_path, options)["activation_bytes"])
            sizes.append((tmp_path / "engine.plan").stat().st_size)
        assert sizes[0] < sizes[1]
        assert memory[0] <= memory[1]  # of the larger profile, not of the last one

    def test_a_failed_build_gives_tensorrts_reason(self, trt: Any, graph: onnx.ModelProto) -> None:
        log = tensorrt_runtime.Log(trt)
        builder = trt.Builder(log.logger)
        assert builder.build_serialized_network(builder.create_network(0), builder.create_builder_config()) is None
        assert str(log.failure("no engine")).startswith("no engine: ")
        assert "Network must have at least one output" in str(log.failure("no engine"))


class TestPlugin:
    @pytest.fixture
    def library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "plugin.so"
        path.write_bytes(b"no library")
        monkeypatch.setenv("CXR_TRT_PLUGIN", str(path))
        return path

    def test_the_variable_names_the_library(self, library: Path) -> None:
        sha256 = hashlib.sha256(b"no library").hexdigest()
        plugin = find_plugin()
        assert plugin == Plugin(library, sha256)
        assert plugin.settings() == {"name": "MaxMinPool", "version": "1", "sha256": sha256}

    def test_the_variable_must_name_a_file(self, library: Path) -> None:
        library.unlink()
        with pytest.raises(UsageError) as caught:
            find_plugin()
        assert str(caught.value) == (
            f"CXR_TRT_PLUGIN is {library}: No such file or directory; run `make plugin`, or use --no-plugin"
        )

    def test_without_the_variable_it_is_what_make_plugin_built(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CXR_TRT_PLUGIN", raising=False)
        monkeypatch.setattr(tensorrt_plugin, "INSTALLED_PLUGIN", tmp_path / "libcxr_trt_plugin.so")
        assert find_plugin() is None
        (tmp_path / "libcxr_trt_plugin.so").write_bytes(b"built")
        assert find_plugin() == Plugin(tmp_path / "libcxr_trt_plugin.so", hashlib.sha256(b"built").hexdigest())

    def test_where_make_plugin_writes_is_where_it_is_looked_for(self) -> None:
        build = importlib.import_module("plugins.build")
        assert build.INSTALLED == tensorrt_plugin.INSTALLED_PLUGIN

    @pytest.mark.usefixtures("trt")
    def test_the_command_lines_options_reach_the_backend(
        self, cli: Callable[..., Result], cheap_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[BuildOptions] = []
        backend = BACKENDS["tensorrt-rtx"]

        def build(*arguments: Any) -> Any:
            asked.append(arguments[2])
            return type(backend).build(backend, *arguments)

        monkeypatch.setattr(backend, "build", build)
        for option in ([], ["--no-plugin"], ["--plugin"], ["--fast-build", "--memory-limit", 64, "--single-xrays"]):
            command = ("build-engine", cheap_bundle, "-o", tmp_path / "e.cxr", "--backend", "tensorrt-rtx")
            result = cli(*command, "--overwrite", *option)
            assert result.exit_code == 0, result.output
        assert [options.plugin for options in asked] == [None, False, True, None]
        assert [options.fast_build for options in asked] == [False, False, False, True]
        assert [options.single_xrays for options in asked] == [False, False, False, True]
        assert [options.memory_limit for options in asked] == [None, None, None, 64 << 20]

    def test_what_is_no_plugin_library_is_refused(self, trt: Any, library: Path) -> None:
        log = tensorrt_runtime.Log(trt)
        builder = trt.Builder(log.logger)
        with pytest.raises(
            BackendError, match=r"cannot load the plugin .*plugin\.so: build it again with `make plugin`"
        ):
            load_plugin(Plugin(library, ""), builder.get_plugin_registry())

    @pytest.mark.usefixtures("trt", "library")
    def test_tensorrt_rtx_takes_standard_operators(self, graph: onnx.ModelProto, tmp_path: Path) -> None:
        assert RTX.build(graph, tmp_path, BuildOptions(2))["plugin"] is None

    def test_tensorrt_takes_it_where_the_pooling_sorts_unless_told_otherwise(
        self,
        graph: onnx.ModelProto,
        library: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("WARNING")  # OpenVINO's converter leaves the root logger at ERROR where it fails
        backend = TensorRTBackend("tensorrt")
        chosen = backend._plugin(graph, BuildOptions(2))
        assert chosen is not None
        assert chosen.path == library
        assert backend._plugin(graph, BuildOptions(2, plugin=False)) is None
        assert backend._plugin(paper_pooling(graph), BuildOptions(2)) is None
        assert backend._plugin(paper_pooling(graph), BuildOptions(2, plugin=True)) == chosen
        assert backend._plugin(graph, BuildOptions(2, version_compatible=True)) is None
        with pytest.raises(BackendError, match="leave out --plugin, or --version-compatible"):
            backend._plugin(graph, BuildOptions(2, version_compatible=True, plugin=True))
        assert caplog.messages == []
        monkeypatch.delenv("CXR_TRT_PLUGIN")
        monkeypatch.setattr(tensorrt_plugin, "INSTALLED_PLUGIN", library.with_name("nothing"))
        assert backend._plugin(graph, BuildOptions(2)) is None
        (warning,) = caplog.messages
        assert warning.startswith("the pooling plugin is not built: run `python plugins/build.py`")
        with pytest.raises(BackendError, match="the pooling plugin is not built"):
            backend._plugin(graph, BuildOptions(2, plugin=True))

    @pytest.mark.usefixtures("trt")
    def test_without_it_one_maximum_and_one_minimum_are_reductions(
        self, graph: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parsed: list[set[str]] = []
        inline = onnx.inliner.inline_local_functions

        def watched(model: onnx.ModelProto) -> onnx.ModelProto:
            parsed.append({node.op_type for function in model.functions for node in function.node})
            return inline(model)

        monkeypatch.setattr(onnx.inliner, "inline_local_functions", watched)
        RTX.build(paper_pooling(graph), tmp_path, BuildOptions(2))
        RTX.build(graph, tmp_path, BuildOptions(2))
        assert "TopK" not in parsed[0]
        assert "ReduceMax" in parsed[0]
        assert "TopK" in parsed[1]


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_float32_unless_tf32_is_asked_for(trt: Any, tf32: bool) -> None:
    log = tensorrt_runtime.Log(trt)
    config = trt.Builder(log.logger).create_builder_config()
    assert config.get_flag(trt.BuilderFlag.TF32)  # TensorRT's default
    tensorrt_config.configure(trt, config, BuildOptions(tf32=tf32))
    assert config.get_flag(trt.BuilderFlag.TF32) is tf32
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # or its graphs could not be captured


def test_the_options_of_a_build_reach_the_builder(trt: Any) -> None:
    builder = trt.Builder(tensorrt_runtime.Log(trt).logger)
    plain, changed = builder.create_builder_config(), builder.create_builder_config()
    tensorrt_config.configure(trt, plain, BuildOptions())
    tensorrt_config.configure(
        trt, changed, BuildOptions(fast_build=True, compatible="same-capability", version_compatible=True)
    )
    levels = trt.HardwareCompatibilityLevel
    assert plain.profiling_verbosity == trt.ProfilingVerbosity.DETAILED  # for `inspect --layers`
    assert plain.builder_optimization_level == 3
    assert changed.builder_optimization_level == 0
    assert [config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE) for config in (plain, changed)] == [False, True]
    # TensorRT-RTX ignores what is set, so this is all that can be said of --compatible.
    assert {"SAME_COMPUTE_CAPABILITY", "AMPERE_PLUS"} == set(tensorrt_config.COMPATIBILITY_LEVELS.values())
    assert set(tensorrt_config.COMPATIBILITY_LEVELS.values()) <= set(levels.__members__)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 13958643712 bytes.)", True),
        ("Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[a...b]}.)", True),
        ("Lazy loading can significantly reduce device memory usage", False),
        ("Error Code 4: Internal Error (Network must have at least one output)", False),
    ],
)
def test_a_lack_of_memory_is_called_by_its_name(trt: Any, message: str, hint: bool) -> None:
    log = tensorrt_runtime.Log(trt)
    log.logger.log(trt.ILogger.ERROR, message)
    assert str(log.failure("it failed")) == f"it failed: {message}" + tensorrt_runtime.LOWER_MAX_BATCH * hint


def test_a_skipped_tactic_is_not_taken_for_the_cause(trt: Any) -> None:
    log = tensorrt_runtime.Log(trt)
    log.logger.log(trt.ILogger.WARNING, "Skipping tactic 0x01 due to insufficient memory on requested size of 9")
    log.logger.log(trt.ILogger.ERROR, "the cause")
    assert str(log.failure("it failed")) == "it failed: the cause"
    log.logger.log(trt.ILogger.WARNING, "Requested amount of GPU memory (9 bytes): out of memory")
    assert str(log.failure("it failed")).endswith(tensorrt_runtime.LOWER_MAX_BATCH)


def test_a_missing_driver_is_not_taken_for_the_cause_of_another_error(trt: Any) -> None:
    log = tensorrt_runtime.Log(trt)
    driver = "Cuda Runtime (cudaError 35: CUDA driver version is insufficient for CUDA runtime version)"
    log.logger.log(trt.ILogger.ERROR, driver)
    assert str(log.failure("a")) == f"a: {driver}"
    log.logger.log(trt.ILogger.ERROR, "the cause")
    log.logger.log(trt.ILogger.ERROR, driver)
    log.logger.log(trt.ILogger.WARNING, "a warning")
    assert str(log.failure("a")) == "a: the cause"


def test_nested_phases_become_one_fraction(trt: Any) -> None:
    fractions: list[float] = []
    progress = BuildProgress(trt, lambda phase, fraction: fractions.append(fraction))
    monitor = progress.monitor
    monitor.phase_start("whole", None, 4)
    assert monitor.step_complete("whole", 0)
    monitor.phase_start("part", "whole", 2)
    monitor.step_complete("part", 0)
    monitor.step_complete("part", 1)
    monitor.phase_finish("part")
    monitor.step_complete("whole", 1)
    monitor.step_complete("unknown", 5)
    monitor.phase_start("whole", "whole", 2)  # its own parent
    monitor.step_complete("whole", 0)
    assert fractions == [0.25, 0.375, 0.5, 0.5, 0.5, 0.5]


class TestWithoutWhatIsNeeded:
    def test_running_without_a_gpu_is_refused_in_one_sentence(self, trt: Any, tmp_path: Path) -> None:
        reason = RTX.why_not_run()
        if reason is None:
            pytest.skip("there is a GPU")
        assert "\n" not in reason
        assert RTX.why_not_build() is None
        assert RTX.why_not_open({"gpu": None}) == reason
        (tmp_path / "engine.plan").write_bytes(b"never read")
        with pytest.raises(BackendError) as caught:
            RTX.open(tmp_path, Specification(), {"gpu": None})
        assert str(caught.value) == reason

    def test_a_missing_package_names_its_install_command(self, graph: onnx.ModelProto, tmp_path: Path) -> None:
        if importlib.util.find_spec("tensorrt"):
            pytest.skip("TensorRT is installed")
        backend = TensorRTBackend("tensorrt")
        sentence = f"TensorRT is not installed: run {install_command('tensorrt', driver_cuda())}"
        assert backend.why_not_build() == backend.why_not_run() == sentence
        with pytest.raises(BackendError, match="is not installed"):
            backend.build(graph, tmp_path, BuildOptions(2))

    def test_a_broken_package_names_the_reason(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        if importlib.util.find_spec("tensorrt"):
            pytest.skip("TensorRT is installed")
        (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
        monkeypatch.syspath_prepend(tmp_path)
        assert TensorRTBackend("tensorrt").why_not_build() == (
            "TensorRT is installed but cannot be imported (libnvinfer.so.10: cannot open shared object file): "
            f"run {install_command('tensorrt', driver_cuda())}"
        )


class TestWhichGpu:
    @pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "12.0", "12.1", "13.0"])
    def test_an_rtx_plan_runs_on_the_gpus_that_tensorrt_rtx_names(self, capability: str) -> None:
        """What 1.7 says on an H100: "Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0"."""
        assert tensorrt.why_not_rtx("any", capability) is None

    @pytest.mark.parametrize("capability", ["7.5", "8.7", "9.0", "10.0", "11.0"])
    def test_on_any_other_gpu_tensorrt_is_named(self, capability: str) -> None:
        reason = tensorrt.why_not_rtx("NVIDIA H100 80GB HBM3", capability) or ""
        assert f"this GPU is NVIDIA H100 80GB HBM3 ({capability}): use --backend tensorrt" in reason


class TestTimingCache:
    def test_one_file_for_each_version_and_gpu_in_the_cache_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
        path = caches.timing_cache_path("10.3.0", "Orin (nvgpu) 8.7")
        assert path == Path("/caches/cxr-trt/timing-10.3.0-Orin-nvgpu-8.7.cache")
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        assert caches.timing_cache_path("10.3.0", "a").parent == Path.home() / ".cache" / "cxr-trt"

    def test_what_was_compiled_belongs_to_a_version_a_gpu_and_a_plan(self) -> None:
        paths = {
            caches.runtime_cache_path(version, gpu, plan).name
            for version in ("1.7.1", "1.8")
            for gpu in ("RTX 4090 (8.9)", "RTX 4090 (8.9, 128 multiprocessors)")
            for plan in (b"a", b"b")
        }
        assert len(paths) == 8
        assert caches.runtime_cache_path("1.7.1", "L4", b"a").parent == caches.timing_cache_path("1", "L4").parent

    @pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
    def test_timings_are_kept_and_a_spoilt_file_is_ignored(self, trt: Any, tmp_path: Path) -> None:
        """TensorRT-RTX's timing cache holds nothing, but its functions are TensorRT's."""
        log = tensorrt_runtime.Log(trt)
        builder = trt.Builder(log.logger)
        path = tmp_path / "new folder" / "timing.cache"
        config = builder.create_builder_config()
        caches.load_timing_cache(config, path)
        assert config.get_timing_cache() is not None
        caches.save_timing_cache(config, path)
        assert path.stat().st_size > 0
        assert list(path.parent.iterdir()) == [path]
        for content in (path.read_bytes(), b"spoilt"):
            path.write_bytes(content)
            config = builder.create_builder_config()
            caches.load_timing_cache(config, path)
            assert config.get_timing_cache() is not None


def test_the_profiler_reports_seconds(trt: Any) -> None:
    reported: list[tuple[str, float]] = []
    profiler = tensorrt_runtime._profiler(trt, lambda name, seconds: reported.append((name, seconds)))
    assert isinstance(profiler, trt.IProfiler)
    profiler.report_layer_time("conv0", 1.5)
    assert reported == [("conv0", 0.0015)]
    assert tensorrt_runtime._kinds('{"Layers": [{"Name": "conv0", "LayerType": "CaskConvolution"}, "old"]}') == {
        "conv0": "CaskConvolution"
    }


def test_all_that_is_used_of_tensorrt_exists(trt: Any) -> None:
    """Without a GPU this is what can be said of the runner's calls."""
    owners = {
        "trt": trt,
        "severities": trt.ILogger.Severity,
        "trt.MemoryPoolType": trt.MemoryPoolType,
        "trt.BuilderFlag": trt.BuilderFlag,
        "self._trt.DynamicShapesKernelSpecializationStrategy": trt.DynamicShapesKernelSpecializationStrategy,
        "self._trt.ExecutionContextAllocationStrategy": trt.ExecutionContextAllocationStrategy,
        "cache": trt.IRuntimeCache,
        "trt.ProfilingVerbosity": trt.ProfilingVerbosity,
        "inspector": trt.EngineInspector,
        "self._trt.LayerInformationFormat": trt.LayerInformationFormat,
        "builder": trt.Builder,
        "registry": trt.IPluginRegistry,
        "network": trt.INetworkDefinition,
        "parser": trt.OnnxParser,
        "e": trt.ParserError,
        "config": trt.IBuilderConfig,
        "runtime_config": trt.IRuntimeConfig,
        "profile": trt.IOptimizationProfile,
        "self._runtime": trt.Runtime,
        "self._engine": trt.ICudaEngine,
        "self._context": trt.IExecutionContext,
        "context": trt.IExecutionContext,
    }
    sources = [inspect.getsource(module) for module in MODULES]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    used = {(owner, node.attr) for node in nodes if (owner := ast.unparse(node.value)) in owners}
    assert {owner for owner, _ in used} == set(owners)
    assert [name for name in used if not hasattr(owners[name[0]], name[1])] == []


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def backend(request: pytest.FixtureRequest) -> TensorRTBackend:
    chosen = TensorRTBackend(request.param)
    if reason := chosen.why_not_build() or chosen.why_not_run():
        pytest.skip(reason)
    return chosen


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [
        BuildOptions(4, plugin=False),
        BuildOptions(4, plugin=True),
        BuildOptions(4, plugin=False, single_xrays=True),
        BuildOptions(4, plugin=False, version_compatible=True),
    ],
    ids=["plain", "plugin", "single X-rays", "version compatible"],
)
def test_probabilities_and_class_maps_are_onnx_runtimes(
    backend: TensorRTBackend, options: BuildOptions, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    library = find_plugin() if options.plugin and backend.name == "tensorrt" else None
    if options.plugin and library is None:
        pytest.skip("the plugin is not built (make plugin), or not for this backend")
    if options.version_compatible and backend.name != "tensorrt":
        pytest.skip("TensorRT-RTX has no version compatible engines")
    settings = backend.build(graph, tmp_path, options)
    assert settings["plugin"] == (library and library.settings())
    assert (tmp_path / "libcxr_trt_plugin.so").is_file() is (library is not None)
    assert backend.why_not_open(settings) is None
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    runner = backend.open(tmp_path, Specification(), settings)
    assert (runner.max_batch, runner.has_class_maps) == (4, True)
    pictures = np.random.default_rng(1).integers(0, 256, (4, 1, 64, 64), np.uint8)
    for images in (pictures[:1], pictures, pictures[1:3], pictures[::-1], pictures[2:3], pictures[::-1][:3]) * 6:
        probabilities, class_maps = session.run(["probabilities", "class_maps"], {"images": images})
        outputs = runner.submit(list(images[:, 0]), True)()
        np.testing.assert_allclose(outputs.probabilities, probabilities, rtol=0, atol=1e-5)
        assert outputs.class_maps is not None
        np.testing.assert_allclose(outputs.class_maps, class_maps, rtol=1e-5, atol=1e-4)
        alone = runner.submit(list(images[:, 0]), False)()
        assert alone.class_maps is None
        np.testing.assert_array_equal(alone.probabilities, outputs.probabilities)
    runner.close()


@pytest.mark.gpu
def test_a_batch_that_does_not_fit_is_refused(backend: TensorRTBackend, graph: onnx.ModelProto, tmp_path: Path) -> None:
    settings = backend.build(graph, tmp_path, BuildOptions(2))
    runner = backend.open(tmp_path, Specification(), settings)
    for images in (np.zeros((3, 1, 64, 64), np.uint8), np.zeros((1, 1, 32, 64), np.uint8)):
        with pytest.raises(BackendError, match=r"the engine takes uint8 \[1 to 2, 1, 64, 64\], not"):
            runner.submit(list(images[:, 0]), False)
    runner.close()


@pytest.mark.gpu
def test_a_file_that_is_no_plan_is_an_error(backend: TensorRTBackend, tmp_path: Path) -> None:
    (tmp_path / "engine.plan").write_bytes(b"no plan at all")
    with pytest.raises(BackendError, match="TensorRT could not load the plan"):
        backend.open(tmp_path, Specification(), {})
