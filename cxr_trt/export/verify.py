"""The check that an exported graph agrees with PyTorch; a graph that fails it is not written."""

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from cxr_trt.errors import GraphError
from cxr_trt.model.scorer import Scorer

TOLERANCES = {
    "probabilities": 1e-5,
    "class_maps": 1e-4,  # relative to the largest value, because class maps are unbounded
}


def verify(model: onnx.ModelProto, scorer: Scorer, images: npt.NDArray[np.uint8]) -> float:
    """Run the graph with ONNX Runtime and the scorer with PyTorch on the same images.

    Args:
        model: the scoring graph.
        scorer: the network and specification that it was made from.
        images: uint8 [N, 1, height, width].

    Returns:
        The largest difference of a probability.

    Raises:
        GraphError: a probability differs by more than 1e-5, or a class map by more than 1e-4 of its largest value.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst = dict.fromkeys(names, 0.0)
    for image in images:
        results = dict(zip(names, session.run(names, {"images": image[None]}), strict=True))
        probabilities, maps = (tensor.numpy() for tensor in scorer(torch.from_numpy(image[None])))
        references = {"probabilities": (probabilities, 1.0), "class_maps": (maps, max(1.0, np.abs(maps).max()))}
        for name in names:
            reference, scale = references[name]
            worst[name] = np.maximum(worst[name], np.abs(results[name] - reference).max() / scale)
    for name, difference in worst.items():
        if not difference <= TOLERANCES[name]:  # NaN fails too
            raise GraphError(
                f"nothing was written: the exported graph's {name} differ from PyTorch's by {difference:.1e} "
                f"(allowed: {TOLERANCES[name]:.0e}); check that all weights are finite, and if they are, please report "
                "this bug"
            )
    return float(worst["probabilities"])
