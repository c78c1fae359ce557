"""The scoring core over an engine with several batches in flight: a simulated GPU under the real runner."""

import cv2
import numpy as np
import pytest
from simulated_gpu import SimulatedGpu, SimulatedNetwork, expected

from cxr_trt.api import find_files, score_files
from cxr_trt.engine.gpu.pipeline import BATCHES_IN_FLIGHT, GpuRunner
from cxr_trt.errors import BackendError
from cxr_trt.spec import Specification

FILES = 23


class SimulatedEngine:
    """A `ScoringEngine` on the simulated GPU, which needs no bundle."""

    spec, fingerprint, warnings = Specification(), "simulated", ()

    def __init__(self, latency=0.001, max_batch=2):
        self.gpu = SimulatedGpu(latency=latency)
        with self.gpu.current():
            network = SimulatedNetwork(self.gpu, max_batch=max_batch, size=512)
        self.runner = GpuRunner(self.gpu, network)
        self.max_batch, self.in_flight = self.runner.max_batch, self.runner.in_flight
        self.submit = self.runner.submit


@pytest.fixture
def files(tmp_path):
    """Pictures of as many shades, two of which cannot be read."""
    for i in range(FILES):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), np.full((64, 64), 10 * i, np.uint8))
    for broken in (3, 4):
        (tmp_path / f"{broken:02}.png").write_bytes(b"")
    return find_files([tmp_path]).sources


def assert_rows(results):
    assert [result.row.path for result in results] == [f"{i:02}.png" for i in range(FILES)]
    for i, result in enumerate(results):
        if i in (3, 4):
            assert result.row.error
            assert result.row.probabilities is None
        else:
            probabilities, maps = expected(np.full((1, 1, 512, 512), 10 * i, np.uint8))
            np.testing.assert_allclose(result.row.probabilities, probabilities[0], rtol=1e-5)
            np.testing.assert_allclose(result.class_maps, maps[0], rtol=1e-5)


def test_each_file_gets_its_own_row_in_order(files):
    engine = SimulatedEngine()
    assert_rows(list(score_files(engine, files, class_maps=True, workers=2)))
    assert engine.runner.free == BATCHES_IN_FLIGHT
    engine.runner.close()
    assert not engine.gpu.open


@pytest.mark.parametrize("name", ["upload", "launch", "event synchronize"])
def test_a_batch_that_fails_once_is_tried_again(files, name):
    for at in (1, 4):
        engine = SimulatedEngine()
        engine.gpu.fails = lambda called, number, at=at: called == name and number == at
        assert_rows(list(score_files(engine, files, class_maps=True, workers=2)))
        assert engine.gpu.calls.count(name) >= at
        engine.runner.close()


def test_a_batch_that_fails_twice_ends_the_run_after_the_rows_before_it(files):
    engine = SimulatedEngine()
    engine.gpu.fails = lambda called, number: called == "event synchronize" and number >= 4
    rows = []
    with pytest.raises(BackendError, match="CUDA failed"):
        rows.extend(result.row.path for result in score_files(engine, files, workers=2))
    assert rows == [f"{i:02}.png" for i in range(8)]  # three batches of two, and the two that cannot be read
    engine.gpu.fails = lambda called, number: False
    assert engine.runner.free == BATCHES_IN_FLIGHT
    assert_rows(list(score_files(engine, files, class_maps=True, workers=2)))
    engine.runner.close()


@pytest.mark.parametrize(
    ("broken", "sizes"),
    [((), [2, 2, 2, 2, 2]), ((1, 3, 5), [2, 2, 2, 1]), (range(1, 7), [2, 2]), (range(1, 8), [1, 2])],
)
def test_files_that_cannot_be_read_take_no_place_in_a_batch(files, broken, sizes):
    """But it is of no more than eight results, four times as many as images."""
    for i in range(10):
        cv2.imwrite(str(files[i].path), np.full((64, 64), i, np.uint8))
    for i in broken:
        files[i].path.write_bytes(b"")
    engine, found = SimulatedEngine(), []
    submit = engine.submit
    engine.submit = lambda images, class_maps: found.append(len(images)) or submit(images, class_maps)
    list(score_files(engine, files[:10], workers=2))
    assert found == sizes
    engine.runner.close()


def test_an_end_at_any_moment_leaves_a_usable_engine(files):
    engine = SimulatedEngine()
    for taken in (0, 1, 5, 6, 11, FILES):
        results = score_files(engine, files, class_maps=True, workers=2)
        assert len([next(results) for _ in range(taken)]) == taken
        results.close()
        assert engine.runner.free == BATCHES_IN_FLIGHT
    engine.runner.close()
    assert not engine.gpu.open


def test_several_batches_are_in_flight(files):
    engine = SimulatedEngine(latency=0.01)
    least = BATCHES_IN_FLIGHT
    for _ in score_files(engine, files, workers=2):
        least = min(least, engine.runner.free)
    assert least <= 1
    engine.runner.close()
