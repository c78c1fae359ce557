"""The Python API; `import cxr_trt` offers the same names.

    import cxr_trt

    with cxr_trt.Engine("mine.cxr") as engine:
        for row in engine.score("xrays/"):
            print(row.path, row.error or row.probabilities)
        for result in cxr_trt.score_files(engine, cxr_trt.find_files("xrays/").sources, class_maps=True):
            print(result.row.path, result.class_maps)                  # float32 [findings, h, w]
        outputs = engine.run(engine.preprocess(array))                  # array: [H, W], 0 black to 255 white

docs/reference/python.md has more examples.
"""

from cxr_trt.engine.backend import Outputs
from cxr_trt.images import decode
from cxr_trt.images.files import find_files
from cxr_trt.images.preprocess import preprocess
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import Result, score_files
from cxr_trt.score.scores import Score, Scores
from cxr_trt.tables.rows import Row

__all__ = ["Engine", "Outputs", "Result", "Row", "Score", "Scores", "decode", "find_files", "preprocess", "score_files"]
