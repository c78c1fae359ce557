"""TensorRT's kernel timings, kept from one build to the next."""

import logging
import os
import re
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger(__name__)


def timing_cache_path(version: str, gpu: str, compute_capability: str) -> Path:
    """The cache file of a TensorRT version and GPU model, under XDG_CACHE_HOME or ~/.cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cxr-trt"
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{version} {gpu} {compute_capability}")
    return folder / f"timing-{name}.cache"


def load_timing_cache(config: Any, path: Path) -> None:
    """Give the builder the timings of earlier builds, or an empty cache if there are none that it accepts."""
    try:
        timings = path.read_bytes()
    except OSError:
        timings = b""
    for content in (timings, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def save_timing_cache(config: Any, path: Path) -> None:
    """Keep the timings for later builds. It is no error if they cannot be written: later builds only take longer."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(cache.serialize())
        temporary.replace(path)
    except OSError as error:
        LOGGER.warning("the timing cache %s cannot be written, so the next build takes as long again: %s", path, error)
