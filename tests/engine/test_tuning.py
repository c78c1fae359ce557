import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
from cheap_engine import SPEC, cheap_graph

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu import onnxruntime as onnxruntime_backend
from cxr_trt.engine.cpu import openvino as openvino_backend
from cxr_trt.engine.cpu import tuning
from cxr_trt.engine.cpu.config import CpuConfig
from cxr_trt.engine.cpu.tuning import cpu_configs
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.engine.timing import fastest
from cxr_trt.errors import BackendError
from cxr_trt.processors import cores, processors
from cxr_trt.score.engine import Engine

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
    assert [(config.streams, config.max_batch) for config in cpu_configs(max_batch)] == expected


def test_a_core_counts_once_however_many_processors_it_has(monkeypatch, tmp_path):
    """Linux's files, of four cores with two logical processors each; this process may use three and a half of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 4, 5, 6, 7})
    assert cores(tmp_path) == 7
    for number in range(8):
        folder = tmp_path / "sys" / "devices" / "system" / "cpu" / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    assert cores(tmp_path) == 4


def test_another_configuration_must_be_clearly_faster():
    assert fastest({"1 x 1": 1.0, "1 x 2": 0.97, "2 x 1": 0.96}) == "1 x 1"
    assert fastest({"1 x 1": 1.0, "1 x 2": 0.97, "2 x 1": 0.90}) == "2 x 1"
    assert fastest({"1 x 1": 1.0, "1 x 2": 1.5}) == "1 x 1"


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture(scope="module")
def graph():
    return cheap_graph()


@pytest.mark.parametrize("threads_a_core", [1, 2])
def test_the_manifest_says_what_was_timed_and_what_was_chosen(backend, graph, tmp_path, monkeypatch, threads_a_core):
    monkeypatch.setattr(tuning, "processors", lambda: threads_a_core * tuning.cores())
    phases = []
    options = BuildOptions(on_progress=lambda phase, fraction: phases.append((phase, fraction)))
    configs = CpuConfig(1, 1), CpuConfig(1, 2), CpuConfig(2, 2)
    request = BuildRequest(graph, backend, options=options, cpu_configs=configs)
    settings = build_bundle(request, tmp_path / "e.cxr").settings
    expected = {"streams x X-rays in each": ["1 x 1", "1 x 2", "2 x 1"]}
    if threads_a_core == 2:
        expected["a thread for"] = ["each core", "each logical processor"]
    if backend.layouts:
        expected["layout"] = ["reordered", "nchw"]
    assert {what: list(timed) for what, timed in settings["tuning"].items()} == expected
    assert all(0 < seconds < 10 for timed in settings["tuning"].values() for seconds in timed.values())
    config = CpuConfig.from_settings(settings)
    assert config[:2] in {(1, 1), (1, 2), (2, 2)}
    not_reordered = bool(backend.layouts) and fastest(settings["tuning"]["layout"]) == "nchw"
    assert config.layout == ("nchw" if not_reordered else "")
    assert ("layout" in settings) == not_reordered  # what is as by default is no part of the engine's fingerprint
    a_thread_each = threads_a_core == 2 and fastest(settings["tuning"]["a thread for"]) == "each logical processor"
    assert (config.hyper_threading, "hyper_threading" in settings) == (a_thread_each, a_thread_each)
    shown = [*(f"time {what}" for what in expected), "compare with the scoring graph"]
    for fraction in (0.0, 1.0):  # a phase is named before its work begins, not after its first part
        assert [phase for phase, done in phases if done == fraction][-len(shown) :] == shown
    with Engine(tmp_path / "e.cxr") as engine:
        assert engine.max_batch == settings["max_batch"]


def different_images(count):
    """[count, 512, 512]."""
    images = np.random.default_rng(0).integers(0, 256, (count, 512, 512), np.uint8)
    return images // np.arange(1, count + 1, dtype=np.uint8)[:, None, None]


@pytest.mark.parametrize(
    "config",
    [
        CpuConfig(1, 1),
        CpuConfig(1, 3),
        CpuConfig(2, 2),
        CpuConfig(2, 5),
        CpuConfig(3, 3),
        CpuConfig(4, 4),
        CpuConfig(1, 2, hyper_threading=True),
        CpuConfig(2, 2, hyper_threading=True),
        CpuConfig(1, 2, layout="nchw"),
        CpuConfig(2, 2, layout="nchw"),
    ],
)
def test_no_configuration_changes_a_result_or_the_order(backend, graph, tmp_path, config):
    settings = backend.build(graph.model, tmp_path, BuildOptions(config.max_batch))
    images = different_images(config.max_batch)
    one_by_one = backend.open(tmp_path, SPEC, {**settings, "max_batch": 1})
    expected = [one_by_one.submit([image], class_maps=True)() for image in images]
    one_by_one.close()
    for counts in (range(1, config.max_batch + 1), range(config.max_batch, 0, -1)):
        runner = backend.open(tmp_path, SPEC, {**settings, **config._asdict()})
        for count in counts:
            found = runner.submit(list(images[:count]), class_maps=True)()
            for i in range(count):
                np.testing.assert_allclose(found.probabilities[i], expected[i].probabilities[0], atol=1e-6)
                np.testing.assert_allclose(found.class_maps[i], expected[i].class_maps[0], atol=1e-5)
            assert runner.submit(list(images[:count]), class_maps=False)().class_maps is None
        runner.close()


@pytest.mark.parametrize(
    ("config", "counts", "compiled"),
    [
        (CpuConfig(2, 2), [1, 1], [(1, 1)]),  # an X-ray alone has all processors
        (CpuConfig(2, 2), [2, 2, 1, 2], [(2, 1)]),  # the end of a folder is not worth compiling for
        (CpuConfig(2, 2), [2, 2, 1, 1], [(2, 1), (1, 1)]),
        (CpuConfig(2, 2), [1, 2, 1], [(1, 1), (2, 1)]),
        (CpuConfig(4, 10), [2, 10, 2], [(1, 2), (4, 3)]),
        (CpuConfig(4, 10), [3], [(4, 3)]),  # more than half of the streams are busy
        (CpuConfig(1, 3), [1, 3], [(1, 3)]),
    ],
)
def test_few_xrays_run_on_one_stream(backend, graph, tmp_path, monkeypatch, config, counts, compiled):
    settings = backend.build(graph.model, tmp_path, BuildOptions(config.max_batch))
    runner = backend.open(tmp_path, SPEC, {**settings, **config._asdict()})
    found, compile_really = [], runner.compile
    monkeypatch.setattr(
        runner,
        "compile",
        lambda streams, largest_part: found.append((streams, largest_part)) or compile_really(streams, largest_part),
    )
    for count in counts:
        assert len(runner.submit(list(different_images(count)), class_maps=False)().probabilities) == count
    runner.close()
    assert found == compiled


def compiled_with(graph, tmp_path, name, config):
    """What a stream of an engine runs on: a session of ONNX Runtime, or a compiled model of OpenVINO."""
    backend = BACKENDS[name]
    settings = backend.build(graph.model, tmp_path, BuildOptions(config.max_batch))
    runner = backend.open(tmp_path, SPEC, {**settings, **config._asdict()})
    return runner.compile(config.streams, 1).args[0]


@pytest.mark.parametrize(
    ("config", "threads"),
    [
        (CpuConfig(1, 1), 0),
        (CpuConfig(2, 2), 2),
        (CpuConfig(1, 1, hyper_threading=True), 8),
        (CpuConfig(2, 2, True), 4),
    ],
)
def test_threads_of_onnxruntime(graph, tmp_path, monkeypatch, config, threads):
    """Four cores, eight logical processors; 0 is a thread for each core, which ONNX Runtime keeps there."""
    monkeypatch.setattr(onnxruntime_backend, "cores", lambda: 4)
    monkeypatch.setattr(onnxruntime_backend, "processors", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    sessions = compiled_with(graph, tmp_path, "onnxruntime", config)
    assert [session.get_session_options().intra_op_num_threads for session in sessions] == [threads] * config.streams


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_openvino_keeps_to_a_quota(graph, tmp_path, monkeypatch):
    """Of one processor, where the affinity has more."""
    for name in ("processors", "cores"):
        monkeypatch.setattr(openvino_backend, name, lambda: 1)
    (request,) = compiled_with(graph, tmp_path, "openvino", CpuConfig(1, 1))
    assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == 1


def test_onnxruntime_keeps_to_the_processors_that_it_may_use(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: len(os.sched_getaffinity(0)) + 1)
    (session,) = compiled_with(graph, tmp_path, "onnxruntime", CpuConfig(1, 1))
    assert session.get_session_options().intra_op_num_threads == cores()


@pytest.mark.parametrize(("layout", "level"), [("", 99), ("reordered", 99), ("nchw", 2)])
def test_layout_of_onnxruntime(graph, tmp_path, layout, level):
    """Feature maps are reordered by the rewrites of the level ORT_ENABLE_ALL, 99, beyond ORT_ENABLE_EXTENDED, 2."""
    (session,) = compiled_with(graph, tmp_path, "onnxruntime", CpuConfig(1, 1, layout=layout))
    assert int(session.get_session_options().graph_optimization_level) == level


@pytest.mark.parametrize(
    ("config", "threads"),
    [(CpuConfig(1, 1), cores()), (CpuConfig(2, 2), cores()), (CpuConfig(1, 1, hyper_threading=True), 1)],
)
def test_streams_and_threads_of_openvino(graph, tmp_path, monkeypatch, config, threads):
    """As if there were one logical processor: OpenVINO takes no more threads than there are."""
    monkeypatch.setattr(openvino_backend, "processors", lambda: 1 if config.hyper_threading else processors())
    requests = compiled_with(graph, tmp_path, "openvino", config)
    compiled = requests[0].get_compiled_model()
    assert len(requests) == compiled.get_property("NUM_STREAMS") == config.streams
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads


def test_an_engine_goes_on_after_a_part_that_failed(backend, center_graph, tmp_path):
    """With a network, whose first part still runs when the second has failed."""
    settings = backend.build(center_graph.model, tmp_path, BuildOptions(2))
    runner = backend.open(tmp_path, SPEC, {**settings, **CpuConfig(2, 2)._asdict()})
    run = runner.compile(2, 1)
    good, bad = different_images(1)[None], np.zeros((1, 1, 100, 512), np.uint8)
    with pytest.raises(BackendError, match="failed"):
        run([good, bad], ["probabilities"])
    first, second = run([good, good], ["probabilities"])
    np.testing.assert_array_equal(first, second)
    runner.close()


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_an_open_engine_stays_what_it_is_when_its_bundle_is_replaced(graph, tmp_path, name):
    """Its other form, for an X-ray alone, is compiled after that."""
    bundle, images, other = tmp_path / "e.cxr", different_images(2), cheap_graph()
    request = BuildRequest(graph, BACKENDS[name], options=BuildOptions(2), cpu_configs=(CpuConfig(2, 2),))
    (shift,) = [tensor for tensor in other.model.graph.initializer if tensor.name == "shift"]
    shift.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 14), np.float32), "shift"))
    build_bundle(request, bundle)
    with Engine(bundle) as engine:
        before = engine.run(images).probabilities
        build_bundle(replace(request, graph=other), bundle, overwrite=True)
        for _ in range(2):
            alone = engine.run(images[:1]).probabilities
        np.testing.assert_allclose(alone[0], before[0], atol=1e-6)
    with Engine(bundle) as engine:
        assert np.abs(engine.run(images).probabilities - before).max() > 1e-3


def test_a_layout_of_another_version_is_refused(backend):
    assert "the layout 'blocked', which" in backend.why_not_open({"max_batch": 1, "layout": "blocked"})
    assert backend.why_not_open({"max_batch": 1}) is None


def test_what_was_written_badly_is_one_sentence(backend, graph, tmp_path):
    settings = backend.build(graph.model, tmp_path, BuildOptions(1))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BackendError, match="cannot load"):
        backend.open(tmp_path, SPEC, settings).submit(list(different_images(1)), class_maps=False)
