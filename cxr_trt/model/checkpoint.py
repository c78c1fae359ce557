"""Loading and saving checkpoints.

A checkpoint of this project is a safetensors file with a JSON header, or a state dict. `cxr_trt.model.layouts` reads
those of other projects.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cxr_trt.errors import CheckpointError, GraphError, UsageError
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.layouts import adapt
from cxr_trt.model.network import Network
from cxr_trt.model.settings import CAUTIONS, SETTINGS, ModelSettings, WeightsKind
from cxr_trt.model.weights_file import HEADER_KEY, read_weights
from cxr_trt.spec import MapKind, Specification
from cxr_trt.systems import SYSTEMS, find_system, setting_names
from cxr_trt.systems.system import System
from cxr_trt.systems.yan2018 import YAN2018
from cxr_trt.views import VIEW_SETS, Size

PAPER_SIZES = (YAN2018.image_size, YAN2018.crop_size)  # in pixels (paper, sec. 4.2)


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights.

    spec: how images are preprocessed and scored; the views are only a default. weights: the kind of weights.
    sha256: hash of the file. maps: what class maps the network has; the specification learns of them in the export,
    unless they are the paper's.
    """

    network: CropNetwork
    spec: Specification
    weights: WeightsKind
    sha256: str
    maps: MapKind


def save_checkpoint(
    network: CropNetwork,
    path: Path,
    *,
    weights: WeightsKind,
    setting: str = "",
    sizes: tuple[int, int] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a .safetensors file that `load_checkpoint` reads.

    Args:
        network: the network to save.
        path: the file to write.
        weights: the kind of weights.
        setting: the setting that a system built the network from. A `Network` knows its own.
        sizes: sizes of the resized image and of its crops in training, in pixels; by default the system's.
        training: facts to store with the weights, such as epoch, metrics and recipe; plain JSON values.

    Raises:
        UsageError: no system has the setting.
    """
    if isinstance(network, Network):
        sizes = sizes or PAPER_SIZES
        which: dict[str, Any] = {"settings": dataclasses.asdict(network.settings)}
    else:
        system = find_system(setting)
        sizes = sizes or (system.image_size, system.crop_size)
        views = "center" if system.views == "whole" and sizes[0] != sizes[1] else system.views
        which = {"system": system.name, "setting": setting, "views": views}
    header = {**which, "weights": weights, "sizes": sizes, "training": training or {}}
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, path, metadata={HEADER_KEY: json.dumps(header)})


def load_checkpoint(path: Path, setting: str | None = None) -> Checkpoint:
    """Load a network strictly: the weights in the file must be exactly those of the network.

    Args:
        path: a .safetensors file with our header; or a state dict of a system's network, or one that
            `cxr_trt.model.layouts` knows, in a file that `read_weights` can read.
        setting: a setting of one of `cxr_trt.systems`. It is required for a state dict without a header, and must agree
            with the header if there is one.

    Raises:
        CheckpointError: the file cannot be read without running code from it, the setting is missing or contradicts the
            header, or keys or shapes differ from the network's; the error names them.
    """
    header, tensors = read_weights(path)
    if adapted := adapt(tensors, path):
        if setting is not None:
            raise CheckpointError(f"{path}: its keys already say which network it is for; leave out --setting")
        tensors, spec = adapted.weights, adapted.spec
        network: CropNetwork = Network(adapted.settings, len(spec.findings))
        maps = YAN2018.maps
    else:
        network, spec, maps = _network(path, header, setting)
    fill(network, tensors, path)
    weights = header.get("weights", "trained")
    if not isinstance(weights, str) or weights not in CAUTIONS:
        raise CheckpointError(f"{path}: its header does not fit this version (weights are {weights!r})")
    return Checkpoint(network.eval(), spec, weights, hashlib.sha256(path.read_bytes()).hexdigest(), maps)


def _network(path: Path, header: dict[str, Any], setting: str | None) -> tuple[CropNetwork, Specification, MapKind]:
    """The network that header and setting name, with random weights, its specification, and its kind of class maps."""
    if "settings" in header:
        settings = _settings(path, header, setting)
        return Network(settings), _spec(path, header, YAN2018, settings), YAN2018.maps
    name = _setting(path, header, setting)
    system = find_system(name)
    return system.build(name), _spec(path, header, system, SETTINGS.get(name)), system.maps


def _settings(path: Path, header: dict[str, Any], setting: str | None) -> ModelSettings:
    try:
        settings = ModelSettings(**header["settings"])
    except (TypeError, UsageError) as error:
        raise CheckpointError(f"{path}: its header does not fit this version ({error})") from error
    if setting is not None and SETTINGS.get(setting) != settings:
        raise CheckpointError(
            f"{path}: was saved as {settings}, which is not --setting {setting}; leave the option out"
        )
    return settings


def _setting(path: Path, header: dict[str, Any], setting: str | None) -> str:
    if "system" not in header:
        if setting is None:
            names = "|".join(setting_names())
            raise CheckpointError(f"{path}: does not say which network it is for; add --setting {names}")
        return setting
    name, saved = header["system"], header.get("setting")
    if not isinstance(saved, str) or not any(system.name == name and saved in system.settings for system in SYSTEMS):
        raise CheckpointError(
            f"{path}: its header does not fit this version (no system {name!r} has a setting {saved!r})"
        )
    if setting not in (None, saved):
        raise CheckpointError(f"{path}: was saved as {saved}, which is not --setting {setting}; leave the option out")
    return saved


def _spec(path: Path, header: dict[str, Any], system: System, settings: ModelSettings | None) -> Specification:
    """How a checkpoint's images are scored. Settings with their pooling are those of the paper's family alone."""
    try:
        image_side, crop_side = header.get("sizes", (system.image_size, system.crop_size))
        views = header.get("views", system.views)
        if views not in VIEW_SETS:
            raise ValueError(f"views are {views!r}")
        spec = Specification.from_mapping(
            Specification(
                views=views,
                image_size=Size(system.planes * image_side, image_side),
                crop_size=Size(system.planes * crop_side, crop_side),
                mean=system.mean,
                std=system.std,
                pooling=settings.pooling if settings else None,
                maps="pooled" if settings else "none",
                planes=system.planes,
            ).to_mapping()
        )
    except (TypeError, ValueError, GraphError) as error:
        raise CheckpointError(f"{path}: its header does not fit this version ({error})") from error
    return spec


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a network. Raises CheckpointError unless they are exactly those of the network."""
    expected = network.state_dict()
    problems = [
        f"{word} {', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}"
        for word, keys in (
            ("missing", sorted(expected.keys() - weights.keys())),
            ("unexpected", sorted(weights.keys() - expected.keys())),
            (
                "not float32, float16 or bfloat16",
                [k for k in sorted(expected.keys() & weights) if _lossy(expected[k], weights[k])],
            ),
            ("wrong shape", [k for k in sorted(expected.keys() & weights) if expected[k].shape != weights[k].shape]),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{path}: does not fit the network: {'; '.join(problems)}; is it the right kind of network?"
        )
    network.load_state_dict(weights)


def _lossy(expected: Tensor, found: Tensor) -> bool:
    exact = (torch.float32, torch.float16, torch.bfloat16)
    return expected.dtype == torch.float32 and found.dtype not in exact
