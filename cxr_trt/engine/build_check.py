"""The check that a newly built engine agrees with its scoring graph; a bundle that fails it is not written."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from cxr_trt.engine.backend import Pending, Runner
from cxr_trt.errors import BackendError
from cxr_trt.precision.ranges import Images

MAX_DIFFERENCES = {
    "fp32": (1e-4, 1e-4),
    "tf32": (2e-2, 2e-3),  # as fp16, whose significant bits it has
    "bf16": (2e-2, 2e-3),
    "fp16": (2e-2, 2e-3),
    "int8": (0.3, 0.03),
}
"""By precision: the largest difference of a probability that is allowed, and the largest mean difference."""

MAX_CHECKED_BATCH = 8  # on a CPU: enough to use all streams of `cxr_trt.engine.cpu.tuning`


@dataclass(frozen=True)
class Parity:
    """How much the probabilities of an engine differ from those of its scoring graph."""

    images: int
    largest: float
    mean: float


def check_parity(runner: Runner, model: onnx.ModelProto, images: Images, precision: str) -> Parity:
    """Compare an engine with its scoring graph, which ONNX Runtime runs in float32 on the CPU.

    The engine gets batches of the sizes of `checked_sizes`, because it may compute single images, full batches and
    others differently, and remember earlier ones.

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
    turns = itertools.cycle(range(len(images)))
    batches = [[next(turns) for _ in range(size)] for size in checked_sizes(runner, len(images))]
    differences = np.concatenate(
        [
            np.abs(found - expected[batch])
            for batch, found in zip(batches, _scores(runner, images, batches), strict=True)
        ]
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


def checked_sizes(runner: Runner, images: int) -> list[int]:
    """The sizes of the batches that are compared.

    An engine that computes one batch at a time gets every image alone, and then a batch. One that keeps several in
    flight may have captured their work: it gets sizes in turns, often enough for each to be replayed in every slot.
    """
    if runner.in_flight == 1:
        batch = min(runner.max_batch, MAX_CHECKED_BATCH)
        return [1] * images + [batch] * (batch > 1)
    full = runner.max_batch
    return [1, full, 1, min(3, full), full] * 2 * runner.in_flight


def _scores(runner: Runner, images: Images, batches: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.float32]]:
    """Probabilities of each batch, with as many in flight as the engine takes."""
    running: deque[Pending] = deque()
    for batch in batches:
        running.append(runner.submit(list(images[batch, 0]), False))
        if len(running) == runner.in_flight:
            yield running.popleft()().probabilities
    while running:
        yield running.popleft()().probabilities
