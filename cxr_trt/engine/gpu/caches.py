"""What is kept from one build or run to the next: TensorRT's kernel timings, and what TensorRT-RTX has compiled.

The files are in the user's own cache folder, not beside a bundle: what is compiled is code, and a bundle has no file
without a hash in its manifest.
"""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from cxr_trt.engine.user_cache import cache_folder, read_cached, write_cached

LOGGER = logging.getLogger(__name__)


def timing_cache_path(version: str, gpu: str) -> Path:
    """The file with the timings of a TensorRT version on a GPU, which `GpuIdentity.text` names."""
    return cache_folder() / f"timing-{_slug(f'{version} {gpu}')}.cache"


def runtime_cache_path(version: str, gpu: str, plan: bytes) -> Path:
    """The file with what a TensorRT-RTX version has compiled of a plan for a GPU."""
    return cache_folder() / f"rtx-{_slug(f'{version} {gpu}')}-{hashlib.sha256(plan).hexdigest()[:16]}.cache"


def load_timing_cache(config: Any, path: Path) -> None:
    """Give the builder the timings of earlier builds, or an empty cache if there are none that it accepts."""
    for content in (read_cached(path), b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def save_timing_cache(config: Any, path: Path) -> None:
    """Keep the timings for later builds. It is no error if they cannot be written: later builds only take longer."""
    cache = config.get_timing_cache()
    if cache is not None:
        _write(path, bytes(cache.serialize()), "the next build takes as long again")


def load_runtime_cache(runtime_config: Any, path: Path) -> Any:
    """Give an IRuntimeConfig what earlier processes compiled, and return its cache, which collects what is new."""
    cache = runtime_config.create_runtime_cache()
    content = read_cached(path)
    if content and not cache.deserialize(content):
        LOGGER.info("TensorRT-RTX does not take %s, and compiles again", path)
    runtime_config.set_runtime_cache(cache)
    return cache


def save_runtime_cache(cache: Any, path: Path) -> None:
    """Keep what was compiled, if there is anything new."""
    content = bytes(cache.serialize())
    if content != read_cached(path):
        _write(path, content, "the next start compiles again")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)


def _write(path: Path, content: bytes, otherwise: str) -> None:
    try:
        write_cached(path, content)
    except OSError as error:
        LOGGER.warning("the cache %s cannot be written, so %s: %s", path, otherwise, error)
