"""Running a plan of TensorRT or TensorRT-RTX, and keeping what they log."""

import json
import logging
import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import LayerTime, median_layers
from cxr_trt.engine.gpu.caches import load_runtime_cache, runtime_cache_path, save_runtime_cache
from cxr_trt.engine.gpu.cuda import Gpu, Stream
from cxr_trt.engine.gpu.identity import GpuIdentity
from cxr_trt.engine.gpu.pipeline import INPUT, Tensor
from cxr_trt.engine.gpu.tensorrt_plugin import Plugin, load_plugin
from cxr_trt.errors import BackendError

LOGGER = logging.getLogger(__name__)

# TensorRT also reports "could not find any implementation for node" when no kernel fits into the memory.
OUT_OF_MEMORY = re.compile(r"out.?of.?memory|(enough|sufficient)\b.*memory|implementation for node", re.IGNORECASE)
SKIPPED_TACTIC = "Skipping tactic"
SINGLE_PROFILE = 1  # the optimization profile for single images, in plans that have one
NO_DRIVER = "cudaError 35"  # without a driver, TensorRT-RTX adds this after every other error
LOWER_MAX_BATCH = (
    "; the GPU is probably short of memory: close other programs that use it, or build with a lower --max-batch"
)


class Log:
    """What TensorRT logged: its functions only return None or False when they fail.

    Attributes:
        logger: the ILogger for TensorRT; it must outlive every object that uses it.
        errors, warnings: the latest ones, oldest first.
        activation_bytes: device memory for the activations of one execution context, once a build has logged it.
    """

    def __init__(self, trt: Any) -> None:
        self.errors: deque[str] = deque(maxlen=100)
        self.warnings: deque[str] = deque(maxlen=100)
        self.activation_bytes: int | None = None
        severities, keep = trt.ILogger.Severity, self._keep
        problems = {
            severities.INTERNAL_ERROR: self.errors,
            severities.ERROR: self.errors,
            severities.WARNING: self.warnings,
        }

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity != severities.VERBOSE or LOGGER.isEnabledFor(logging.DEBUG):
                    keep(message, problems.get(severity))

        self.logger = Logger()

    def _keep(self, message: str, problems: "deque[str] | None") -> None:
        message = " ".join(message.split())
        LOGGER.debug("%s", message)
        if problems is not None:
            problems.append(message)
        if found := re.match(r"Total Activation Memory: (\d+)", message):
            self.activation_bytes = max(int(found[1]), self.activation_bytes or 0)  # it tells each profile's

    def make(self, what: str, factory: Callable[[Any], Any]) -> Any:
        """Make a Builder or a Runtime, which take the logger. Raises BackendError if TensorRT fails to make it."""
        try:
            return factory(self.logger)
        except TypeError as error:  # raised by the binding for a null pointer
            raise self.failure(f"{what} does not start") from error

    def failure(self, what: str) -> BackendError:
        """An error that says what failed, with TensorRT's last error message and what to do if memory ran out."""
        reasons = [error for error in self.errors if NO_DRIVER not in error] or self.errors or ["it gave no reason"]
        # A tactic that was skipped for want of memory is a routine warning on a small GPU.
        problems = (*self.errors, *(warning for warning in self.warnings if SKIPPED_TACTIC not in warning))
        is_out_of_memory = any(OUT_OF_MEMORY.search(problem) for problem in problems)
        return BackendError(f"{what}: {reasons[-1]}{LOWER_MAX_BATCH if is_out_of_memory else ''}")

    def not_none(self, what: str, value: Any) -> Any:
        """The value. Raises BackendError if it is None, as what TensorRT could not make."""
        if value is None:
            raise self.failure(f"TensorRT could not {what}")
        return value

    def check(self, what: str, success: bool) -> None:
        """Raise BackendError unless a call of TensorRT succeeded."""
        if not success:
            raise self.failure(f"TensorRT could not {what}")


def is_rtx(trt: Any) -> bool:
    """Whether a module is TensorRT-RTX, which compiles kernels as it runs."""
    return bool(trt.__name__ == "tensorrt_rtx")


class TensorRTPlan:
    """A loaded plan. See `cxr_trt.engine.gpu.pipeline.LoadedPlan`."""

    def __init__(
        self, trt: Any, gpu: Gpu, plan: bytes, plugin: Plugin | None = None, *, holds_runtime: bool = False
    ) -> None:
        """Load a plan, and the plugin that it needs.

        Args:
            trt: the module `tensorrt` or `tensorrt_rtx`.
            gpu: the GPU to run it on.
            plan: the plan; whoever wrote it can run any code here.
            plugin: what it needs besides.
            holds_runtime: whether the plan brings TensorRT's lean runtime, which is code for the processor.

        Raises:
            BackendError: the plan is from another version, or memory is short.
        """
        self._log, self._trt = Log(trt), trt
        self._compiled: tuple[Any, Path] | None = None
        with gpu.current():
            self._runtime = self._log.make("TensorRT's runtime", trt.Runtime)
            if plugin:
                load_plugin(plugin, self._runtime.get_plugin_registry())
            if holds_runtime:
                self._runtime.engine_host_code_allowed = True
            self._engine = self._log.not_none("load the plan", self._runtime.deserialize_cuda_engine(plan))
            self._context_settings = self._rtx_settings(gpu, plan) if is_rtx(trt) else self._user_managed()
        self.max_batch, *image_shape = self._engine.get_tensor_profile_shape(INPUT, 0)[2]
        self._has_single = self._engine.num_optimization_profiles > SINGLE_PROFILE
        self._image_shape = tuple(image_shape)
        names = (self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors))
        self.tensors: Mapping[str, Tensor] = {name: self._tensor(name) for name in names}

    def workspace_size(self, batch: int) -> int:
        largest = int(self._engine.device_memory_size_v2)
        if batch == self.max_batch:
            return largest
        context = self._new_context()
        self._log.check("take the batch", context.set_input_shape(INPUT, (batch, *self._image_shape)))
        size = int(context.update_device_memory_size_for_shapes())
        self._log.check(f"say how much memory a batch of {batch} needs", size > 0 or largest == 0)
        single = self._engine.get_device_memory_size_for_profile_v2(SINGLE_PROFILE) if self._has_single else 0
        return max(size, int(single))

    def context(self, workspace: int, size: int, batch: int | None = None) -> "TensorRTContext":
        context = self._new_context()
        context.set_device_memory(workspace, size)
        profile = SINGLE_PROFILE if batch == 1 and self._has_single else None
        return TensorRTContext(self._log, context, self._image_shape, profile)

    def layers(self) -> str:
        """The layers as JSON; their names, types and tactics as this version of TensorRT gives them."""
        inspector = self._log.not_none("inspect the engine", self._engine.create_engine_inspector())
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def layer_times(self, gpu: Gpu, image: npt.NDArray[np.uint8], runs: int) -> list[LayerTime]:
        """Seconds of each layer for one image, uint8 [1, 1, height, width], as TensorRT's profiler reports them.

        A context with a profiler waits for its work, and reports when it is done.
        """
        kinds = _kinds(self.layers())
        measured: list[list[LayerTime]] = []

        def report(name: str, seconds: float) -> None:
            measured[-1].append(LayerTime(name, kinds.get(name, ""), seconds))

        sizes = {name: math.prod(tensor.shape) * tensor.dtype.itemsize for name, tensor in self.tensors.items()}
        with gpu.current(), ExitStack() as stack:
            workspace_size = self.workspace_size(1)
            blocks = {name: stack.enter_context(closing(gpu.device_block(size))) for name, size in sizes.items()}
            workspace = stack.enter_context(closing(gpu.device_block(workspace_size)))
            host = stack.enter_context(closing(gpu.host_block(image.nbytes)))
            stream = stack.enter_context(closing(gpu.stream()))
            host.array[...] = image.reshape(-1)
            stream.upload(host.array, blocks[INPUT].pointer)
            stream.synchronize()
            timed = stack.enter_context(closing(self.context(workspace.pointer, workspace_size, 1)))
            timed.profile(_profiler(self._trt, report))
            for _ in range(1 + runs):  # the first is slower
                measured.append([])
                timed.enqueue(1, {name: block.pointer for name, block in blocks.items()}, stream)
                stream.synchronize()
        return median_layers(measured[1:])

    def close(self) -> None:
        """Also keeps what TensorRT-RTX has compiled."""
        if self._compiled is not None:
            save_runtime_cache(*self._compiled)
        self._compiled = self._context_settings = self._engine = self._runtime = None

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context(self._context_settings)
        return self._log.not_none("make an execution context", context)

    def _user_managed(self) -> Any:
        return self._trt.ExecutionContextAllocationStrategy.USER_MANAGED

    def _rtx_settings(self, gpu: Gpu, plan: bytes) -> Any:
        """How TensorRT-RTX runs the plan: specialised kernels at once, because a graph keeps what it captured.

        What it compiles is kept for the next process.
        """
        runtime_config = self._engine.create_runtime_config()
        runtime_config.set_execution_context_allocation_strategy(self._user_managed())
        runtime_config.dynamic_shapes_kernel_specialization_strategy = (
            self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        path = runtime_cache_path(self._trt.__version__, GpuIdentity.of(gpu).text, plan)
        self._compiled = load_runtime_cache(runtime_config, path), path
        return runtime_config

    def _tensor(self, name: str) -> Tensor:
        shape = tuple(self._engine.get_tensor_shape(name))[1:]
        return Tensor(shape, np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))))


def _profiler(trt: Any, report: Callable[[str, float], None]) -> Any:
    """An IProfiler that reports the name of each layer and its seconds."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, name: str, milliseconds: float) -> None:
            report(name, milliseconds / 1000)

    return Profiler()


def _kinds(layers: str) -> dict[str, str]:
    """The kind of each layer by its name, from the report of the engine inspector."""
    found = json.loads(layers)["Layers"]  # plans that were built without details have names alone
    return {layer["Name"]: layer["LayerType"] for layer in found if isinstance(layer, dict)}


class TensorRTContext:
    """An execution context. See `cxr_trt.engine.gpu.pipeline.Context`."""

    def __init__(self, log: Log, context: Any, image_shape: tuple[int, ...], profile: int | None) -> None:
        """`profile` is the optimization profile to use; None means the first, which a context has from the start."""
        self._log, self._context, self._image_shape = log, context, image_shape
        self._wanted_profile = profile

    def enqueue(self, batch: int, addresses: Mapping[str, int], stream: Stream) -> None:
        check = self._log.check
        if self._wanted_profile is not None:  # the first time, which is never captured
            chosen = self._context.set_optimization_profile_async(self._wanted_profile, stream.handle)
            check("take the profile for single X-rays", chosen)
            self._wanted_profile = None
        check("take the batch", self._context.set_input_shape(INPUT, (batch, *self._image_shape)))
        for name, pointer in addresses.items():
            check("use a buffer", self._context.set_tensor_address(name, pointer))
        check("run the engine", self._context.execute_async_v3(stream.handle))

    def profile(self, profiler: Any) -> None:
        """Report the time of each layer to an IProfiler from now on."""
        self._profiler = profiler  # the context does not keep it
        self._context.profiler = profiler

    def close(self) -> None:
        self._context = None
