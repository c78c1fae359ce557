"""What `keep_freed_memory` saves, counted in page faults: in processes of their own, as it cannot be undone."""

import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """
import resource, statistics, sys
import numpy as np
from cxr_trt.memory import keep_freed_memory
if sys.argv[1] != "return":
    keep_freed_memory(int(sys.argv[1]))
def step():
    a = np.ones(16 << 20, np.float32)
    return (a * 2).sum()
faults = []
for _ in range(21):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median(faults))
"""


def faults(how: str) -> int:
    """In the median step: now and then the heap grows also where it is kept."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", STEPS, how]
    return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


def test_a_step_finds_the_memory_of_the_one_before():
    if sys.platform != "linux":
        pytest.skip("mallopt is glibc's")
    returned = faults("return")
    assert faults("-1") < returned / 10
    assert faults(str(256 << 20)) < returned / 10
    assert faults(str(32 << 20)) > returned / 2  # a step has twice 64 MiB
