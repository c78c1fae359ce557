"""Runs a TensorRT plan, whichever of TensorRT and TensorRT-RTX built it, and keeps what either of them logs."""

import logging
import re
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import Outputs
from cxr_trt.engine.cuda import Buffer, Gpu
from cxr_trt.errors import BackendError

LOGGER = logging.getLogger(__name__)

INPUT, PROBABILITIES, CLASS_MAPS = "images", "probabilities", "class_maps"

# TensorRT also says "could not find any implementation for node" when no kernel fits into the memory.
OUT_OF_MEMORY = re.compile(r"out.?of.?memory|(enough|sufficient)\b.*memory|implementation for node", re.IGNORECASE)
NO_DRIVER = "cudaError 35"  # where there is no driver, TensorRT-RTX says this after every other error
LOWER_MAX_BATCH = "; the GPU is probably short of memory: close what else uses it, or build with a lower --max-batch"


class Log:
    """What TensorRT said, since its functions return only None or False when they fail.

    Attributes:
        logger: the ILogger to hand to TensorRT; must outlive all that got it.
        errors, warnings: the latest, oldest first.
        activation_bytes: device memory for the activations of one execution context, once a build has said it.
    """

    def __init__(self, trt: Any) -> None:
        self.errors: deque[str] = deque(maxlen=100)
        self.warnings: deque[str] = deque(maxlen=100)
        self.activation_bytes: int | None = None
        severities, note = trt.ILogger.Severity, self._note
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
                    note(message, problems.get(severity))

        self.logger = Logger()

    def _note(self, message: str, problems: "deque[str] | None") -> None:
        message = " ".join(message.split())
        LOGGER.debug("%s", message)
        if problems is not None:
            problems.append(message)
        if found := re.match(r"Total Activation Memory: (\d+)", message):
            self.activation_bytes = int(found[1])

    def make(self, what: str, factory: Callable[[Any], Any]) -> Any:
        """A Builder or a Runtime, which take the logger. Raises BackendError where TensorRT gives none."""
        try:
            return factory(self.logger)
        except TypeError as error:  # the binding's word for a null pointer
            raise self.failure(f"{what} does not start") from error

    def failure(self, what: str) -> BackendError:
        """An error that says what failed, with TensorRT's own last word on it and what to do if it is about memory."""
        reasons = [error for error in self.errors if NO_DRIVER not in error] or self.errors or ["it gave no reason"]
        short = any(OUT_OF_MEMORY.search(problem) for problem in (*self.errors, *self.warnings))
        return BackendError(f"{what}: {reasons[-1]}{LOWER_MAX_BATCH if short else ''}")


class TensorRTRunner:
    """One execution context on one GPU, with host and device buffers for `max_batch` images."""

    def __init__(self, trt: Any, gpu: Gpu, plan: bytes) -> None:
        """Load a plan. Raises BackendError: not this version's plan, or too little memory."""
        self._gpu = gpu
        self._log = Log(trt)
        with gpu.current(), ExitStack() as held:
            self._runtime = self._log.make("TensorRT's runtime", trt.Runtime)
            self._runtime.engine_host_code_allowed = False  # the default too; a plan may not bring code for the host
            self._engine = self._made("load the plan", self._runtime.deserialize_cuda_engine(plan))
            self._context = self._made("make an execution context", self._engine.create_execution_context())
            self._stream = gpu.stream()
            held.callback(self._stream.close)
            self._image_shape = self._profile_maximum()[1:]
            self.max_batch = self._profile_maximum()[0]
            self._set_batch(self.max_batch)
            self._buffers: dict[str, Buffer] = {}
            for name in (self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)):
                shape = tuple(self._context.get_tensor_shape(name))
                buffer = gpu.buffer(shape, trt.nptype(self._engine.get_tensor_dtype(name)))
                held.callback(buffer.close)
                self._buffers[name] = buffer
                self._done("take a buffer", self._context.set_tensor_address(name, buffer.pointer))
            self.has_class_maps = CLASS_MAPS in self._buffers
            self._held = held.pop_all()

    def run(self, images: npt.NDArray[np.uint8], class_maps: bool) -> Outputs:
        count = len(images)
        if images.dtype != np.uint8 or images.shape[1:] != self._image_shape or not 1 <= count <= self.max_batch:
            takes = f"uint8 [1 to {self.max_batch}, {', '.join(map(str, self._image_shape))}]"
            raise BackendError(f"the engine takes {takes}, not {images.dtype} {list(images.shape)}")
        wanted = [PROBABILITIES] + [CLASS_MAPS] * (class_maps and self.has_class_maps)
        with self._gpu.current():
            self._buffers[INPUT].host[:count] = images
            self._stream.upload(self._buffers[INPUT], count)
            self._set_batch(count)
            self._done("run the engine", self._context.execute_async_v3(self._stream.handle))
            for name in wanted:
                self._stream.download(self._buffers[name], count)
            self._stream.synchronize()
        results = [self._buffers[name].host[:count].copy() for name in wanted]
        return Outputs(results[0], results[1] if len(results) > 1 else None)

    def close(self) -> None:
        with self._gpu.current():
            self._context = self._engine = self._runtime = None
            self._held.close()

    def _profile_maximum(self) -> tuple[int, ...]:
        return tuple(self._engine.get_tensor_profile_shape(INPUT, 0)[2])

    def _set_batch(self, count: int) -> None:
        self._done("take the batch", self._context.set_input_shape(INPUT, (count, *self._image_shape)))

    def _made(self, what: str, value: Any) -> Any:
        if value is None:
            raise self._log.failure(f"TensorRT could not {what}")
        return value

    def _done(self, what: str, success: bool) -> None:
        if not success:
            raise self._log.failure(f"TensorRT could not {what}")
