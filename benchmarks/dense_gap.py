"""Why dense views score differently from ten crops: the gates' means over the image, or the padding of the crops?

Between the two lie two mixtures, in PyTorch: the ten crops with the gates (paper, eqs. 1-3) of the whole image, which
differ from the ten crops by the gates alone; and the whole image with the gates of each crop, pooled where that crop
lies, which differs from them by the padding alone.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.study import PAPER_MODEL, Result, cxr14_option
from benchmarks.tools.networks import load_network
from benchmarks.views import read_test_side
from cxr_trt.evaluate.auc import Floats
from cxr_trt.evaluate.comparison import compare_probabilities
from cxr_trt.findings import FINDINGS
from cxr_trt.images.load import load_images
from cxr_trt.markdown import markdown_table
from cxr_trt.model.network import Network, SqueezeExcitation
from cxr_trt.spec import Specification

PACKAGES = ("torch",)
MIXTURES = ("ten crops", "crops, gates of the image", "image, gates of the crops", "dense")
TEXT = """\
# Why dense views score differently

**{headline}**

Dense views ([what they cost](views.md)) differ from ten crops in two things. A gate (squeeze-and-excitation) weighs
channels by their means over the whole image instead of the crop. And what lies beyond a crop's border are the next
pixels of the picture, where the crop itself is padded with zeros. Two mixtures tell these apart: the crops with the
gates of the whole image differ from ten crops by the gates alone; the whole image with the gates of each crop by the
padding alone.

{images} test images of the ChestX-ray14 subset (every {step}th), in PyTorch, with the shipped network `paper`.

{rows}

**moved**: root mean square of the difference from ten crops in log odds, relative to their standard deviation over the
images; the mean over the findings. **rank correlation**: with ten crops, the mean over the findings.
"""


@click.command()
@cxr14_option
@click.option("--step", type=click.IntRange(1), default=45, help="Take every N-th test image.")
def measure(data: Path, step: int) -> Result:
    """Score test images with ten crops, dense views and the two mixtures."""
    network, spec = load_network(PAPER_MODEL), Specification()
    names, _, _ = read_test_side(data / "labels.csv", None)
    names = names[::step]
    images = load_images([data / "images" / name for name in names], spec.image_size)
    scores = np.stack([mixtures(network, spec, image) for image in images], 1)  # [mixtures, N, 14]
    rows = {name: difference(scores[0], own, names) for name, own in zip(MIXTURES, scores, strict=True)}
    return {"images": len(names), "step": step, "mixtures": rows}


def difference(exact: Floats, own: Floats, names: list[str]) -> dict[str, float]:
    """How far probabilities [N, 14] lie from ten crops'."""
    log_odds, exact_log_odds = (np.log(p / (1 - p)) for p in (own, exact))
    moved = np.sqrt(np.mean((log_odds - exact_log_odds) ** 2, 0)) / np.std(exact_log_odds, 0)
    ranks = [r for r in compare_probabilities(FINDINGS, exact, own, names).rank_correlation.values() if r is not None]
    return {"moved": float(moved.mean()), "rank_correlation": float(np.mean(ranks))}


def page(result: Result) -> str:
    """The page of a result."""
    measured: dict[str, dict[str, float]] = result["mixtures"]
    rows = [(name, f"{100 * own['moved']:.1f} %", f"{own['rank_correlation']:.4f}") for name, own in measured.items()]
    gates, padding, dense = (100 * measured[name]["moved"] for name in MIXTURES[1:])
    return TEXT.format(
        headline=f"Padding moves the scores more than the gates do: by {padding:.0f} % and {gates:.0f} % of their "
        f"spread, both together by {dense:.0f} %."
        if padding > gates
        else f"The gates move the scores more than padding does: by {gates:.0f} % and {padding:.0f} % of their "
        f"spread, both together by {dense:.0f} %.",
        images=result["images"],
        step=result["step"],
        rows=markdown_table(("", "moved", "rank correlation"), rows),
    )


@torch.inference_mode()
def mixtures(network: Network, spec: Specification, image: Any) -> Floats:
    """Probabilities [4, 14] of an image, uint8 [1, size, size], in the order of MIXTURES."""
    std, mean = (torch.tensor(values)[:, None, None] for values in (spec.std, spec.mean))
    whole = (torch.from_numpy(image).float() / 255 - mean) / std
    crop_side = spec.crop_size.height
    far, middle = spec.margin.height, spec.margin.height // 2
    found: list[list[Tensor]] = [[] for _ in MIXTURES]
    for picture in (whole[None], whole[None].flip(3)):
        with recorded_gates(network) as gates_of_image:
            dense_maps = network.class_maps(picture)
        for y, x in ((0, 0), (0, far), (far, 0), (far, far), (middle, middle)):
            crop = picture[:, :, y : y + crop_side, x : x + crop_side]
            with recorded_gates(network) as gates_of_crop:
                crop_maps = network.class_maps(crop)
            with fixed_gates(network, gates_of_image):
                crop_maps_with_gates = network.class_maps(crop)
            with fixed_gates(network, gates_of_crop):
                image_maps_with_gates = network.class_maps(picture)
            for kept, maps in zip(
                found,
                (
                    crop_maps,
                    crop_maps_with_gates,
                    _window(image_maps_with_gates, y, x, spec),
                    _window(dense_maps, y, x, spec),
                ),
                strict=True,
            ):
                kept.append(torch.sigmoid(network.pool(maps))[0])
    return np.stack([torch.stack(kept).mean(0).double().numpy() for kept in found])


def _window(maps: Tensor, y: int, x: int, spec: Specification) -> Tensor:
    cell = spec.image_size.height // maps.shape[-1]
    side = spec.crop_size.height // cell
    return maps[:, :, y // cell : y // cell + side, x // cell : x // cell + side]


@contextmanager
def recorded_gates(network: Network) -> Iterator[list[Tensor]]:
    """The gates of each transition, as they are computed while the context is open."""
    gates: list[Tensor] = []

    def record(module: SqueezeExcitation, inputs: tuple[Tensor], output: Tensor) -> None:
        means = inputs[0].mean((2, 3))
        gates.append(torch.sigmoid(module.excite(torch.relu(module.squeeze(means)))))

    with _hooked(network, lambda module, number: record):
        yield gates


@contextmanager
def fixed_gates(network: Network, gates: list[Tensor]) -> Iterator[None]:
    """The network with these gates in place of its own."""

    def replacing(number: int) -> Callable[..., Tensor]:
        return lambda module, inputs, output: inputs[0] * gates[number][:, :, None, None]

    with _hooked(network, lambda module, number: replacing(number)):
        yield


@contextmanager
def _hooked(network: Network, hook: Callable[[SqueezeExcitation, int], Any]) -> Iterator[None]:
    modules = [module for module in network.modules() if isinstance(module, SqueezeExcitation)]
    with ExitStack() as stack:
        for number, module in enumerate(modules):
            stack.callback(module.register_forward_hook(hook(module, number)).remove)
        yield
