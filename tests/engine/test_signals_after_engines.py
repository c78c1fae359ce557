"""A signal after engines were closed, in any order: OpenVINO's signal stacks once made it the end of the process."""

import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys
import numpy as np
from cxr_trt.score.engine import Engine

first, second = (Engine(sys.argv[1]) for _ in range(2))
for engine in (first, second):
    engine.run(np.zeros((1, 512, 512), np.uint8))
del engine
first.close()
del first
second.close()
del second
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_signal_is_handled_after_two_engines(center_graph, build, backend):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, build(center_graph, backend)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
