"""An engine imports the library that runs it, and none of the others, which take half a second each."""

import subprocess
import sys

import pytest

LIBRARIES = {"onnxruntime", "openvino"}


@pytest.mark.parametrize("backend", sorted(LIBRARIES))
def test_an_engine_imports_only_what_runs_it(backend, build, small_graph):
    code = (
        "import sys; from pathlib import Path; from cxr_trt.score.engine import Engine\n"
        f"with Engine(Path(sys.argv[1])): print(*sorted({LIBRARIES!r} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(build(small_graph, backend))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == [backend], done.stderr
