"""No bundle is finished whose engine disagrees with its own scoring graph."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from cxr_trt.engine.backend import Runner
from cxr_trt.errors import BackendError
from cxr_trt.precision.ranges import Images

MAX_DIFFERENCES = {"fp32": (1e-4, 1e-4), "fp16": (2e-2, 2e-3), "int8": (0.3, 0.03)}
"""By precision, the largest and the mean difference of a probability that a bundle may have."""

MAX_CHECKED_BATCH = 8  # enough for all streams of `cxr_trt.engine.cpu.tuning`


@dataclass(frozen=True)
class Parity:
    """How far the probabilities of an engine lie from its scoring graph's."""

    images: int
    largest: float
    mean: float


def check_parity(runner: Runner, model: onnx.ModelProto, images: Images, precision: str) -> Parity:
    """Run an engine, and its scoring graph in float32 with ONNX Runtime on the CPU, on uint8 [N, 1, size, size].

    The engine takes the images one by one, and then a batch in which they are repeated, because it may compute the two
    differently.

    Raises:
        BackendError: they differ by more than the precision explains, or something is not a number.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(["probabilities"], {"images": image[None]})[0] for image in images])
    numbers = range(len(images))
    repeated = np.resize(numbers, min(runner.max_batch, MAX_CHECKED_BATCH))
    batches = [[number] for number in numbers] + ([repeated] if len(repeated) > 1 else [])
    differences = np.concatenate(
        [np.abs(runner.submit(list(images[batch, 0]), False)().probabilities - expected[batch]) for batch in batches]
    )
    parity = Parity(len(images), float(differences.max()), float(differences.mean()))
    largest, mean = MAX_DIFFERENCES[precision]
    if not (parity.largest <= largest and parity.mean <= mean):  # NaN fails too
        raise BackendError(
            f"nothing was written: the engine's probabilities differ from the scoring graph's by {parity.largest:.1e} "
            f"at most and {parity.mean:.1e} on average (allowed in {precision}: {largest:.0e} and {mean:.0e}); try "
            "another --precision or --backend, and please report it"
        )
    return parity
