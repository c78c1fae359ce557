"""TensorRT and TensorRT-RTX: two packages with the same Python interface, so one builder serves both.

They differ in what an engine is. TensorRT times kernels on the GPU at hand, and its plan runs only on that GPU model.
TensorRT-RTX builds a plan without a GPU, and compiles it for the GPU at hand when it is opened, which must be one for
graphics: on an H100 it refuses its own plans and names the compute capabilities of RTX_CAPABILITIES.
"""

import contextlib
import importlib
import importlib.util
import logging
import shutil
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from packaging.version import Version

from cxr_trt.engine.backend import BuildOptions, LayerTime
from cxr_trt.engine.gpu import cuda
from cxr_trt.engine.gpu.build_progress import BuildProgress
from cxr_trt.engine.gpu.caches import load_timing_cache, save_timing_cache, timing_cache_path
from cxr_trt.engine.gpu.cuda_versions import driver_cuda, install_command, installed_packages, is_jetson, why_too_new
from cxr_trt.engine.gpu.identity import AMPERE, GpuIdentity, capability, why_not_compatible
from cxr_trt.engine.gpu.pipeline import GpuRunner, MultiGpuRunner
from cxr_trt.engine.gpu.tensorrt_config import (
    batch_profile,
    configure,
    network_flags,
    parsed_graph,
    profile_batches,
)
from cxr_trt.engine.gpu.tensorrt_plugin import NOT_BUILT, PLUGIN_FILE, Plugin, find_plugin, load_plugin, why_not_plugin
from cxr_trt.engine.gpu.tensorrt_runtime import Log, TensorRTPlan
from cxr_trt.engine.gpu.trtexec import trtexec_command
from cxr_trt.engine.manifest import LATER_VERSIONS_SETTING
from cxr_trt.errors import BackendError
from cxr_trt.export.pooling import takes_extrema
from cxr_trt.spec import Specification

LOGGER = logging.getLogger(__name__)

ENGINE_FILE = "engine.plan"
RTX_CAPABILITIES = ("8.0", "8.6", "8.9")  # GPUs with these, and with RTX_FROM or newer, run plans of TensorRT-RTX
RTX_FROM = (12, 0)
MIN_VERSIONS = {"tensorrt": "10.3", "tensorrt_rtx": "1.7"}
OLD_JETPACK = ", which JetPack 6.1 brings"
ANY_GPU = {"gpu": None, "compute_capability": None}
SHOWN_ERRORS = 3  # how many of the parser's errors a message quotes


class TensorRTBackend:
    """TensorRT or TensorRT-RTX; the package is imported only when it is needed."""

    # not yet measured to be faster on any GPU:
    share_crops = chunk_concats = rewrite_networks = crops_in_turn = int8_features = False
    default_max_batch = 8
    precisions: tuple[str, ...] = ("fp32", "tf32", "fp16", "int8")
    layouts: tuple[str, ...] = ()
    on_cpu = sets_float16 = False

    def __init__(self, package: Literal["tensorrt", "tensorrt_rtx"]) -> None:
        self.name = package.replace("_", "-")
        self._package = package
        self._title = "TensorRT" if package == "tensorrt" else "TensorRT-RTX"
        self._needs_gpu_to_build = package == "tensorrt"

    def why_not_build(self) -> str | None:
        if reason := self._why_no_package():
            return reason
        return (self._why_too_new() or cuda.why_no_gpu()) if self._needs_gpu_to_build else None

    def why_not_run(self) -> str | None:
        if reason := self._why_no_package() or self._why_too_new() or cuda.why_no_gpu():
            return reason
        gpu = cuda.gpu()
        return None if self._needs_gpu_to_build else why_not_rtx(gpu.name, gpu.compute_capability)

    def version(self) -> str:
        return str(self._module().__version__)

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        """Write engine.plan.

        Returns:
            max_batch; the fields of GpuIdentity, gpu being None for TensorRT-RTX; activation_bytes, the device memory
            of one execution context, None if TensorRT did not report it; plugin, the name, version and hash of the
            plugin, which is a file of the bundle too, or None.

        Raises:
            BackendError: the package or a GPU is missing, the parser refuses a node, or the build fails.
            UsageError: CXR_TRT_PLUGIN names a library that cannot be read.
        """
        if reason := self.why_not_build():
            raise BackendError(reason)
        plugin = self._plugin(graph, options)
        gpu = cuda.gpu() if cuda.why_no_gpu() is None else None
        if gpu and capability(gpu.compute_capability) < AMPERE:
            here = f"8.0 or newer, but this GPU is {gpu.name} ({gpu.compute_capability})"
            if options.tf32:
                raise BackendError(f"tf32 needs compute capability {here}: use --precision fp32 or fp16")
            if options.compatible == "ampere":
                raise BackendError(f"--compatible ampere needs compute capability {here}: build on one of those GPUs")
        with gpu.current() if gpu else contextlib.nullcontext():
            log, plan = self._build(graph, gpu, plugin, options)
        (folder / ENGINE_FILE).write_bytes(plan)
        if plugin:
            shutil.copyfile(plugin.path, folder / PLUGIN_FILE)
        return {
            "max_batch": options.max_batch,
            **(identity_of(gpu).settings if gpu and self._needs_gpu_to_build else ANY_GPU),
            **({"compatible": options.compatible} if options.compatible else {}),
            **({LATER_VERSIONS_SETTING: True} if options.version_compatible else {}),
            "activation_bytes": log.activation_bytes,
            "plugin": plugin.settings() if plugin else None,
        }

    def why_not_open(self, settings: Mapping[str, Any]) -> str | None:
        if reason := self.why_not_run():
            return reason
        built_for = GpuIdentity.from_settings(settings)
        if built_for is None:
            return None
        here = identity_of(cuda.gpu())
        if compatible := settings.get("compatible"):
            return why_not_compatible(compatible, built_for, here)
        return built_for.why_not(here)

    def write_for_trtexec(self, graph: onnx.ModelProto, file: Path, options: BuildOptions) -> str:
        """Write the graph that `build` gives to TensorRT, and return the command by which trtexec builds the engine.

        Raises as `build` does if a plugin is asked for and cannot be had.
        """
        plugin = self._plugin(graph, options)
        onnx.save(parsed_graph(graph, plugin=plugin is not None), file)
        return trtexec_command(file, graph, options, plugin)

    def layers(self, folder: Path, settings: Mapping[str, Any]) -> str:
        """What a plan does layer by layer, with types and tactics, as TensorRT's engine inspector tells it in JSON."""
        if reason := self.why_not_run():
            raise BackendError(reason)
        with closing(self._load(cuda.gpu(), folder, settings)) as plan:
            return plan.layers()

    def layer_times(
        self, folder: Path, settings: Mapping[str, Any], image: npt.NDArray[np.uint8], runs: int
    ) -> list[LayerTime]:
        """TensorRT times the layers itself, outside of CUDA graphs."""
        if reason := self.why_not_run():
            raise BackendError(reason)
        gpu = cuda.gpu()
        with closing(self._load(gpu, folder, settings)) as plan:
            return plan.layer_times(gpu, image, runs)

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> GpuRunner | MultiGpuRunner:
        """Open the engine on all GPUs of the same model as the first one."""
        if reason := self.why_not_run():
            raise BackendError(reason)
        first = identity_of(cuda.gpu())
        with contextlib.ExitStack() as opened:
            runners = []
            for gpu in cuda.gpus():
                if first.why_not(identity_of(gpu)) is None:
                    runners.append(GpuRunner(gpu, self._load(gpu, folder, settings)))
                    opened.callback(runners[-1].close)
            opened.pop_all()
        return runners[0] if len(runners) == 1 else MultiGpuRunner(runners)

    def _load(self, gpu: cuda.Gpu, folder: Path, settings: Mapping[str, Any]) -> TensorRTPlan:
        carried = settings.get("plugin") and (folder / PLUGIN_FILE).is_file()  # older plans hold it themselves
        plugin = Plugin(folder / PLUGIN_FILE, settings["plugin"]["sha256"]) if carried else None
        holds_runtime = bool(settings.get(LATER_VERSIONS_SETTING))
        plan = (folder / ENGINE_FILE).read_bytes()
        return TensorRTPlan(self._module(), gpu, plan, plugin, holds_runtime=holds_runtime)

    def _why_no_package(self) -> str | None:
        install = install_command(self.name, driver_cuda())
        if importlib.util.find_spec(self._package) is None:
            return f"{self._title} is not installed: run {install}"
        try:
            version = self.version()
        except (ImportError, OSError) as error:  # one of its libraries is missing
            return f"{self._title} is installed but cannot be imported ({error}): run {install}"
        oldest = MIN_VERSIONS[self._package]
        if Version(version) < Version(oldest):
            return f"{self._title} {version} is too old: {oldest} or newer is needed{OLD_JETPACK * is_jetson()}"
        return None

    def _why_too_new(self) -> str | None:
        return why_too_new(self.name, installed_packages(), driver_cuda())

    def _module(self) -> Any:
        return importlib.import_module(self._package)

    def _plugin(self, graph: onnx.ModelProto, options: BuildOptions) -> Plugin | None:
        """The plugin to use. None for TensorRT-RTX, which parses the plugin's node and then aborts the process.

        Unless it is asked for, none is needed where the pooling takes one maximum and one minimum, and none is used for
        later versions, whose plugins may differ. Raises BackendError if it is asked for and cannot be had.
        """
        is_needed = options.plugin if options.plugin is not None else not takes_extrema(graph)
        if options.version_compatible and options.plugin:
            raise BackendError("a plugin is for one version of TensorRT: leave out --plugin, or --version-compatible")
        if self._package == "tensorrt_rtx" or not is_needed or options.version_compatible:
            return None
        plugin = find_plugin()
        reason = why_not_plugin(plugin, driver_cuda()) if plugin else NOT_BUILT
        if reason and options.plugin:
            raise BackendError(reason)
        if reason:
            LOGGER.warning("%s", reason)
            return None
        return plugin

    def _build(
        self, graph: onnx.ModelProto, gpu: cuda.Gpu | None, plugin: Plugin | None, options: BuildOptions
    ) -> tuple[Log, Any]:
        """Build the plan, and return the log and the plan as a buffer of bytes."""
        trt = self._module()
        log = Log(trt)
        builder = log.make(f"{self._title}'s builder", trt.Builder)
        network = builder.create_network(network_flags(trt))
        options.on_progress("parse", 0.0)
        parser = trt.OnnxParser(network, log.logger)
        if plugin:
            load_plugin(plugin, builder.get_plugin_registry())
        if not parser.parse(parsed_graph(graph, plugin=plugin is not None).SerializeToString()):
            raise self._refused(parser, log)
        options.on_progress("parse", 1.0)

        config = builder.create_builder_config()
        configure(trt, config, options)
        for batch in profile_batches(options):
            if config.add_optimization_profile(batch_profile(builder, network, batch)) < 0:
                raise log.failure(f"{self._title} does not take batches of 1 to {batch}")
        if gpu:
            workspace = trt.MemoryPoolType.WORKSPACE
            limit = min(config.get_memory_pool_limit(workspace), gpu.memory().free, options.memory_limit or sys.maxsize)
            config.set_memory_pool_limit(workspace, limit)
        cache = None
        if gpu and self._needs_gpu_to_build:  # TensorRT-RTX deprecated the timing cache, and ignores it
            cache = timing_cache_path(self.version(), GpuIdentity.of(gpu).text)
            load_timing_cache(config, cache)

        progress = BuildProgress(trt, options.on_progress)
        config.progress_monitor = progress.monitor
        plan = builder.build_serialized_network(network, config)
        if progress.error:
            raise progress.error
        if plan is None:
            raise log.failure(f"{self._title} could not build the engine")
        if cache:
            save_timing_cache(config, cache)
        options.on_progress("build", 1.0)
        return log, plan

    def _refused(self, parser: Any, log: Log) -> BackendError:
        """An error that names the nodes that the parser refused, in one sentence."""
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        if not errors:
            return log.failure(f"{self._title} cannot read the graph")
        nodes = [
            f"{e.node_name() or e.node()} ({e.node_operator()}): {first_reason(e.desc())}"
            for e in errors[:SHOWN_ERRORS]
        ]
        more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
        return BackendError(f"{self._title} refuses the graph at node {'; node '.join(nodes)}{more}")


def why_not_rtx(name: str, compute_capability: str) -> str | None:
    """None if that GPU runs plans of TensorRT-RTX; otherwise one sentence that says which GPUs do."""
    if compute_capability in RTX_CAPABILITIES or capability(compute_capability) >= RTX_FROM:
        return None
    return (
        f"TensorRT-RTX needs compute capability {', '.join(RTX_CAPABILITIES)}, or {'.'.join(map(str, RTX_FROM))} and "
        f"newer, but this GPU is {name} ({compute_capability}): use --backend tensorrt"
    )


def identity_of(gpu: cuda.Gpu) -> GpuIdentity:
    """The identity of a GPU that is not current."""
    with gpu.current():
        return GpuIdentity.of(gpu)


def first_reason(description: str) -> str:
    """The first line of a parser error's description that says more than that a node is invalid."""
    lines = [line for line in description.splitlines() if line.strip()] or ["no description"]
    return lines[1] if len(lines) > 1 and lines[0].startswith("Invalid Node") else lines[0]
