"""OpenVINO on the CPU: converts the graph to its own format, with the pooling inlined."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner

from cxr_trt.engine.backend import BuildOptions, LayerTime, median_layers
from cxr_trt.engine.cpu.config import CpuBackend, CpuConfig
from cxr_trt.engine.cpu.openvino_cache import compiled_once
from cxr_trt.engine.cpu.streams import StreamRunner, Streams
from cxr_trt.engine.manifest import MANIFEST_FILE
from cxr_trt.errors import BackendError
from cxr_trt.hashing import hash_file
from cxr_trt.processors import cores, processors
from cxr_trt.spec import Specification

if TYPE_CHECKING:
    import openvino

ENGINE_FILE = "openvino.xml"  # with openvino.bin beside it

BFLOAT16_SETTING, FLOAT16_SETTING = "bfloat16", "float16"
HINTS = {BFLOAT16_SETTING: "bf16", FLOAT16_SETTING: "f16"}
LOOP = "TensorIterator"  # OpenVINO's operator for what is computed for one crop after the other
ISA_WITH_FLOAT16 = ("FP16", "AVX10", "ALL", "DEFAULT")
ISA_WITH_BFLOAT16 = ("BF16", "FP16", "AMX", "AVX10", "ALL", "DEFAULT")  # parts of values of ONEDNN_MAX_CPU_ISA


class OpenVinoBackend(CpuBackend):
    """See `Backend`."""

    name = "openvino"
    chunk_concats = rewrite_networks = sets_float16 = True

    @property
    def precisions(self) -> tuple[str, ...]:
        halves = {"bf16": has_bfloat16(), "fp16": has_float16()}
        return ("fp32", *(name for name, is_here in halves.items() if is_here), "int8")

    @property
    def int8_features(self) -> bool:
        """Where the layers around int8 compute in float32: beside bfloat16 it was not measured."""
        return not has_bfloat16()

    def version(self) -> str:
        return version("openvino")

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        """Inline the pooling and convert the graph: OpenVINO does not support model-local functions."""
        import openvino

        options.on_progress("convert", 0.0)
        inlined = folder / "inlined.onnx"
        try:
            onnx.save(onnx.inliner.inline_local_functions(graph), inlined)
            model = openvino.convert_model(inlined)
            _name_by_place(model)
            openvino.save_model(model, folder / ENGINE_FILE, compress_to_fp16=False)
        except Exception as error:  # OpenVINO's exceptions share no base class
            reason = str(error).strip().splitlines()[-1]
            raise BackendError(f"OpenVINO cannot convert the graph: {reason}") from error
        finally:
            inlined.unlink(missing_ok=True)
        options.on_progress("convert", 1.0)
        halves = {BFLOAT16_SETTING: options.bfloat16, FLOAT16_SETTING: options.float16}
        computed = {name: True for name, is_wanted in halves.items() if is_wanted}
        return {"max_batch": options.max_batch, "streams": 1, **computed}

    def why_not_open(self, settings: Mapping[str, Any]) -> str | None:
        if settings.get(BFLOAT16_SETTING) and not has_bfloat16():
            return "the engine computes in bfloat16, which this processor does not have"
        if settings.get(FLOAT16_SETTING) and not has_float16():
            return "the engine computes in float16, which this processor does not have"
        return super().why_not_open(settings)

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> "OpenVinoRunner":
        config = CpuConfig.from_settings(settings)
        return OpenVinoRunner(folder / ENGINE_FILE, spec, config, compile_properties(settings))

    def layer_times(
        self, folder: Path, settings: Mapping[str, Any], image: npt.NDArray[np.uint8], runs: int
    ) -> list[LayerTime]:
        """What is computed for one crop after the other is timed for one, and multiplied."""
        import openvino

        try:
            model = core().read_model(folder / ENGINE_FILE)
            model.reshape(openvino.PartialShape(image.shape))
            properties = {**compile_properties(settings), "PERF_COUNT": True}
            layers = _layer_times(model, properties, image, runs)
            for loop in (node for node in model.get_ops() if node.get_type_name() == LOOP):
                crops, *crop_shape = loop.input(0).get_shape()
                crop = np.zeros((1, *crop_shape), np.float32)
                inner = _layer_times(loop.get_body(), properties, crop, runs)
                layers = [layer for layer in layers if layer.name != loop.get_friendly_name()]
                layers += [layer._replace(seconds=crops * layer.seconds) for layer in inner]
            return layers
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot time the layers of {folder} ({error})") from error


@cache
def core() -> "openvino.Core":
    """The only Core of the process, which is never released.

    The CPU plugin of each Core installs an alternate signal stack and restores the previous one when it ends. If Cores
    do not end in reverse order of their creation, the restored stack is memory that was freed, and the next signal that
    Python handles (such as Ctrl-C) ends the process with SIGSEGV.
    """
    import openvino  # here: an engine that another backend runs opens sooner

    return openvino.Core()


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 (AVX-512 BF16 or AMX, say), and oneDNN may use it."""
    return _is_allowed(ISA_WITH_BFLOAT16) and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def has_float16() -> bool:
    """Whether this processor computes in float16 (AVX-512 FP16 or Arm), and oneDNN may."""
    return _is_allowed(ISA_WITH_FLOAT16) and "FP16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _is_allowed(instruction_sets: Sequence[str]) -> bool:
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    return any(name in limit for name in instruction_sets)


def _name_by_place(model: "openvino.Model") -> None:
    """Give the nodes that OpenVINO named by counting what the process made before names by their place.

    So the same graph gives the same files, and with them the same fingerprint, whatever was built before.
    """
    for number, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_{number}")
        if kind == LOOP:
            _name_by_place(node.get_body())


def compile_properties(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without a precision hint OpenVINO computes in bfloat16 or float16 on processors that have them."""
    hint = next((hint for name, hint in HINTS.items() if settings.get(name)), "f32")
    return {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}


def _layer_times(
    model: "openvino.Model", properties: Mapping[str, Any], values: npt.NDArray[Any], runs: int
) -> list[LayerTime]:
    request = core().compile_model(model, "CPU", dict(properties)).create_infer_request()
    request.infer([values])  # the first is slower
    layers = median_layers([_profiled(request, values) for _ in range(runs)])
    return [layer for layer in layers if layer.seconds]  # others are part of another, or took less than a microsecond


def _profiled(request: "openvino.InferRequest", values: npt.NDArray[Any]) -> list[LayerTime]:
    """The layers of one run; those that OpenVINO has made part of others took no time."""
    request.infer([values])
    return [
        LayerTime(layer.node_name, f"{layer.node_type} ({layer.exec_type})", layer.real_time.total_seconds())
        for layer in request.profiling_info
    ]


class OpenVinoRunner(StreamRunner):
    """A compiled model with one inference request per stream."""

    def __init__(self, ir: Path, spec: Specification, config: CpuConfig, properties: Mapping[str, Any]) -> None:
        super().__init__(config)
        self._ir, self._size = ir, spec.image_size
        self._properties = properties
        try:
            self._model = core().read_model(ir)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load {ir}: {error}") from error
        self.has_class_maps = len(self._model.outputs) > 1
        self.one_by_one = self._model.inputs[0].partial_shape[0].is_static

    def compile(self, streams: int, largest_part: int) -> Streams:
        import openvino

        properties = {**self._properties, "NUM_STREAMS": streams}
        if self.config.hyper_threading:
            properties |= {"INFERENCE_NUM_THREADS": processors(), "ENABLE_HYPER_THREADING": True}
        elif processors() < len(os.sched_getaffinity(0)):  # OpenVINO knows the affinity, but no quota
            properties |= {"INFERENCE_NUM_THREADS": cores()}
        try:
            batch = openvino.Dimension(1, largest_part)
            self._model.reshape(openvino.PartialShape([batch, 1, *self._size]))
            compiled = self._compiled_once(properties, largest_part)
            requests = [compiled.create_infer_request() for _ in range(streams)]
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot compile {self._ir} ({error}); build with a lower --max-batch if memory is short"
            ) from error
        return partial(_run, requests)

    def _compiled_once(self, properties: Mapping[str, Any], largest_part: int) -> "openvino.CompiledModel":
        """Engines without a manifest are still being built and tuned; what is compiled of them is not kept."""

        def compiled() -> "openvino.CompiledModel":
            return core().compile_model(self._model, "CPU", dict(properties))

        manifest = self._ir.with_name(MANIFEST_FILE)
        if not manifest.exists():
            return compiled()
        identity = {"manifest": hash_file(manifest), "largest_part": largest_part, "processors": processors()}
        return compiled_once(core(), properties, identity, compiled)

    def close(self) -> None:
        super().close()
        del self._model


def _run(
    requests: "list[openvino.InferRequest]", parts: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]
) -> list[list[npt.NDArray[np.float32]]]:
    running = requests[: len(parts)]
    try:
        for request, part in zip(running, parts, strict=True):
            request.start_async([part], share_inputs=True)
        for request in running:
            request.wait()
    except RuntimeError as error:
        for request in running:
            with suppress(RuntimeError):
                request.wait()  # it may still be reading its part
        raise BackendError(f"OpenVINO failed ({error}); build with a lower --max-batch if memory is short") from error
    return [[request.get_tensor(name).data.copy() for name in names] for request in running]
