"""Files of weights, read without running code from them: safetensors, and PyTorch's state dicts."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cxr_trt.errors import CheckpointError

HEADER = "cxr_trt"  # the key of our JSON in the safetensors metadata


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a .safetensors file, or a state dict (.pt, .pth, .pth.tar) saved alone or as `state_dict` in a dictionary.

    Returns:
        Our header, empty if there is none; the tensors by their keys.

    Raises:
        CheckpointError: there is no such file, or it cannot be read without running code from it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    return _read_safetensors(path) if path.suffix == ".safetensors" else ({}, _read_pickle(path))


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
