import os

import numpy as np
import pytest
from cheap_engine import SPEC, cheap_model

from cxr_trt.engine.backend import BuildOptions, Way
from cxr_trt.engine.bundle import Engine, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.engine.tuning import choose, ways
from cxr_trt.export.graph_file import GraphInfo

CPU_BACKENDS = ("onnxruntime", "openvino")


@pytest.mark.parametrize(
    ("processors", "max_batch", "expected"),
    [
        (1, None, [(1, 1), (1, 2)]),
        (2, None, [(1, 1), (1, 2), (2, 2)]),
        (6, None, [(1, 1), (1, 2), (2, 2), (3, 3), (6, 6)]),
        (64, None, [(1, 1), (1, 2), (2, 2), (4, 4), (8, 8)]),
        (4, 1, [(1, 1)]),
        (4, 6, [(1, 6), (2, 6)]),
    ],
)
def test_streams_divide_processors_and_batch(monkeypatch, processors, max_batch, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    assert ways(max_batch) == expected


def test_another_way_must_be_worth_it():
    one, two, three = Way(1, 1), Way(1, 2), Way(2, 2)
    assert choose({one: 1.0, two: 0.97, three: 0.96}) == one
    assert choose({one: 1.0, two: 0.97, three: 0.90}) == three
    assert choose({one: 1.0, two: 1.5}) == one


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture(scope="module")
def model():
    return cheap_model()


def test_the_manifest_says_what_was_timed_and_what_was_chosen(backend, model, tmp_path):
    phases = []
    options = BuildOptions(
        1, lambda phase, fraction: phases.append((phase, fraction)), ways=(Way(1, 1), Way(1, 2), Way(2, 2))
    )
    info = GraphInfo.of(SPEC, "trained", "0" * 64)
    settings = build_bundle(model, info, backend, tmp_path / "e.cxr", options, overwrite=False).settings
    assert list(settings["tuning"]) == ["1 x 1", "1 x 2", "2 x 1"]
    assert all(0 < seconds < 10 for seconds in settings["tuning"].values())
    assert (settings["streams"], settings["max_batch"]) in {(1, 1), (1, 2), (2, 2)}
    assert phases[-1] == ("tune", 1.0)
    with Engine(tmp_path / "e.cxr") as engine:
        assert engine.max_batch == settings["max_batch"]


@pytest.mark.parametrize(("streams", "max_batch"), [(1, 1), (1, 3), (2, 2), (2, 5), (3, 3)])
def test_streams_change_no_result_and_no_order(backend, model, tmp_path, streams, max_batch):
    settings = backend.build(model, tmp_path, BuildOptions(max_batch, lambda phase, fraction: None))
    images = np.random.default_rng(0).integers(0, 256, (max_batch, 1, 512, 512), np.uint8)
    images //= np.arange(1, max_batch + 1, dtype=np.uint8)[:, None, None, None]  # each its own mean
    runner = backend.open(tmp_path, SPEC, {**settings, "streams": streams})
    one_by_one = backend.open(tmp_path, SPEC, {**settings, "max_batch": 1})
    expected = [one_by_one.run(image[None], class_maps=True) for image in images]
    for count in range(1, max_batch + 1):
        found = runner.run(images[:count], class_maps=True)
        for i in range(count):
            np.testing.assert_allclose(found.probabilities[i], expected[i].probabilities[0], atol=1e-6)
            np.testing.assert_allclose(found.class_maps[i], expected[i].class_maps[0], atol=1e-5)
        assert runner.run(images[:count], class_maps=False).class_maps is None
    runner.close()
    one_by_one.close()
