import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle

import cxr_trt
from cxr_trt.api import Engine, find_files, preprocess, score_files
from cxr_trt.images.decoders import Decoders, Limits
from cxr_trt.score.pipeline import score_with

MEASURE = """
import sys
from cxr_trt.api import Engine, find_files, score_files
from cxr_trt.measure.machine import peak_memory
with Engine(sys.argv[1]) as engine:
    for i, result in enumerate(score_files(engine, find_files([sys.argv[2]]).sources, class_maps=True), start=1):
        if i in (30, 100):
            print(peak_memory())
"""


def test_results_hold_what_the_network_saw(center_bundle, radiographs):
    with Engine(center_bundle) as engine:
        (result,) = score_files(engine, find_files([radiographs / "RG1_UNCR.dcm"]).sources, class_maps=True)
        again = engine.run(result.image[None], class_maps=True)
    assert result.image.shape == (512, 512)
    assert result.row.probabilities == tuple(again.probabilities[0].tolist())
    np.testing.assert_array_equal(result.class_maps, again.class_maps[0])


@pytest.mark.parametrize("max_batch", [1, 3])
def test_order_and_batches(tmp_path, max_batch):
    """Seven pictures of seven shades with a broken one among them: each row gets its own picture's scores."""
    (tmp_path / "xrays").mkdir()
    for i in range(7):
        cv2.imwrite(str(tmp_path / "xrays" / f"{i}.png"), np.full((64, 64), 30 * i, np.uint8))
    (tmp_path / "xrays" / "4.png").write_bytes(b"")
    with Engine(build_cheap_bundle(tmp_path / "e.cxr", max_batch=max_batch)) as engine:
        results = list(score_files(engine, find_files([tmp_path / "xrays"]).sources, workers=4))
        assert [result.row.path for result in results] == [f"{i}.png" for i in range(7)]
        for i, result in enumerate(results):
            if i == 4:
                assert result.row.error
                assert result.row.probabilities is None
                continue
            expected = engine.run(np.full((1, 512, 512), 30 * i, np.uint8)).probabilities[0]
            np.testing.assert_allclose(result.row.probabilities, expected, atol=1e-6)
        assert len({result.row.probabilities for result in results}) == 7


def test_an_engine_scores_a_folder(cheap_bundle, radiographs, tmp_path):
    """The example in the docstring of `cxr_trt`."""
    shutil.copy(radiographs / "RG1_UNCR.dcm", tmp_path / "chest.dcm")
    (tmp_path / "broken.png").write_bytes(b"")
    with cxr_trt.Engine(cheap_bundle) as engine:
        broken, chest = engine.score(tmp_path)
        assert list(engine.score([tmp_path / "chest.dcm"])) == [chest]
        assert [row.path for row in engine.score(str(tmp_path))] == ["broken.png", "chest.dcm"]
    assert isinstance(chest, cxr_trt.Score)
    assert (chest.path, chest.format, chest.error, len(chest.probabilities)) == ("chest.dcm", "DICOM", None, 14)
    assert chest.engine == engine.fingerprint
    assert broken.probabilities is None
    assert "empty" in broken.error


def test_arrays_from_a_notebook(center_bundle):
    array = np.random.default_rng(0).uniform(0, 255, (700, 600)).astype(np.float32)
    with Engine(center_bundle) as engine:
        outputs = engine.run(preprocess(array, engine.spec.image_size)[None], class_maps=True)
    assert outputs.probabilities.shape == (1, 14)
    assert outputs.class_maps.shape == (1, 14, 14, 14)


def test_only_a_few_files_are_decoded_ahead(cheap_bundle, tmp_path):
    for i in range(40):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), np.zeros((64, 64), np.uint8))
    taken = []
    with Engine(cheap_bundle) as engine:
        sources = find_files(tmp_path).sources
        results = score_files(engine, (taken.append(source) or source for source in sources), workers=3)
        for i in range(5):
            assert next(results).row.path == f"{i:02}.png"
            assert len(taken) <= i + 1 + 3 + engine.max_batch
        results.close()
    assert len(taken) < 12


@pytest.mark.parametrize("bundle", ["cheap_bundle", pytest.param("center_bundle", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_folder(request, tmp_path, bundle):
    """100 images take at most a tenth more memory than 30."""
    picture = np.random.default_rng(0).integers(0, 256, (1000, 1000), np.uint8)
    for i in range(100):
        (tmp_path / f"{i}.jpg").write_bytes(cv2.imencode(".jpg", picture + np.uint8(i))[1].tobytes())
    command = [sys.executable, "-c", MEASURE, request.getfixturevalue(bundle), tmp_path]
    after_30, after_100 = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert after_100 <= 1.1 * after_30


def test_decoding_processes_stay_from_one_set_of_files_to_the_next(cheap_bundle, tmp_path):
    """Also where the results of a set were not all asked for."""
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        for i in range(3):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), np.full((64, 64), 30 * i, np.uint8))
    with Engine(cheap_bundle) as engine, Decoders(1, engine.spec.image_size, Limits(), engine.spec.fit) as decoders:

        def results(name):
            return score_with(engine, decoders, find_files(tmp_path / name).sources)

        expected = [result.row for result in results("first")]
        assert expected == [result.row for result in score_files(engine, find_files(tmp_path / "first").sources)]
        (started,) = decoder_processes()
        next(results("second"))
        assert [result.row.probabilities for result in results("third")] == [row.probabilities for row in expected]
        assert decoder_processes() == [started]


def decoder_processes():
    listed = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "cxr_trt.images.worker"], capture_output=True)
    return listed.stdout.split()
