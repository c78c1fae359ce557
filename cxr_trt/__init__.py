"""Scores chest X-rays for the findings of a network. Research use only; not a medical device.

    import cxr_trt

    for row in cxr_trt.Engine("mine.cxr").score("xrays/"):
        print(row.path, row.error or row.probabilities)

Every name comes from `cxr_trt.api`, which is imported when one of them is first used.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cxr_trt.errors import BackendError
from cxr_trt.platforms import why_not_here

if TYPE_CHECKING:
    from cxr_trt.api import Engine, Outputs, Result, Row, Score, Scores, decode, find_files, preprocess, score_files

__all__ = ["Engine", "Outputs", "Result", "Row", "Score", "Scores", "decode", "find_files", "preprocess", "score_files"]

# Without these settings, ONNX Runtime reports its use to Microsoft, and OpenVINO to Google Analytics. Both read them
# when they are imported, which is after this module.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if reason := why_not_here():
        raise BackendError(reason)
    return getattr(import_module("cxr_trt.api"), name)
