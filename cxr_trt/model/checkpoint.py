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
from cxr_trt.model.layouts import adapt
from cxr_trt.model.network import Network
from cxr_trt.model.settings import CAUTIONS, SETTINGS, ModelSettings, WeightsKind
from cxr_trt.model.weights_file import HEADER_KEY, read_weights
from cxr_trt.spec import Specification
from cxr_trt.views import Size

PAPER_SIZES = (512, 448)  # image and crop size in pixels (paper, sec. 4.2)


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights.

    spec: how images are preprocessed and scored; the views are only a default. weights: the kind of weights.
    sha256: hash of the file.
    """

    network: Network
    spec: Specification
    weights: WeightsKind
    sha256: str


def save_checkpoint(
    network: Network,
    path: Path,
    *,
    weights: WeightsKind,
    sizes: tuple[int, int] = PAPER_SIZES,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a .safetensors file that `load_checkpoint` reads.

    Args:
        network: the network to save.
        path: the file to write.
        weights: the kind of weights.
        sizes: sizes of the resized image and of its crops in training, in pixels.
        training: facts to store with the weights, such as epoch, metrics and recipe; plain JSON values.
    """
    settings = dataclasses.asdict(network.settings)
    header = {"settings": settings, "weights": weights, "sizes": sizes, "training": training or {}}
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, path, metadata={HEADER_KEY: json.dumps(header)})


def load_checkpoint(path: Path, setting: str | None = None) -> Checkpoint:
    """Load a network strictly: the weights in the file must be exactly those of the network.

    Args:
        path: a .safetensors file with our header; or a state dict of this network, or one that `cxr_trt.model.layouts`
            knows, in a file that `read_weights` can read.
        setting: a name in SETTINGS. It is required for a state dict of this network without a header, and must agree
            with the header if there is one.

    Raises:
        CheckpointError: the file cannot be read without running code from it, the setting is missing or contradicts the
            header, or keys or shapes differ from the network's; the error names them.
    """
    header, tensors = read_weights(path)
    if adapted := adapt(tensors, path):
        if setting is not None:
            raise CheckpointError(f"{path}: its keys already say which network it is for; leave out --setting")
        tensors, settings, spec = adapted.weights, adapted.settings, adapted.spec
    else:
        settings = _settings(path, header, setting)
        spec = _spec(path, header, settings)
    network = Network(settings, len(spec.findings))
    fill(network, tensors, path)
    weights = header.get("weights", "trained")
    if not isinstance(weights, str) or weights not in CAUTIONS:
        raise CheckpointError(f"{path}: its header does not fit this version (weights are {weights!r})")
    return Checkpoint(network.eval(), spec, weights, hashlib.sha256(path.read_bytes()).hexdigest())


def _settings(path: Path, header: dict[str, Any], setting: str | None) -> ModelSettings:
    if "settings" not in header:
        if setting is None:
            raise CheckpointError(f"{path}: does not say which network it is for; add --setting {'|'.join(SETTINGS)}")
        return SETTINGS[setting]
    try:
        settings = ModelSettings(**header["settings"])
    except (TypeError, UsageError) as error:
        raise CheckpointError(f"{path}: its header does not fit this version ({error})") from error
    if setting is not None and SETTINGS[setting] != settings:
        raise CheckpointError(
            f"{path}: was saved as {settings}, which is not --setting {setting}; leave the option out"
        )
    return settings


def _spec(path: Path, header: dict[str, Any], settings: ModelSettings) -> Specification:
    try:
        image_side, crop_side = header.get("sizes", PAPER_SIZES)
        spec = Specification.from_mapping(
            Specification(
                image_size=Size.square(image_side), crop_size=Size.square(crop_side), pooling=settings.pooling
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
