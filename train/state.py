"""The state of a training on disk: everything that the next step depends on, in a file that is replaced as a whole."""

import os
from pathlib import Path
from typing import Any

import torch

from cxr_trt.errors import CheckpointError, UsageError
from cxr_trt.outputs import replacing


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; after a kill or a power cut the file is the old one or the new one, never a part.

    Raises:
        UsageError: the disk is full.
    """
    with replacing(path) as partial, partial.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())


def load_state(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Args:
        path: the file.
        identity: recipe and data of this run, which must be those of the state.

    Raises:
        CheckpointError: the file is damaged.
        UsageError: it belongs to a run with another recipe or other data.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found: dict[str, Any] = state["identity"]
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: is damaged; delete it to train from the start") from error
    if changed := [key for key in sorted(identity.keys() | found.keys()) if identity.get(key) != found.get(key)]:
        raise UsageError(
            f"{path}: belongs to a run with another {', '.join(changed)}; give the same, or another --out folder"
        )
    return state
