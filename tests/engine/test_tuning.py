import os

import numpy as np
import onnx
import pytest
from cheap_engine import SPEC, cheap_model

from cxr_trt.engine.cpu import onnxruntime as onnxruntime_backend
from cxr_trt.engine.cpu import openvino as openvino_backend
from cxr_trt.engine.cpu import tuning
from cxr_trt.engine.backend import BuildOptions, Way
from cxr_trt.score.engine import Engine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.engine.cpu.streams import cores
from cxr_trt.engine.cpu.tuning import choose, ways
from cxr_trt.errors import BackendError
from cxr_trt.export.scoring_graph import GraphInfo

CPU_BACKENDS = ("onnxruntime", "openvino")


@pytest.mark.parametrize(
    ("here", "max_batch", "expected"),
    [
        (1, None, [(1, 1), (1, 2)]),
        (2, None, [(1, 1), (1, 2), (2, 2)]),
        (6, None, [(1, 1), (1, 2), (2, 2), (3, 3), (6, 6)]),
        (64, None, [(1, 1), (1, 2), (2, 2), (4, 4), (8, 8)]),
        (4, 1, [(1, 1)]),
        (4, 6, [(1, 6), (2, 6)]),
    ],
)
def test_streams_divide_cores_and_batch(monkeypatch, here, max_batch, expected):
    monkeypatch.setattr(tuning, "cores", lambda: here)
    assert [(way.streams, way.max_batch) for way in ways(max_batch)] == expected


def test_a_core_counts_once_however_many_processors_it_has(monkeypatch, tmp_path):
    """Linux's files, of four cores with two logical processors each; this process may use three and a half of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 4, 5, 6, 7})
    assert cores(tmp_path) == 7
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    assert cores(tmp_path) == 4


def test_another_way_must_be_worth_it():
    assert choose({"1 x 1": 1.0, "1 x 2": 0.97, "2 x 1": 0.96}) == "1 x 1"
    assert choose({"1 x 1": 1.0, "1 x 2": 0.97, "2 x 1": 0.90}) == "2 x 1"
    assert choose({"1 x 1": 1.0, "1 x 2": 1.5}) == "1 x 1"


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture(scope="module")
def model():
    return cheap_model()


@pytest.mark.parametrize("threads_a_core", [1, 2])
def test_the_manifest_says_what_was_timed_and_what_was_chosen(backend, model, tmp_path, monkeypatch, threads_a_core):
    monkeypatch.setattr(tuning, "processors", lambda: threads_a_core * tuning.cores())
    phases = []
    options = BuildOptions(
        1, lambda phase, fraction: phases.append((phase, fraction)), ways=(Way(1, 1), Way(1, 2), Way(2, 2))
    )
    info = GraphInfo.of(SPEC, "trained", "0" * 64)
    settings = build_bundle(model, info, backend, tmp_path / "e.cxr", options, overwrite=False).settings
    expected = {"streams x X-rays in each": ["1 x 1", "1 x 2", "2 x 1"]}
    if threads_a_core == 2:
        expected["a thread for"] = ["each core", "each logical processor"]
    if backend.layouts:
        expected["layout"] = ["reordered", "nchw"]
    assert {what: list(timed) for what, timed in settings["tuning"].items()} == expected
    assert all(0 < seconds < 10 for timed in settings["tuning"].values() for seconds in timed.values())
    way = Way.of(settings)
    assert way[:2] in {(1, 1), (1, 2), (2, 2)}
    not_reordered = bool(backend.layouts) and choose(settings["tuning"]["layout"]) == "nchw"
    assert way.layout == ("nchw" if not_reordered else "")
    assert ("layout" in settings) == not_reordered  # what is as by default is no part of the engine's fingerprint
    a_thread_each = threads_a_core == 2 and choose(settings["tuning"]["a thread for"]) == "each logical processor"
    assert (way.hyper_threading, "hyper_threading" in settings) == (a_thread_each, a_thread_each)
    assert [phase for phase, fraction in phases if fraction == 1.0][-len(expected) :] == [
        f"time {what}" for what in expected
    ]
    with Engine(tmp_path / "e.cxr") as engine:
        assert engine.max_batch == settings["max_batch"]


def picture_each_its_own(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 512, 512), np.uint8)
    return images // np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]


@pytest.mark.parametrize(
    "way",
    [
        Way(1, 1),
        Way(1, 3),
        Way(2, 2),
        Way(2, 5),
        Way(3, 3),
        Way(4, 4),
        Way(1, 2, hyper_threading=True),
        Way(2, 2, hyper_threading=True),
        Way(1, 2, layout="nchw"),
        Way(2, 2, layout="nchw"),
    ],
)
def test_no_way_changes_a_result_or_the_order(backend, model, tmp_path, way):
    settings = backend.build(model, tmp_path, BuildOptions(way.max_batch, lambda phase, fraction: None))
    images = picture_each_its_own(way.max_batch)
    one_by_one = backend.open(tmp_path, SPEC, {**settings, "max_batch": 1})
    expected = [one_by_one.run(image[None], class_maps=True) for image in images]
    one_by_one.close()
    for counts in (range(1, way.max_batch + 1), range(way.max_batch, 0, -1)):
        runner = backend.open(tmp_path, SPEC, {**settings, **way._asdict()})
        for count in counts:
            found = runner.run(images[:count], class_maps=True)
            for i in range(count):
                np.testing.assert_allclose(found.probabilities[i], expected[i].probabilities[0], atol=1e-6)
                np.testing.assert_allclose(found.class_maps[i], expected[i].class_maps[0], atol=1e-5)
            assert runner.run(images[:count], class_maps=False).class_maps is None
        runner.close()


@pytest.mark.parametrize(
    ("way", "counts", "compiled"),
    [
        (Way(2, 2), [1, 1], [(1, 1)]),  # an X-ray alone has all processors
        (Way(2, 2), [2, 2, 1, 2], [(2, 1)]),  # the end of a folder is not worth compiling for
        (Way(2, 2), [2, 2, 1, 1], [(2, 1), (1, 1)]),
        (Way(2, 2), [1, 2, 1], [(1, 1), (2, 1)]),
        (Way(4, 10), [2, 10, 2], [(1, 2), (4, 3)]),
        (Way(4, 10), [3], [(4, 3)]),  # more than half of the streams are busy
        (Way(1, 3), [1, 3], [(1, 3)]),
    ],
)
def test_few_xrays_run_on_one_stream(backend, model, tmp_path, monkeypatch, way, counts, compiled):
    settings = backend.build(model, tmp_path, BuildOptions(way.max_batch, lambda phase, fraction: None))
    runner = backend.open(tmp_path, SPEC, {**settings, **way._asdict()})
    found, compile_really = [], runner.compile
    monkeypatch.setattr(
        runner,
        "compile",
        lambda streams, largest_part: found.append((streams, largest_part)) or compile_really(streams, largest_part),
    )
    for count in counts:
        assert len(runner.run(picture_each_its_own(count), class_maps=False).probabilities) == count
    runner.close()
    assert found == compiled


def compiled_with(model, tmp_path, name, way):
    """What a stream of an engine runs on: a session of ONNX Runtime, or a compiled model of OpenVINO."""
    backend = BACKENDS[name]
    settings = backend.build(model, tmp_path, BuildOptions(way.max_batch, lambda phase, fraction: None))
    runner = backend.open(tmp_path, SPEC, {**settings, **way._asdict()})
    return runner.compile(way.streams, 1).args[0]


@pytest.mark.parametrize(
    ("way", "threads"), [(Way(1, 1), 0), (Way(2, 2), 2), (Way(1, 1, hyper_threading=True), 8), (Way(2, 2, True), 4)]
)
def test_threads_of_onnxruntime(model, tmp_path, monkeypatch, way, threads):
    """Four cores, eight logical processors; 0 is a thread for each core, which ONNX Runtime keeps there."""
    monkeypatch.setattr(onnxruntime_backend, "cores", lambda: 4)
    monkeypatch.setattr(onnxruntime_backend, "processors", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    sessions = compiled_with(model, tmp_path, "onnxruntime", way)
    assert [session.get_session_options().intra_op_num_threads for session in sessions] == [threads] * way.streams


def test_onnxruntime_keeps_to_the_processors_that_it_may_use(model, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: len(os.sched_getaffinity(0)) + 1)
    (session,) = compiled_with(model, tmp_path, "onnxruntime", Way(1, 1))
    assert session.get_session_options().intra_op_num_threads == cores()


@pytest.mark.parametrize(("layout", "level"), [("", 99), ("reordered", 99), ("nchw", 2)])
def test_layout_of_onnxruntime(model, tmp_path, layout, level):
    """Feature maps are reordered by the rewrites of the level ORT_ENABLE_ALL, 99, beyond ORT_ENABLE_EXTENDED, 2."""
    (session,) = compiled_with(model, tmp_path, "onnxruntime", Way(1, 1, layout=layout))
    assert int(session.get_session_options().graph_optimization_level) == level


@pytest.mark.parametrize(
    ("way", "threads"), [(Way(1, 1), cores()), (Way(2, 2), cores()), (Way(1, 1, hyper_threading=True), 1)]
)
def test_streams_and_threads_of_openvino(model, tmp_path, monkeypatch, way, threads):
    """As if there were one logical processor: OpenVINO takes no more threads than there are."""
    monkeypatch.setattr(openvino_backend, "processors", lambda: 1)
    requests = compiled_with(model, tmp_path, "openvino", way)
    compiled = requests[0].get_compiled_model()
    assert len(requests) == compiled.get_property("NUM_STREAMS") == way.streams
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads


def test_an_engine_goes_on_after_a_part_that_failed(backend, center_model, tmp_path):
    """With a network, whose first part still runs when the second has failed."""
    settings = backend.build(center_model, tmp_path, BuildOptions(2))
    runner = backend.open(tmp_path, SPEC, {**settings, **Way(2, 2)._asdict()})
    run = runner.compile(2, 1)
    good, bad = picture_each_its_own(1), np.zeros((1, 1, 100, 512), np.uint8)
    with pytest.raises(BackendError, match="failed"):
        run([good, bad], ["probabilities"])
    first, second = run([good, good], ["probabilities"])
    np.testing.assert_array_equal(first, second)
    runner.close()


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_an_open_engine_stays_what_it_is_when_its_bundle_is_replaced(model, tmp_path, name):
    """Its other form, for an X-ray alone, is compiled after that."""
    bundle, info = tmp_path / "e.cxr", GraphInfo.of(SPEC, "trained", "0" * 64)
    options = BuildOptions(2, lambda phase, fraction: None, ways=(Way(2, 2),))
    images = picture_each_its_own(2)
    other = cheap_model()
    (shift,) = [tensor for tensor in other.graph.initializer if tensor.name == "shift"]
    shift.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 14), np.float32), "shift"))
    build_bundle(model, info, BACKENDS[name], bundle, options, overwrite=False)
    with Engine(bundle) as engine:
        before = engine.run(images).probabilities
        build_bundle(other, info, BACKENDS[name], bundle, options, overwrite=True)
        for _ in range(2):
            alone = engine.run(images[:1]).probabilities
        np.testing.assert_allclose(alone[0], before[0], atol=1e-6)
    with Engine(bundle) as engine:
        assert np.abs(engine.run(images).probabilities - before).max() > 1e-3


def test_a_layout_of_another_version_is_refused(backend):
    assert "unknown layout 'blocked'" in backend.why_not_open({"max_batch": 1, "layout": "blocked"})
    assert backend.why_not_open({"max_batch": 1}) is None


def test_what_was_written_badly_is_one_sentence(backend, model, tmp_path):
    settings = backend.build(model, tmp_path, BuildOptions(1))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BackendError, match="cannot load"):
        backend.open(tmp_path, SPEC, settings).run(picture_each_its_own(1), class_maps=False)
