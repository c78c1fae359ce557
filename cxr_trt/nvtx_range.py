"""Named ranges in a timeline of NVIDIA's Nsight Systems, which records them through the package `nvtx`.

`nsys profile cxr-trt score ...` shows them by the names `decode`, `copy`, `infer`, `wait` and `postprocess`.
"""

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

DOMAIN = "cxr-trt"


def nvtx_range(name: str) -> AbstractContextManager[Any]:
    """A range of this thread that lasts as long as the block; nothing where nvtx is not installed."""
    annotate = _annotate()
    return annotate(name, domain=DOMAIN) if annotate else contextlib.nullcontext()


@functools.cache
def _annotate() -> Callable[..., AbstractContextManager[Any]] | None:
    try:
        import nvtx
    except ImportError:
        return None
    annotate: Callable[..., AbstractContextManager[Any]] = nvtx.annotate
    return annotate
