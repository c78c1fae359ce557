"""OpenVINO on the CPU: runs its own form of the graph, with the pooling inlined."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import openvino

from cxr_trt.engine.backend import BuildOptions, CpuBackend, OneByOne, Outputs, joined
from cxr_trt.errors import BackendError
from cxr_trt.spec import Specification

IR = "openvino.xml"  # openvino.bin lies beside it

# Without the precision hint OpenVINO computes in bfloat16 or float16 on processors that have them.
PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class OpenVinoBackend(CpuBackend):
    """See `Backend`."""

    name = "openvino"
    precisions: tuple[str, ...] = ("fp32", "int8")

    def version(self) -> str:
        return version("openvino")

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        """OpenVINO does not know model-local functions, so the pooling is inlined before the conversion."""
        options.report("convert", 0.0)
        inlined = folder / "inlined.onnx"
        try:
            onnx.save(onnx.inliner.inline_local_functions(graph), inlined)
            model = openvino.convert_model(inlined)
            openvino.save_model(model, folder / IR, compress_to_fp16=False)
        except Exception as error:  # OpenVINO's exceptions share no base class
            reason = str(error).strip().splitlines()[-1]
            raise BackendError(f"OpenVINO cannot convert the graph: {reason}") from error
        finally:
            inlined.unlink(missing_ok=True)
        options.report("convert", 1.0)
        return {"max_batch": options.max_batch, "streams": 1}

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> "OpenVinoRunner":
        return OpenVinoRunner(folder / IR, spec, settings["max_batch"], settings["streams"])


@cache
def _core() -> openvino.Core:
    """The process's only Core, never released.

    The CPU plugin of each Core puts an alternate signal stack in place and at its end restores what it found. Where
    Cores do not end in the reverse order of their creation, that is memory given back, and the next signal that
    Python handles (Ctrl-C, say) ends the process with SIGSEGV.
    """
    return openvino.Core()


class OpenVinoRunner(OneByOne):
    """A compiled model on all cores, with a request for each stream."""

    def __init__(self, ir: Path, spec: Specification, max_batch: int, streams: int) -> None:
        self.max_batch = max_batch
        core = _core()
        try:
            model = core.read_model(ir)
            batch = openvino.Dimension(1, -(-max_batch // streams))
            model.reshape(openvino.PartialShape([batch, 1, spec.image_size, spec.image_size]))
            compiled = core.compile_model(model, "CPU", {**PROPERTIES, "NUM_STREAMS": streams})
            self._requests = [compiled.create_infer_request() for _ in range(streams)]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load {ir}: {error}") from error
        self.has_class_maps = len(model.outputs) > 1

    def run(self, images: npt.NDArray[np.uint8], class_maps: bool) -> Outputs:
        parts = np.array_split(images, min(len(images), len(self._requests)))
        running = self._requests[: len(parts)]
        try:
            for request, part in zip(running, parts, strict=True):
                request.start_async([part], share_inputs=True)
            for request in running:
                request.wait()
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO failed; build with a lower --max-batch if memory is short: {error}"
            ) from error
        names = ["probabilities", "class_maps"] if class_maps else ["probabilities"]
        results = [[request.get_tensor(name).data.copy() for name in names] for request in running]
        return joined([Outputs(values[0], values[1] if class_maps else None) for values in results])

    def close(self) -> None:
        self._requests = []
