"""Hashes of files, and JSON files that end with their own hash."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 20


def hash_file(path: Path) -> str:
    """Sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def hash_fields(fields: Mapping[str, Any]) -> str:
    """Sha256 of plain JSON values, in hexadecimal. The order of the fields does not matter."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_hashed_json(fields: Mapping[str, Any]) -> str:
    """Human-readable JSON whose last field, `sha256`, is the hash of all the others."""
    return json.dumps({**fields, "sha256": hash_fields(fields)}, indent=2) + "\n"
