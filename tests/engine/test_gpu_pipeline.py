"""Batches in flight, on a simulated GPU: everything but CUDA's own calls is the real code."""

import itertools
import logging
import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_gpu import SimulatedGpu, SimulatedNetwork, expected

from cxr_trt.engine.gpu.pipeline import BATCHES_IN_FLIGHT, GpuRunner, MultiGpuRunner, batch_that_fits
from cxr_trt.errors import BackendError

SIZE = 16


def opened(**options):
    gpu = SimulatedGpu(**options)
    with gpu.current():
        network = SimulatedNetwork(gpu)
    return gpu, network, GpuRunner(gpu, network)


def pictures(rng, count):
    return rng.integers(0, 256, (count, SIZE, SIZE), np.uint8)


def assert_right(outputs, images, class_maps):
    probabilities, maps = expected(images[:, None])
    np.testing.assert_allclose(outputs.probabilities, probabilities, rtol=1e-6)
    assert (outputs.class_maps is not None) == class_maps
    if class_maps:
        np.testing.assert_allclose(outputs.class_maps, maps, rtol=1e-6)


def in_turn(runner, batches):
    """Outputs in order, with as many batches in flight as may be."""
    running = []
    for batch, class_maps in batches:
        running.append((batch, class_maps, runner.submit(list(batch), class_maps)))
        if len(running) == runner.in_flight:
            yield running[0][:2], running.pop(0)[2]()
    for batch, class_maps, pending in running:
        yield (batch, class_maps), pending()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=12), st.booleans())
def test_every_batch_gets_its_own_results(batches, graphs):
    rng = np.random.default_rng(len(batches))
    gpu, _, runner = opened(latency=1e-4, graphs=graphs)
    count = 0
    for (batch, class_maps), outputs in in_turn(runner, [(pictures(rng, n), maps) for n, maps in batches]):
        assert_right(outputs, batch, class_maps)
        count += 1
    assert count == len(batches)
    runner.close()
    assert not gpu.open


def test_results_are_copies_that_later_batches_leave_alone():
    rng = np.random.default_rng(1)
    _, _, runner = opened()
    images = pictures(rng, 2)
    first = runner.submit(list(images), True)()
    for _ in range(2 * BATCHES_IN_FLIGHT):
        runner.submit(list(pictures(rng, 4)), True)()
    assert_right(first, images, True)
    runner.close()
    assert_right(first, images, True)


def test_copies_and_computations_overlap():
    rng = np.random.default_rng(2)
    gpu, _, runner = opened(latency=0.01)
    assert sum(1 for _ in in_turn(runner, [(pictures(rng, 2), False)] * 12)) == 12
    runner.close()
    busy = sorted(gpu.busy, key=lambda entry: entry[1])
    overlaps = {
        frozenset((a[0], b[0]))
        for a, b in itertools.combinations(busy, 2)
        if a[1] < b[1] < a[2] - 0.002 and a[0] != b[0]
    }
    assert overlaps == {frozenset(pair) for pair in itertools.combinations(("upload", "compute", "download"), 2)}
    computing = [entry for entry in busy if entry[0] == "compute"]
    assert all(a[2] <= b[1] for a, b in itertools.pairwise(computing))  # they share one workspace


def test_a_graph_is_captured_once_for_a_slot_and_after_a_plain_run():
    rng = np.random.default_rng(3)
    gpu, network, runner = opened()
    for _ in range(5 * BATCHES_IN_FLIGHT):
        runner.submit(list(pictures(rng, 4)), False)()
    assert gpu.calls.count("capture") == BATCHES_IN_FLIGHT
    assert gpu.calls.index("enqueue") < gpu.calls.index("capture")
    assert gpu.calls.count("launch") == 4 * BATCHES_IN_FLIGHT
    assert network.batches == [4] * 2 * BATCHES_IN_FLIGHT  # in each slot once, and once for its graph
    runner.close()
    assert not gpu.open


def test_full_batches_and_single_images_have_graphs_whatever_comes_between():
    rng = np.random.default_rng(10)
    gpu, _, runner = opened()
    sizes = [1, 4, 1, 3, 4, 2] * 4 * BATCHES_IN_FLIGHT
    for (batch, class_maps), outputs in in_turn(runner, [(pictures(rng, size), True) for size in sizes]):
        assert_right(outputs, batch, class_maps)
    assert gpu.calls.count("capture") <= 2 * BATCHES_IN_FLIGHT
    assert gpu.calls.count("context") == 1 + gpu.calls.count("capture")  # one for each graph, one for the other sizes
    assert gpu.calls.count("launch") > len(sizes) / 3
    runner.close()
    assert not gpu.open


def test_without_graphs_it_asks_once():
    rng = np.random.default_rng(4)
    gpu, _, runner = opened(graphs=False)
    for _ in range(8):
        images = pictures(rng, 4)
        assert_right(runner.submit(list(images), True)(), images, True)
    assert gpu.calls.count("capture") == 1
    runner.close()


@pytest.mark.parametrize(("name", "at"), [("capture", 1), ("capture", 2), ("context", 2), ("context", 3)])
def test_what_fails_for_a_graph_costs_the_graphs_only(name, at):
    rng = np.random.default_rng(5)
    gpu, _, runner = opened()
    gpu.fails = lambda called, number: called == name and number >= at
    for _ in range(8):
        images = pictures(rng, 4)
        assert_right(runner.submit(list(images), True)(), images, True)
    assert gpu.calls.count(name) == at
    assert gpu.calls.count("launch") == 0 if at + (name == "capture") == 2 else 1
    runner.close()


CALLS = ("upload", "record", "wait", "enqueue", "launch", "download", "event synchronize")


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fails_costs_its_batch_only(name):
    for at in range(1, 8):
        rng = np.random.default_rng(at)
        gpu, _, runner = opened(latency=1e-4, graphs=name != "enqueue")  # what fails in a capture costs no batch
        gpu.fails = lambda called, number, at=at: called == name and number == at
        failures = 0
        running = []
        for _ in range(9):
            images = pictures(rng, rng.integers(1, 5))
            try:
                running.append((images, runner.submit(list(images), True)))
            except BackendError:
                failures += 1
            if not runner.free:
                failures += collected(*running.pop(0))
        for images, pending in running:
            failures += collected(images, pending)
        assert failures == (gpu.calls.count(name) >= at), (name, at)
        assert runner.free == BATCHES_IN_FLIGHT
        runner.close()
        assert not gpu.open


def collected(images, pending):
    try:
        outputs = pending()
    except BackendError:
        return 1
    assert_right(outputs, images, True)
    return 0


@pytest.mark.parametrize("name", ["memory", "device_block", "host_block", "context", "stream", "event"])
def test_what_fails_while_opening_leaves_nothing_behind(name):
    for at in range(1, 10):
        gpu = SimulatedGpu()
        with gpu.current():
            network = SimulatedNetwork(gpu)
        gpu.fails = lambda called, number, at=at: called == name and number == at
        try:
            runner = GpuRunner(gpu, network)
        except BackendError:
            pass
        else:
            assert gpu.calls.count(name) < at
            runner.close()
        assert not gpu.open


def test_closing_waits_for_what_is_in_flight():
    rng = np.random.default_rng(6)
    for submitted in range(BATCHES_IN_FLIGHT + 1):
        gpu, _, runner = opened(latency=0.005)
        for _ in range(submitted):
            runner.submit(list(pictures(rng, 3)), True)
        runner.close()  # SimulatedStream.close fails if a copy found its memory gone
        assert not gpu.open
        assert len(gpu.busy) == 4 * submitted  # up, compute, and down twice


def test_what_cannot_be_taken_is_refused_and_costs_no_slot():
    rng = np.random.default_rng(7)
    _, _, runner = opened()
    for wrong in (pictures(rng, 0), pictures(rng, 5), pictures(rng, 2)[:, :8], pictures(rng, 2).astype(np.float32)):
        with pytest.raises(BackendError, match=r"the engine takes uint8 \[1 to 4, 1, 16, 16\], not"):
            runner.submit(list(wrong), False)
    waiting = [runner.submit(list(pictures(rng, 1)), False) for _ in range(BATCHES_IN_FLIGHT)]
    with pytest.raises(BackendError, match="3 batches are in flight; collect one"):
        runner.submit(list(pictures(rng, 1)), False)
    for pending in waiting:
        pending()
    assert runner.free == BATCHES_IN_FLIGHT
    runner.close()


def test_the_batch_is_halved_until_it_fits(caplog):
    gpu = SimulatedGpu()
    with gpu.current():
        network = SimulatedNetwork(gpu, max_batch=64, workspace=10_000)
    image, probabilities, maps = SIZE * SIZE, 14 * 4, 14 * 9 * 4

    def needed(batch):
        tensors = sum(-(-batch * size // 256) * 256 for size in (image, probabilities, maps))
        return 3 * tensors + batch * 10_000

    with caplog.at_level(logging.WARNING, logger="cxr_trt.engine.gpu.pipeline"):  # others may have set the root's level
        for batch in (64, 32, 16, 8, 4, 2, 1):
            assert batch_that_fits(network, int(needed(batch) / 0.9) + 1) == batch
            assert batch_that_fits(network, int(needed(batch) / 0.9) - 1) == max(batch // 2, 1)
    assert "at most 32 X-rays instead of 64" in caplog.text


def test_too_little_memory_for_one_image_is_one_sentence():
    gpu = SimulatedGpu(free=2000)
    with gpu.current():
        network = SimulatedNetwork(gpu)
    with pytest.raises(BackendError, match="build with a lower --max-batch"):
        GpuRunner(gpu, network)
    assert not gpu.open


def test_several_gpus_share_the_batches_and_keep_the_order():
    rng = np.random.default_rng(8)
    fast, slow = opened(latency=0.001), opened(latency=0.004)
    runner = MultiGpuRunner([fast[2], slow[2]])
    assert (runner.max_batch, runner.in_flight, runner.has_class_maps) == (4, 2 * BATCHES_IN_FLIGHT, True)
    for (images, class_maps), outputs in in_turn(runner, [(pictures(rng, 3), True) for _ in range(30)]):
        assert_right(outputs, images, class_maps)
    runner.close()
    assert min(gpu.calls.count("upload") for gpu, _, _ in (fast, slow)) >= 5
    assert not fast[0].open
    assert not slow[0].open


def test_no_thread_is_left():
    before = threading.active_count()
    _, _, runner = opened()
    runner.submit(list(pictures(np.random.default_rng(9), 1)), False)()
    runner.close()
    assert threading.active_count() == before


def test_random_use_with_random_failures():
    """Whatever fails whenever: right results or an error, and nothing is left open."""
    for seed in range(40):
        chance, rng = random.Random(seed), np.random.default_rng(seed)
        gpu, _, runner = opened(latency=1e-5)
        gpu.fails = lambda name, number, chance=chance: name in CALLS and chance.random() < 0.03
        running = []
        for _ in range(25):
            if running and (not runner.free or chance.random() < 0.4):
                collected(*running.pop(chance.randrange(len(running))))
            images = pictures(rng, chance.randint(1, 4))
            try:
                running.append((images, runner.submit(list(images), True)))
            except BackendError:
                continue
        gpu.fails = lambda name, number: False
        runner.close()
        assert not gpu.open
