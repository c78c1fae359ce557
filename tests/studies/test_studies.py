"""A sample of every category of the long studies, through the scripts that make their tables."""

import subprocess
import sys
from pathlib import Path

import pytest
from faults import STUDIES, why_not
from fuzz import CASES

HERE = Path(__file__).parent


def study(name, *arguments):
    command = [sys.executable, HERE / name, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    return process.stdout


def test_a_sample_of_every_fault(tmp_path):
    study("faults.py", "--share", "0.02", "--output", tmp_path / "faults.md")
    text = (tmp_path / "faults.md").read_text()
    for fault in STUDIES:
        row = next(line for line in text.splitlines() if line.startswith(f"| {fault} |"))
        assert int(row.split("|")[2]) > 0 or why_not(fault)


def test_some_hundred_mutated_files(tmp_path):
    pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    study("fuzz.py", "--share", "0.02", "--output", tmp_path / "fuzzing.md")
    text = (tmp_path / "fuzzing.md").read_text()
    for kind in CASES:
        assert f"| {kind} | {round(CASES[kind] * 0.02)} |" in text
    assert "| all | 400 |" in text


def test_a_short_soak(tmp_path):
    """Growth is for the long run; here the study works, every file has its row and nothing is left over."""
    study("soak.py", "--files", 1000, "--no-plot", "--any-growth", "--output", tmp_path / "soak.md")
    assert "| temporary files |" in (tmp_path / "soak.md").read_text()


def test_a_sample_of_real_chest_x_rays(cxr14, tmp_path):
    study("false_alarms.py", cxr14, "--every", 10, "--output", tmp_path / "false-alarms.md")
    assert "| all | 306 |" in (tmp_path / "false-alarms.md").read_text()
