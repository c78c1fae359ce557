"""What a profiler sees: an injection library records the ranges, as NVIDIA's Nsight Systems would."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_trt import nvtx_range

SUPPORT = Path(__file__).parent / "support"
CODE = """
import sys
import numpy as np
import cxr_trt
from simulated_gpu import SimulatedGpu, SimulatedNetwork
from cxr_trt.engine.gpu.pipeline import GpuRunner
with cxr_trt.Engine(sys.argv[1]) as engine:
    assert len(list(engine.score(sys.argv[2]))) == 1
gpu = SimulatedGpu()
with gpu.current():
    network = SimulatedNetwork(gpu)
runner = GpuRunner(gpu, network)
runner.submit([np.zeros((16, 16), np.uint8)], False)()
runner.close()
"""


def test_each_stage_is_a_range_of_its_thread(cheap_bundle, radiographs, tmp_path):
    pytest.importorskip("nvtx", reason="needs pip install 'cxr-trt[nvtx]'")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    library, record = tmp_path / "recorder.so", tmp_path / "record.txt"
    subprocess.run(["g++", "-shared", "-fPIC", SUPPORT / "nvtx_recorder.cpp", "-o", library], check=True)
    injected = {"NVTX_INJECTION64_PATH": str(library), "NVTX_RECORD": str(record), "PYTHONPATH": str(SUPPORT)}
    command = [sys.executable, "-c", CODE, cheap_bundle, radiographs / "RG1_UNCR.dcm"]
    subprocess.run(command, check=True, env={**os.environ, **injected})
    names: list[str] = []
    open_ranges: dict[str, list[str]] = {}
    for line in record.read_text().splitlines():
        kind, thread, *name = line.split()
        if kind == "push":
            open_ranges.setdefault(thread, []).extend(name)
            names += name
        else:
            open_ranges[thread].pop()
    assert names == ["decode", "postprocess", "copy", "infer", "copy", "wait"]
    assert not any(open_ranges.values())
    assert len(open_ranges) == 2  # files are decoded in another thread


def test_without_nvtx_a_range_is_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", None)  # cannot be imported
    nvtx_range._annotate.cache_clear()
    try:
        assert isinstance(nvtx_range.nvtx_range("infer"), contextlib.nullcontext)
    finally:
        nvtx_range._annotate.cache_clear()
