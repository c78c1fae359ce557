"""Reading weights from safetensors files and PyTorch state dicts, without running code that a file may contain."""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cxr_trt.errors import CheckpointError

HEADER_KEY = "cxr_trt"  # the key of our JSON in the safetensors metadata


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a .safetensors file, or a state dict (.pt, .pth, .pth.tar) saved alone or as `state_dict` in a dictionary.

    Returns:
        Our header, which is empty if there is none, and the tensors by key.

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
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
            if not isinstance(header, dict):
                raise ValueError("its header is not a JSON object")
            return header, weights
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); save it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        if _is_compressed(path):
            raise ValueError("it is compressed, but PyTorch never compresses")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a plain state dict ({reason}); save it with torch.save(model.state_dict(), path)"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(_is_plain(key, value) for key, value in content.items()):
        raise CheckpointError(f"{path}: not a plain state dict; save it with torch.save(model.state_dict(), path)")
    return content


def _is_compressed(path: Path) -> bool:
    """Whether the file would unpack to more bytes than it has: a megabyte can unpack to a gigabyte of zeros."""
    if not zipfile.is_zipfile(path):  # written by an old version of PyTorch
        return False
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist()) > path.stat().st_size


def _is_plain(key: object, value: object) -> bool:
    """Whether an entry is a name with a dense CPU tensor that does not claim more elements than are stored."""
    return (
        isinstance(key, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
