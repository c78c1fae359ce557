"""A scoring graph that costs nothing: a valid one for every backend, whose scores are the picture's mean grey.

For studies of everything around the engine, in which the network would only take time.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.builder import GraphBuilder
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.spec import Specification
from cxr_trt.views import ViewSet

SPEC = Specification(views="center")


def cheap_graph(
    *,
    views: ViewSet = "center",
    findings: Sequence[str] = FINDINGS,
    class_maps: bool = True,
    fails_on_black: bool = False,
) -> ScoringGraph:
    """Logits of finding i: (i + 1) times the mean grey, 0..1, less 1; class maps: the mean of 32 x 32 pixels.

    `fails_on_black`: a picture without any white makes it read past the end of a tensor, which no backend lets pass.
    """
    count, size = len(findings), SPEC.image_size.height
    builder = GraphBuilder({})
    pixels = builder.node("Cast", ["images"], "pixels", to=TensorProto.FLOAT)
    grey = builder.node("Div", [pixels, builder.constant("white", 255.0, np.float32)], "grey")
    mean = builder.reduce_mean(grey, "mean", [2, 3])
    factors = builder.constant("factors", [[i + 1.0 for i in range(count)]], np.float32)
    shift = builder.constant("shift", [[-1.0] * count], np.float32)
    if fails_on_black:
        brightest = builder.node(
            "ReduceMax", [grey, builder.constant("all", [0, 1, 2, 3], np.int64)], "max", keepdims=0
        )
        index = builder.node("Cast", [builder.node("Ceil", [brightest], "ceil")], "index", to=TensorProto.INT64)
        last = builder.node("Sub", [builder.constant("one", 1, np.int64), index], "past")
        shift = builder.node("Gather", [shift, last], "row", axis=0)
    logits = builder.node("Add", [builder.node("Mul", [mean, factors], "scaled"), shift], "logits")
    builder.node("Sigmoid", [logits], "probabilities")
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", count])]
    if class_maps:
        cells = builder.node("AveragePool", [grey], "cells", kernel_shape=[32, 32], strides=[32, 32])
        weights = builder.constant("maps", [[[[i + 1.0]] for i in range(count)]], np.float32)
        builder.node("Mul", [cells, weights], "class_maps")
        side = size // 32
        outputs.append(helper.make_tensor_value_info("class_maps", TensorProto.FLOAT, ["N", count, side, side]))
    spec = replace(SPEC, views=views, findings=tuple(findings))
    info = GraphInfo.of_this_version(spec, "trained", "0" * 64)
    model = builder.model(
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, size, size])],
        outputs,
        [],
        {"": 18},
        info.to_metadata(),
    )
    return ScoringGraph(model, info)


def cheap_bundle(
    target: Path,
    *,
    views: ViewSet = "center",
    findings: Sequence[str] = FINDINGS,
    class_maps: bool = True,
    max_batch: int = 1,
    fails_on_black: bool = False,
    backend: str = "onnxruntime",
) -> Path:
    """Build a bundle of it at `target`; it says of itself that it has those views."""
    graph = cheap_graph(views=views, findings=findings, class_maps=class_maps, fails_on_black=fails_on_black)
    onnx.checker.check_model(graph.model, full_check=True)
    build_bundle(BuildRequest(graph, BACKENDS[backend], options=BuildOptions(max_batch)), target)
    return target
