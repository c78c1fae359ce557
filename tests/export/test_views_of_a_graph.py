from dataclasses import replace

import pytest
from cheap_engine import SPEC, cheap_model

from cxr_trt.errors import GraphError
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.spec import Specification
from cxr_trt.views import VIEW_SETS


@pytest.mark.parametrize("view_set", VIEW_SETS)
def test_the_network_stays_and_the_views_change(demo_model, center_model, view_set):
    model, info = read_scoring_graph(demo_model)
    changed, changed_info = with_views(model, info, view_set)
    assert changed_info == replace(info, spec=Specification(views=view_set))
    back, back_info = with_views(changed, changed_info, "ten-crop")
    assert back_info == info
    assert back.graph == model.graph
    if view_set == "center":
        assert changed.graph == center_model.graph  # which was made from the weights alone


def test_a_graph_without_class_maps_gets_none(demo_model):
    model, info = read_scoring_graph(demo_model)
    del model.graph.output[1]
    changed, _ = with_views(model, info, "dense")
    assert [output.name for output in changed.graph.output] == ["probabilities"]


@pytest.mark.parametrize(
    ("sizes", "view_set", "sentence"),
    [
        ((256, 224), "dense", "smaller than the image by a multiple of 64"),
        ((224, 224), "dense", "all crops would be equal"),
        ((224, 224), "five-crop", "all crops would be equal"),
    ],
)
def test_views_that_the_sizes_do_not_allow_are_refused(demo_model, sizes, view_set, sentence):
    model, info = read_scoring_graph(demo_model)
    info = replace(info, spec=Specification(views="center", image_size=sizes[0], crop_size=sizes[1]))
    with pytest.raises(GraphError, match=sentence):
        with_views(model, info, view_set)


def test_a_graph_with_another_network_is_refused():
    info = GraphInfo.of(SPEC, "trained", "0" * 64)
    with pytest.raises(GraphError, match="leave --views out"):
        with_views(cheap_model(), info, "ten-crop")
