"""The parts of the measurements, each on as little as it takes."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import growth
from benchmarks.study import ROOT
from benchmarks.tools.memory import PeakMemory
from benchmarks.tools.pictures import DICOM_SIZE, FORMATS, PNG_SIDE, make_pictures
from cxr_trt.images import decode


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_shows_the_same_radiograph(kind, tmp_path):
    files = sorted(make_pictures(tmp_path / "files", kind, 2).iterdir())
    assert len(files) == 2
    picture = decode(files[1].read_bytes())
    assert picture.pixels.shape == ((PNG_SIDE, PNG_SIDE) if kind in ("PNG", "JPEG") else DICOM_SIZE)
    small = picture.pixels[:: picture.pixels.shape[0] // 8, :: picture.pixels.shape[1] // 8][:8, :8]
    assert np.ptp(small) > 100


def test_every_format_is_timed_with_every_number_of_workers(tmp_path):
    pytest.importorskip("torchvision")
    from benchmarks import feed_rate

    own = feed_rate.rates("PNG", tmp_path, seconds=0.01, rounds=1)
    assert set(own["rates"]) == {"library", "cxr-trt, 1", "PIL, 1", "cxr-trt, 2", "PIL, 2"}
    assert all(values["median"] > 0 for values in own["rates"].values())
    parts = feed_rate.parts("PNG")
    assert set(parts) == set(feed_rate.parts("DICOM")) == set(feed_rate.STEPS)
    result = {"rounds": 1, "rates": {"PNG": own}, "repeats": 9, "parts": {"PNG": parts}, "tried": []}
    page = feed_rate.page(result)
    assert page.count("| PNG |") == 2
    assert f" {sum(parts.values()):.1f} " in page


def test_memory_is_of_the_process_and_its_child():
    child = "held = bytearray(100 << 20); input()"
    code = f"import subprocess, sys; held = bytearray(50 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        memory = PeakMemory(process.pid)
        with memory.watched():
            time.sleep(1.5)
        process.communicate(b"\n")
    assert 150 < memory.mib < 220


def test_growth_counts_rows_and_memory(cheap_bundle, tmp_path):
    own = growth.run(cheap_bundle, tmp_path / "run", 12)
    assert own["files"] == 12
    assert own["peak_mib"] > 20
    page = growth.page({"side": 256, "runs": [own, {**own, "files": 112, "seconds": own["seconds"] + 1}]})
    assert "| 112 |" in page
    assert "| 100 |" in page  # files per second beyond the first


@pytest.mark.slow
@pytest.mark.long
def test_contestants_agree_and_take_turns(tmp_path):
    pytest.importorskip("torchvision")
    rows = ("ONNX", "cxr-trt openvino, ten-crop", "cxr-trt openvino, center-mirror")
    arguments = [part for name in rows for part in ("--only", name)]
    arguments += ["--files", 1, "--rounds", 1, "--output", tmp_path]
    command = [sys.executable, "-m", "benchmarks", "benchmark", *map(str, arguments)]
    without_int8 = {name: value for name, value in os.environ.items() if name != "CXR14_DIR"}  # minutes of calibration
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=without_int8)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    exact = [own["difference"] for own in rows.values() if own["exact"]]
    assert len(exact) == 3
    assert max(exact) < 1e-4
    assert rows["cxr-trt openvino, center-mirror"]["difference"] > 1e-4
    assert not any("GPU" in name for name in rows)
    assert (tmp_path / "benchmark.png").stat().st_size > 1000
