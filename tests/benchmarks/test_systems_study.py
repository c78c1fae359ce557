"""The study of systems: its recipes are those of the systems but for their size, and it runs from images to page."""

import json
import shutil

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from benchmarks import systems
from benchmarks.__main__ import main
from benchmarks.catalogue import STUDIES
from cxr_trt.hashing import hash_fields
from cxr_trt.systems import SYSTEMS, find_system
from train.data import read_data
from train.recipe import read_recipe

SHRUNK = {"image_size", "crop_size", "batch", "accumulate", "bfloat16", "translation", "anneal", "epochs", "stages"}


def test_every_system_is_trained():
    trained = {find_system(read_recipe(name).setting).name for name in systems.SIZES}
    assert trained | systems.UNTRAINED.keys() == {system.name for system in SYSTEMS}
    assert not trained & systems.UNTRAINED.keys()


@pytest.mark.parametrize("name", systems.SIZES)
def test_a_recipe_is_its_own_but_for_its_size(name):
    small, own = systems.small_recipe(name, 3), read_recipe(name)
    for one, other in zip((small, *small.stages), (own, *own.stages), strict=True):
        assert {key for key in vars(own) if getattr(one, key) != getattr(other, key)} <= SHRUNK
        assert one.translation / one.crop_size == other.translation / other.crop_size
    assert all(stage.epochs == 3 for stage in small.stages or (small,))


def test_the_headline_says_which_learned_and_which_were_not_measured():
    measured = {"paper": {"low": 0.51}, "yao2018": {"low": 0.49}}
    assert systems._headline(measured, 3) == (
        "1 of 3 recipes are seen to learn; the interval of `yao2018` reaches down to 0.5; 1 not measured."
    )


def test_what_is_committed_is_of_the_recipes_as_they_are(cxr14):
    """So that nothing is measured again because recipes got a new field."""
    images, committed = read_data(cxr14 / "labels.csv"), STUDIES["systems"].result()
    for name, own in committed["systems"].items():
        recipe = systems.small_recipe(name, committed["epochs"])
        assert own["training_sha256"] == hash_fields(systems._identity(recipe, images)), name


@pytest.mark.slow
@pytest.mark.long
def test_a_few_images_from_training_to_page(cxr14, tmp_path, monkeypatch):
    def run(*names):
        only = [part for name in names for part in ("--only", name)]
        trial = ["--epochs", 3, "--limit", 32, "--resamples", 20, "--folder", tmp_path / "kept", "--output", tmp_path]
        done = CliRunner().invoke(main, ["systems", "--data", str(cxr14), *map(str, (*only, *trial))])
        assert done.exit_code == 0, done.output
        return json.loads((tmp_path / "systems.json").read_text()), (tmp_path / "systems.md").read_text()

    monkeypatch.setattr(systems, "RESULTS", tmp_path)
    (tmp_path / "systems.json").write_text('{"systems": {}}')
    result, page = run("yao2017-b2")
    first = result["systems"]["yao2017-b2"]
    assert result["images"] == {"train": 32, "val": 32, "test": 32}
    assert 0 < first["low"] < first["mean_auc"] < first["high"] < 1
    assert first["difference_from_pytorch"] < 1e-5
    assert result["systems"]["yao2017-a"] is None
    assert "| `yao2017-a` | 128 | not measured |" in page

    shutil.rmtree(tmp_path / "kept")  # what the result has is not trained again
    result, page = run("yao2017-a")
    assert not (tmp_path / "kept" / "yao2017-b2").exists()
    assert result["systems"]["yao2017-b2"] == first
    assert result["systems"]["yao2017-a"] is not None
    kept = tmp_path / "kept" / "yao2017-a" / "scores.json"
    before = kept.stat().st_mtime_ns
    (tmp_path / "systems.json").write_text('{"systems": {}}')
    assert run("yao2017-a")[0]["systems"]["yao2017-a"] == result["systems"]["yao2017-a"]
    assert kept.stat().st_mtime_ns == before
    assert "0.5" in page
