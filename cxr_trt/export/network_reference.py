"""The whole scoring computation around a network in NumPy: the reference for networks that come as they are.

It shares no code with the scoring graph: crops are cut, normalised and averaged here by other means.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cxr_trt.spec import Specification

RunNetwork = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Outputs [N, K] for normalised crops [N, channels, h, w]."""


def reference_outputs(run: RunNetwork, spec: Specification, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the network gives for each view of an image, uint8 [height, width]: [views, K]."""
    black, white = spec.pixel_range
    grey = black + image.astype(np.float64) / 255 * (white - black)
    mean, std = (np.array(values)[:, None, None] for values in (spec.mean, spec.std))
    channels = ((grey[None] - mean) / std).astype(np.float32)
    height, width = spec.view_size
    crops = [channels[:, view.y : view.y + height, view.x : view.x + width] for view in spec.view_list()]
    flipped = [crop[:, :, ::-1] if view.mirrored else crop for view, crop in zip(spec.view_list(), crops, strict=True)]
    return run(np.ascontiguousarray(np.stack(flipped)))


def reference_probabilities(outputs: npt.NDArray[np.float32], spec: Specification) -> npt.NDArray[np.float64]:
    """Probabilities [findings] of an image, from what the network gives for its views [views, K]."""
    values = outputs.astype(np.float64)
    if spec.output == "logits":
        values = 0.5 * (1 + np.tanh(values / 2))
    elif spec.output == "softmax-logits":
        powers = np.exp(values - values.max(1, keepdims=True))
        values = powers / powers.sum(1, keepdims=True)
    names = list(spec.network_outputs)
    p = values[:, [names.index(finding) for finding in spec.findings]]
    if spec.operating_points:
        point = np.array(spec.operating_points)
        p = np.where(p < point, p / (2 * point), 1 - (1 - p) / (2 * (1 - point)))
    mean: npt.NDArray[np.float64] = p.mean(0)
    return mean


def problem_with_outputs(outputs: npt.NDArray[np.float32], spec: Specification) -> str | None:
    """Why outputs [N, K] are not what the specification says that they are; None if they are."""
    if not np.isfinite(outputs).all():
        return "the network gives values that are not finite; check its weights and the card's statistics"
    if spec.output not in ("probabilities", "softmax"):
        return None
    if outputs.min() < 0 or outputs.max() > 1:
        return (
            f'the card says output = "{spec.output}", but the network gives values from {outputs.min():.3g} to '
            f'{outputs.max():.3g}; its outputs are probably "logits" or "softmax-logits"'
        )
    if spec.output == "softmax" and not np.abs(outputs.sum(1) - 1).max() <= 1e-3:
        return (
            f'the card says output = "softmax", but the outputs sum to {outputs.sum(1).max():.3g} instead of 1; they '
            'are probably "probabilities", or "softmax-logits"'
        )
    return None
