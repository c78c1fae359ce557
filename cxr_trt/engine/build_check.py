"""The check that a newly built engine agrees with its scoring graph; a bundle that fails it is not written."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from cxr_trt.engine.backend import Runner
from cxr_trt.errors import BackendError
from cxr_trt.precision.ranges import Images

MAX_DIFFERENCES = {"fp32": (1e-4, 1e-4), "bf16": (2e-2, 2e-3), "fp16": (2e-2, 2e-3), "int8": (0.3, 0.03)}
"""By precision: the largest difference of a probability that is allowed, and the largest mean difference."""

MAX_CHECKED_BATCH = 8  # enough to use all streams of `cxr_trt.engine.cpu.tuning`


@dataclass(frozen=True)
class Parity:
    """How much the probabilities of an engine differ from those of its scoring graph."""

    images: int
    largest: float
    mean: float


def check_parity(runner: Runner, model: onnx.ModelProto, images: Images, precision: str) -> Parity:
    """Compare an engine with its scoring graph, which ONNX Runtime runs in float32 on the CPU.

    The engine gets the images one by one and then as a batch, with images repeated to fill it, because it may compute
    single images and batches differently.

    Args:
        runner: the open engine.
        model: the scoring graph.
        images: uint8 [N, 1, height, width].
        precision: decides which differences are allowed, see MAX_DIFFERENCES.

    Raises:
        BackendError: they differ by more than the precision explains, or a result is not a number.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(["probabilities"], {"images": image[None]})[0] for image in images])
    indices = range(len(images))
    repeated = np.resize(indices, min(runner.max_batch, MAX_CHECKED_BATCH))
    batches = [[index] for index in indices] + ([repeated] if len(repeated) > 1 else [])
    differences = np.concatenate(
        [np.abs(runner.submit(list(images[batch, 0]), False)().probabilities - expected[batch]) for batch in batches]
    )
    parity = Parity(len(images), float(differences.max()), float(differences.mean()))
    largest, mean = MAX_DIFFERENCES[precision]
    if not (parity.largest <= largest and parity.mean <= mean):  # NaN fails too
        raise BackendError(
            f"nothing was written: the engine's probabilities differ from the scoring graph's by {parity.largest:.1e} "
            f"at most and {parity.mean:.1e} on average ({precision} allows {largest:.0e} and {mean:.0e}); try another "
            "--precision or --backend, and please report this"
        )
    return parity
