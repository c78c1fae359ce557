"""The ways of three newcomers through the guides, whose times `python -m benchmarks walks` measures."""

import shlex
import sys

import pytest
from inputs import Inputs
from pages import ROOT, SHELL, blocks, shell_lines

from benchmarks.walks import FIRST_RESULT, INSTALL, SCORE, WALKS, page, timed


@pytest.mark.parametrize("step", [step for walk in WALKS.values() for step in walk], ids=lambda step: step.what)
def test_every_step_stands_in_its_guide(step):
    lines = [line for block in blocks(ROOT / step.page) if block.language in SHELL for _, line in shell_lines(block)]
    assert step.command in lines


@pytest.mark.parametrize("walk", WALKS)
def test_a_newcomer_gets_through(walk, cli, radiographs, cheap_bundle, network, tmp_path, monkeypatch):
    """From inputs alone: what a step needs is either there from the start or was made by a step before."""
    monkeypatch.chdir(tmp_path)
    inputs = Inputs(radiographs, cheap_bundle, network)
    said = {}
    made = {
        words[i + 1]
        for step in WALKS[walk]
        if "-o" in (words := shlex.split(step.command))
        for i in [words.index("-o")]
    }
    for step in WALKS[walk]:
        if step.command == INSTALL:
            continue
        words = shlex.split(step.command)[1:]
        for word in words:
            if word.rstrip("/") not in made and word != "heatmaps/":
                inputs.make(word, tmp_path)
        result = cli(*words)
        assert result.exit_code == 0, result.output
        said[step.what] = result.output
    if walk.startswith("with a laptop"):
        assert "engine" in said["score the folder, with heat maps"]
        assert "(3 of them in an earlier run)" in said["the same folder once more"]
        assert '"maps":[{' in (tmp_path / "report.html").read_text()
    elif walk.startswith("with NIH"):
        assert "scored 6 of 6 files" in said["score the files of NIH's list"]
        assert "2 rows of LABELS without a score" in said["evaluate with NIH's labels"]
        assert "<dt>mean AUC of 2 findings</dt>" in (tmp_path / "nih.html").read_text()
    else:
        assert "differ by" in said["compare checkpoint and engine"]


def test_the_longest_silence_is_that_of_the_command(tmp_path):
    times = iter([0.0, 1.0, 7.0, 8.0, *range(9, 1000)])
    own = timed("cxr-trt --version", tmp_path, clock=lambda: next(times))
    assert own == {"seconds": 7.0, "silence": 6.0}


def test_the_page_adds_up_the_steps():
    walk, steps = next(iter(WALKS.items()))
    assert steps[FIRST_RESULT - 1].what == "make the report"
    measured = [{"seconds": i + 0.5, "silence": 0.1} for i in range(len(steps))]
    text = page({"files": 20, "compared": 5, "walks": {walk: measured}})
    assert "12 s from the clone to the report of 20 X-rays" in text
    assert f"`{SCORE}` | 3.5 | 0.1 |" in text
    assert "| all |  | 18.0 |  |" in text


@pytest.mark.slow
@pytest.mark.long
def test_the_study_walks(cxr14, tmp_path):
    import subprocess

    command = [sys.executable, "-m", "benchmarks", "walks", "--files", "4", "--data", cxr14, "--output", tmp_path]
    done = subprocess.run([*command, "--only", next(iter(WALKS))], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| make the report |" in (tmp_path / "walks.md").read_text()
