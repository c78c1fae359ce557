"""What OpenVINO compiled is read again at the next start, and nothing but time depends on it."""

import os

import numpy as np
import pytest
from cheap_engine import cheap_graph

from cxr_trt.engine.cpu import openvino, openvino_cache
from cxr_trt.score.engine import Engine


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """The user's cache folder, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cxr-trt"


@pytest.fixture(scope="module")
def bundle(build):
    return build(cheap_graph())


@pytest.fixture
def compilations(monkeypatch):
    """Counts what is compiled, by OpenVINO itself."""
    counted = []
    core = openvino.core()
    compile_model = core.compile_model
    monkeypatch.setattr(core, "compile_model", lambda *args: counted.append(args) or compile_model(*args))
    return counted


def scores(bundle):
    with Engine(bundle) as engine:
        image = np.random.default_rng(0).integers(0, 256, (1, *engine.spec.image_size), np.uint8)
        return engine.run(image, class_maps=True)


def files(caches):
    return sorted(caches.glob("openvino-*"))


def test_the_next_start_compiles_nothing_and_computes_the_same(small_graph, build, caches, compilations):
    bundle = build(small_graph)
    compilations.clear()
    first, second = scores(bundle), scores(bundle)
    assert len(compilations) == 1
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_made_again(bundle, caches, compilations, damage):
    expected = scores(bundle)
    (file,) = files(caches)
    whole = file.read_bytes()
    flipped = bytes([*whole[:-1], whole[-1] ^ 1])
    file.write_bytes(flipped if damage is None else damage)
    np.testing.assert_array_equal(scores(bundle).probabilities, expected.probabilities)
    assert len(compilations) == 2
    assert files(caches) == [file]
    scores(bundle)
    assert len(compilations) == 2


def test_what_openvino_refuses_is_made_again(bundle, caches, compilations):
    expected = scores(bundle)
    (file,) = files(caches)
    blob = b"of another version"
    file.write_bytes(openvino_cache.hashlib.sha256(blob).digest() + blob)
    np.testing.assert_array_equal(scores(bundle).probabilities, expected.probabilities)
    assert len(compilations) == 2


def test_other_engines_and_other_instructions_have_files_of_their_own(bundle, build, caches, monkeypatch):
    scores(bundle)
    scores(build(cheap_graph(), max_batch=2))
    assert len(files(caches)) == 2
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    scores(bundle)
    assert len(files(caches)) == 3


def test_scores_do_not_depend_on_a_folder_that_cannot_be_written(bundle, caches):
    expected = scores(bundle)
    for file in files(caches):
        file.unlink()
    caches.rmdir()
    caches.write_text("no folder")
    np.testing.assert_array_equal(scores(bundle).probabilities, expected.probabilities)


def test_the_least_recently_used_go(bundle, caches, monkeypatch):
    monkeypatch.setattr(openvino_cache, "MAX_FILES", 2)
    caches.mkdir()
    for age in (3, 2, 1):
        path = caches / f"openvino-{age}.blob"
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    scores(bundle)
    assert len(files(caches)) == 2
    assert caches / "openvino-1.blob" in files(caches)


def test_building_keeps_nothing(build, caches):
    build(cheap_graph())
    assert not files(caches)
