"""The demonstration networks that come with the package, by their names."""

from pathlib import Path

import pytest

from cxr_trt.commands.sources import SHIPPED, load_source


@pytest.mark.parametrize(("name", "sizes"), [("paper", (512, 448)), ("edge", (288, 256))])
def test_a_shipped_network_is_found_by_its_name(name, sizes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = load_source(Path(name), None, None).graph
    assert graph.info.weights == "demonstration"
    assert (graph.spec.image_size.height, graph.spec.crop_size.height) == sizes
    assert graph.spec.views == "ten-crop"
    assert SHIPPED[name].stat().st_size < 18e6
