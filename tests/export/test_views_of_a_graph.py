from dataclasses import replace

import onnx
import pytest
from cheap_engine import cheap_graph

from cxr_trt.errors import GraphError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.spec import Specification
from cxr_trt.views import CROP_VIEW_SETS, Size


@pytest.fixture(scope="module")
def graph(paper_model):
    return ScoringGraph.load(paper_model)


@pytest.mark.parametrize("view_set", CROP_VIEW_SETS)
def test_the_network_stays_and_the_views_change(graph, center_graph, view_set):
    changed = graph.with_views(view_set)
    assert changed.info == replace(graph.info, spec=Specification(views=view_set))
    assert changed.weights_sha256 == graph.weights_sha256
    back = changed.with_views("ten-crop")
    assert back.info == graph.info
    assert back.model.graph == graph.model.graph
    if view_set == "center":
        assert changed.model.graph == center_graph.model.graph  # which was made from the weights alone


def test_a_graph_without_class_maps_gets_none(graph):
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[1]
    changed = replace(graph, model=model).with_views("dense")
    assert not changed.has_class_maps
    assert [output.name for output in changed.model.graph.output] == ["probabilities"]


@pytest.mark.parametrize(
    ("sizes", "view_set", "sentence"),
    [
        ((256, 224), "dense", "smaller than the image by a multiple of 64"),
        ((224, 224), "dense", "all crops would be equal"),
        ((224, 224), "five-crop", "all crops would be equal"),
    ],
)
def test_views_that_the_sizes_do_not_allow_are_refused(graph, sizes, view_set, sentence):
    info = replace(
        graph.info,
        spec=Specification(views="center", image_size=Size.square(sizes[0]), crop_size=Size.square(sizes[1])),
    )
    with pytest.raises(GraphError, match=sentence):
        replace(graph, info=info).with_views(view_set)


def test_a_graph_with_another_network_is_refused():
    with pytest.raises(GraphError, match="leave out --views"):
        cheap_graph().with_views("ten-crop")
