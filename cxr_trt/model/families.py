"""Networks of libraries: timm's and torchvision's by name, and torchxrayvision's ResNet by its keys.

Their own definitions are used, so their checkpoints fit without any renaming. A library is only needed for its own
networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from cxr_trt.errors import CheckpointError, UsageError
from cxr_trt.model.checkpoint import fill
from cxr_trt.model.imagenet import IMAGENET_MEAN, IMAGENET_STD
from cxr_trt.model.layouts import XRV_OUTPUTS, XRV_POINTS, reported_outputs
from cxr_trt.model.weights_file import read_weights
from cxr_trt.views import Size

Library = Literal["timm", "torchvision"]
LIBRARIES: tuple[Library, ...] = get_args(Library)
TORCHVISION_SIZE = Size.square(224)
XRV_RESNET_SIZE = Size.square(512)
XRV_PIXEL_RANGE = (-1024.0, 1024.0)
WRAPPER_PREFIXES = ("module.", "model.", "_orig_mod.")  # of DataParallel, Lightning and torch.compile


@dataclass(frozen=True)
class FamilyNetwork:
    """A network with its weights, and what its library says of its input.

    known: fields of a `cxr_trt.spec.Specification`, as far as the library says them.
    """

    module: nn.Module
    known: Mapping[str, Any] = field(default_factory=dict)


def load_library_network(path: Path, library: Library, name: str, outputs: int, channels: int | None) -> FamilyNetwork:
    """Build a network by the name that its library gives it, and fill it strictly from a checkpoint.

    Args:
        path: a state dict, see `cxr_trt.model.weights_file.read_weights`.
        library: "timm" or "torchvision".
        name: such as "convnext_tiny".
        outputs: the number of its outputs.
        channels: the number of input channels; None means the library's default, which is 3.

    Raises:
        UsageError: the library has no such network for classification, or cannot build it like this.
        CheckpointError: the file cannot be read, or its weights are not exactly those of the network.
    """
    weights = _unwrapped(read_weights(path)[1])
    build = _timm if library == "timm" else _torchvision
    network = build(name, outputs, channels)
    fill(network.module, weights, path)
    return FamilyNetwork(network.module.eval(), network.known)


def load_xrv_resnet(path: Path) -> FamilyNetwork | None:
    """Torchxrayvision's ResNet-50, recognised by its one input channel and 18 outputs; None for anything else.

    Raises:
        CheckpointError: it is one, but a weight is missing or has another shape.
    """
    weights = _unwrapped(read_weights(path)[1])
    first, last = weights.get("conv1.weight"), weights.get("fc.weight")
    if first is None or last is None or first.shape[1:] != (1, 7, 7) or last.shape[:1] != (len(XRV_OUTPUTS),):
        return None
    points = weights.pop(XRV_POINTS, None)
    module = _torchvision("resnet50", len(XRV_OUTPUTS), 1).module
    fill(module, weights, path)
    rows, operating = reported_outputs(points, path)
    findings = tuple(XRV_OUTPUTS[row] for row in rows)
    return FamilyNetwork(
        module.eval(),
        {
            "findings": findings,
            "outputs": XRV_OUTPUTS if findings != XRV_OUTPUTS else (),
            "operating_points": operating,
            "image_size": XRV_RESNET_SIZE,
            "crop_size": XRV_RESNET_SIZE,
            "fit": "center-crop",
            "pixel_range": XRV_PIXEL_RANGE,
            "mean": (0.0,),
            "std": (1.0,),
            "views": "whole",
        },
    )


def _timm(name: str, outputs: int, channels: int | None) -> FamilyNetwork:
    try:
        import timm
        from timm.data.config import resolve_data_config
    except ModuleNotFoundError as error:
        raise UsageError("--timm needs timm: pip install timm") from error
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise UsageError(f"timm has no network {name!r}; it has {near or 'others'}: see timm.list_models()")
    extra: dict[str, Any] = {} if channels is None else {"in_chans": channels}
    try:
        module = timm.create_model(name, num_classes=outputs, **extra)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"timm cannot build {name} with {outputs} outputs: {error}") from error
    config: Mapping[str, Any] = resolve_data_config(model=module)  # type: ignore[no-untyped-call]
    known: dict[str, Any] = {"image_size": Size(*config["input_size"][1:])}
    if channels in (None, len(config["mean"])):
        known |= {"mean": tuple(map(float, config["mean"])), "std": tuple(map(float, config["std"]))}
    return FamilyNetwork(module, known)


def _torchvision(name: str, outputs: int, channels: int | None) -> FamilyNetwork:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise UsageError(
            f"torchvision has no network {name!r} for classification; see torchvision.models.list_models()"
        )
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    module = models.get_model(name, weights=None, num_classes=outputs, **extra)
    if channels not in (None, 3):
        _with_channels(module, channels or 3)
    statistics = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if channels in (None, 3) else {}
    return FamilyNetwork(module, {"image_size": TORCHVISION_SIZE, **statistics})


def _with_channels(module: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels, as projects with grey images do."""
    name, conv = next((name, part) for name, part in module.named_modules() if isinstance(part, nn.Conv2d))
    parent, _, attribute = name.rpartition(".")
    new = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    setattr(module.get_submodule(parent), attribute, new)


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefixes that wrappers give to all keys."""
    found = dict(weights)
    for prefix in WRAPPER_PREFIXES:
        if found and all(key.startswith(prefix) or key == XRV_POINTS for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


@torch.inference_mode()
def run_module(module: nn.Module, crops: Tensor) -> Tensor:
    """Outputs [N, K] of a network for crops [N, channels, h, w], one crop at a time.

    Raises:
        CheckpointError: it does not give one row of numbers per crop.
    """
    outputs = torch.cat([module(crop[None]) for crop in crops])
    if outputs.ndim != 2:
        raise CheckpointError(f"the network gives {list(outputs.shape)} instead of one score per output")
    return outputs
