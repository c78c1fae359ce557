"""What a notebook needs.

from cxr_trt.api import Engine, find_files, preprocess, score

with Engine("demo.cxr") as engine:
    for result in score(engine, find_files(["xrays/"]).sources, class_maps=True):
        print(result.row.path, result.row.probabilities)       # result.class_maps: float32 [14, h, w]
    outputs = engine.run(preprocess(array, 512)[None])         # array: float32 [H, W], 0 black to 255 white
"""

from cxr_trt.engine.backend import Outputs
from cxr_trt.engine.bundle import Engine
from cxr_trt.findings import FINDINGS
from cxr_trt.images import decode
from cxr_trt.preprocess import preprocess
from cxr_trt.score.files import find_files
from cxr_trt.score.pipeline import Result, score
from cxr_trt.score.rows import Row

__all__ = ["FINDINGS", "Engine", "Outputs", "Result", "Row", "decode", "find_files", "preprocess", "score"]
