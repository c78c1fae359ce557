"""No bundle is finished whose engine disagrees with its own scoring graph."""

import numpy as np
import onnx
import onnxruntime

from cxr_trt.engine.backend import Runner
from cxr_trt.errors import BackendError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.spec import Specification

TOLERANCE = 1e-4  # of a probability, in float32


def check_parity(runner: Runner, model: onnx.ModelProto, spec: Specification) -> float:
    """Run an engine and its scoring graph, with ONNX Runtime on the CPU, on a built-in picture.

    Returns:
        The largest difference of a probability.

    Raises:
        BackendError: it is above the tolerance, or not a number.
    """
    picture = check_pictures(spec.image_size)[:1]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"images": picture})
    difference = float(np.abs(runner.run(picture, class_maps=False).probabilities - expected).max())
    if not difference <= TOLERANCE:  # NaN fails too
        raise BackendError(
            f"nothing was written: the engine's probabilities differ from the scoring graph's by {difference:.1e} "
            f"(allowed: {TOLERANCE:.0e}); try another --backend, and please report it"
        )
    return difference
