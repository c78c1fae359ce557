"""Running a plan of TensorRT or TensorRT-RTX, and keeping what they log."""

import logging
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cxr_trt.engine.gpu.cuda import Gpu, Stream
from cxr_trt.engine.gpu.pipeline import INPUT, Tensor
from cxr_trt.errors import BackendError

LOGGER = logging.getLogger(__name__)

# TensorRT also reports "could not find any implementation for node" when no kernel fits into the memory.
OUT_OF_MEMORY = re.compile(r"out.?of.?memory|(enough|sufficient)\b.*memory|implementation for node", re.IGNORECASE)
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
                if severity != severities.VERBOSE:
                    keep(message, problems.get(severity))

        self.logger = Logger()

    def _keep(self, message: str, problems: "deque[str] | None") -> None:
        message = " ".join(message.split())
        LOGGER.debug("%s", message)
        if problems is not None:
            problems.append(message)
        if found := re.match(r"Total Activation Memory: (\d+)", message):
            self.activation_bytes = int(found[1])

    def make(self, what: str, factory: Callable[[Any], Any]) -> Any:
        """Make a Builder or a Runtime, which take the logger. Raises BackendError if TensorRT fails to make it."""
        try:
            return factory(self.logger)
        except TypeError as error:  # raised by the binding for a null pointer
            raise self.failure(f"{what} does not start") from error

    def failure(self, what: str) -> BackendError:
        """An error that says what failed, with TensorRT's last error message and what to do if memory ran out."""
        reasons = [error for error in self.errors if NO_DRIVER not in error] or self.errors or ["it gave no reason"]
        is_out_of_memory = any(OUT_OF_MEMORY.search(problem) for problem in (*self.errors, *self.warnings))
        return BackendError(f"{what}: {reasons[-1]}{LOWER_MAX_BATCH if is_out_of_memory else ''}")


class TensorRTPlan:
    """A loaded plan with one execution context. See `cxr_trt.engine.gpu.pipeline.LoadedPlan`.

    One context is enough for all batches, because they are computed one after another on one stream.
    """

    def __init__(self, trt: Any, gpu: Gpu, plan: bytes) -> None:
        """Load a plan. Raises BackendError: the plan is from another version, or memory is short."""
        self._log = Log(trt)
        with gpu.current():
            self._runtime = self._log.make("TensorRT's runtime", trt.Runtime)
            self._runtime.engine_host_code_allowed = False  # also the default; a plan must not contain host code
            self._engine = self._not_none("load the plan", self._runtime.deserialize_cuda_engine(plan))
            strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            self._context = self._not_none("make an execution context", self._engine.create_execution_context(strategy))
        self.max_batch, *self._image_shape = self._engine.get_tensor_profile_shape(INPUT, 0)[2]
        names = (self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors))
        self.tensors: Mapping[str, Tensor] = {name: self._tensor(trt, name) for name in names}

    def workspace_size(self, batch: int) -> int:
        if batch == self.max_batch:
            return int(self._engine.device_memory_size_v2)
        self._set_batch(batch)
        return int(self._context.update_device_memory_size_for_shapes())

    def use_workspace(self, pointer: int, size: int) -> None:
        self._context.set_device_memory(pointer, size)

    def enqueue(self, batch: int, addresses: Mapping[str, int], stream: Stream) -> None:
        self._set_batch(batch)
        for name, pointer in addresses.items():
            self._check("use a buffer", self._context.set_tensor_address(name, pointer))
        self._check("run the engine", self._context.execute_async_v3(stream.handle))

    def close(self) -> None:
        self._context = self._engine = self._runtime = None

    def _tensor(self, trt: Any, name: str) -> Tensor:
        shape = tuple(self._engine.get_tensor_shape(name))[1:]
        return Tensor(shape, np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))))

    def _set_batch(self, batch: int) -> None:
        self._check("take the batch", self._context.set_input_shape(INPUT, (batch, *self._image_shape)))

    def _not_none(self, what: str, value: Any) -> Any:
        if value is None:
            raise self._log.failure(f"TensorRT could not {what}")
        return value

    def _check(self, what: str, success: bool) -> None:
        if not success:
            raise self._log.failure(f"TensorRT could not {what}")
