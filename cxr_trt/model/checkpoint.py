"""Checkpoints: weights as safetensors with a JSON header, or a PyTorch state dict."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cxr_trt.errors import CheckpointError
from cxr_trt.model.network import Network
from cxr_trt.model.settings import SETTINGS, ModelSettings

HEADER = "cxr_trt"  # the key of our JSON in the safetensors metadata
SIZES = (512, 448)  # the paper's (sec. 4.2)


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights.

    trained: False for random weights. sizes: of the image and its crops that it was trained with, in pixels.
    sha256: of the file.
    """

    network: Network
    trained: bool
    sizes: tuple[int, int]
    sha256: str


def save_checkpoint(
    network: Network,
    path: Path,
    *,
    trained: bool,
    sizes: tuple[int, int] = SIZES,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a .safetensors file that `load_checkpoint` reads.

    sizes: of the resized image and its crops in training, in pixels. training: facts to keep with the weights, such as
    epoch, metrics and recipe; plain values.
    """
    settings = dataclasses.asdict(network.settings)
    header = {"settings": settings, "trained": trained, "sizes": sizes, "training": training or {}}
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(weights, path, metadata={HEADER: json.dumps(header)})


def load_checkpoint(path: Path, setting: str | None = None) -> Checkpoint:
    """Load a network strictly: every weight of the file must have its place, and every place its weight.

    Args:
        path: .safetensors with our header; or a state dict (.pt, .pth, .safetensors) of this network.
        setting: a name in SETTINGS, needed where the file has no header; must agree with the header where it has one.

    Raises:
        CheckpointError: the file cannot be read without running code from it, has no or another setting, or its
            keys or shapes differ from the network's; the sentence names them.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    header, weights = _read_safetensors(path) if path.suffix == ".safetensors" else ({}, _read_pickle(path))
    network = Network(_settings(path, header, setting))
    _fill(network, weights, path)
    sizes, sha256 = tuple(header.get("sizes", SIZES)), hashlib.sha256(path.read_bytes()).hexdigest()
    return Checkpoint(network.eval(), header.get("trained", True), sizes, sha256)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is not a mapping
            return json.loads((file.metadata() or {}).get(HEADER, "{}")), weights
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); save it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a plain state dict ({reason}); save it with torch.save(model.state_dict(), path)"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: not a state dict; save it with torch.save(model.state_dict(), path)")
    return content


def _settings(path: Path, header: dict[str, Any], setting: str | None) -> ModelSettings:
    if "settings" not in header:
        if setting is None:
            raise CheckpointError(f"{path}: does not say which network it is for; add --setting {'|'.join(SETTINGS)}")
        return SETTINGS[setting]
    try:
        settings = ModelSettings(**header["settings"])
    except TypeError as error:
        raise CheckpointError(f"{path}: its header does not fit this version ({error})") from error
    if setting is not None and SETTINGS[setting] != settings:
        raise CheckpointError(
            f"{path}: was saved as {settings}, which is not --setting {setting}; leave the option out"
        )
    return settings


def _fill(network: Network, weights: dict[str, Tensor], path: Path) -> None:
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
        raise CheckpointError(f"{path}: does not fit the network: {'; '.join(problems)}; is --setting right?")
    network.load_state_dict(weights)


def _lossy(expected: Tensor, found: Tensor) -> bool:
    exact = (torch.float32, torch.float16, torch.bfloat16)
    return expected.dtype == torch.float32 and found.dtype not in exact
