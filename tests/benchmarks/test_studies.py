"""A sample of every category of the long studies, through the command that makes their pages."""

import json
import subprocess
import sys

import pytest

from benchmarks import fuzzing
from benchmarks.study import ROOT
from benchmarks.tools import faults, hostile_files


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs a study in a process of its own; gives its result and its page."""

    def run(name, *arguments):
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-m", "benchmarks", name, "--output", folder, *arguments]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads((folder / f"{name}.json").read_text()), (folder / f"{name}.md").read_text()

    return run


@pytest.fixture(scope="module")
def hostile(study):
    pytest.importorskip("PIL.Image", reason="needs Pillow to write CMYK: pip install pillow")
    result, _ = study("hostile-inputs")
    return result["outcomes"]


@pytest.mark.parametrize("title", hostile_files.CASES)
def test_a_hostile_file_is_one_row(hostile, title):
    expected = hostile_files.CASES[title][2]
    assert expected in hostile[title]
    assert hostile[title].startswith("scored, " if expected == hostile_files.SCORED else "error row: ")


def test_pictures_are_those_of_the_plain_file(hostile):
    assert hostile["JPEG with EXIF orientation"].startswith("scored, 36 x 40")
    assert hostile["PNG, animated"].startswith("scored, 40 x 36")


FAULTS = (
    "SIGKILL at a random moment",
    "SIGTERM at a random moment",
    "disk full",
    "10 inputs deleted during the run",
    "decoders killed",
    "engine raises once",
    "engine raises always, on one picture",
    "wall clock jumps",
    "second run on the same output",
)
"""One of each kind: a case takes two seconds."""


def check_faults(study, names, *arguments):
    result, page = study("faults", "--share", 0, *arguments, *(part for name in names for part in ("--only", name)))
    for name in names:
        assert result["faults"][name]["cases"] == (0 if faults.why_not(name) else 1)
        assert f"| {name} |" in page


def test_one_case_of_every_kind_of_fault(study):
    check_faults(study, FAULTS, "--files", 20, "--seed", 2)


@pytest.mark.slow
def test_one_case_of_the_other_faults(study):
    check_faults(study, [name for name in faults.FAULTS if name not in FAULTS])


def test_a_hundred_mutated_files(study):
    pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    result, page = study("fuzzing", "--share", 0.005)
    for kind, cases in fuzzing.CASES.items():
        own = result["files"][kind]
        assert own["cases"] == own["read"] + own["refused"] == round(cases * 0.005)
    assert "| all | 114 |" in page


def test_a_short_soak(study):
    """Growth is for the long run; here the study works, every file has its row and nothing is left over."""
    pytest.importorskip("matplotlib", reason="needs pip install 'cxr-trt[plots]'")
    result, page = study("soak", "--files", 300, "--interval", 0.05)
    assert all(rows <= 300 for rows, *_ in result["samples"])
    assert len(result["samples"]) > 5
    assert "| temporary files |" in page


def test_a_sample_of_real_chest_x_rays(study, cxr14):
    result, page = study("false-alarms", "--data", cxr14, "--every", 20)
    assert result["pictures"]["all"]["number"] == result["images"] == 153
    assert "| all | 153 |" in page


def test_limits_of_the_shipped_model_are_those_committed(study):
    """Nothing in this study is measured, so it gives the same again."""
    computed, _ = study("roofline")
    committed = json.loads((ROOT / "benchmarks" / "results" / "roofline.json").read_text())
    assert computed["seconds"]["L4"] == committed["seconds"]["L4"]
    assert computed["graphs"] == committed["graphs"]
