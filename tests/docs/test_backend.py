"""The worked example of docs/adding-a-backend.md, as it stands there."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cheap_engine import SPEC, cheap_model

from cxr_trt.cli import BACKEND_NAMES
from cxr_trt.engine.backend import Backend, BuildOptions, Runner
from cxr_trt.score.engine import Engine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.engine.cpu.tuning import ways
from cxr_trt.errors import BackendError
from cxr_trt.export.scoring_graph import GraphInfo

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-backend.md"
INFO = GraphInfo.of(SPEC, "trained", "0" * 64)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    path = tmp_path_factory.mktemp("example") / "reference.py"
    path.write_text(block)
    return path


@pytest.fixture
def example(source, monkeypatch):
    """The example as a module, registered as the page says."""
    spec = importlib.util.spec_from_file_location("reference", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(BACKENDS, "reference", module.ReferenceBackend())
    return module


def build(target):
    options = BuildOptions(2, lambda phase, fraction: None, ways=tuple(ways(2)))
    return build_bundle(cheap_model(), INFO, BACKENDS["reference"], target, options, overwrite=False)


def test_the_example_scores_as_onnxruntime_does(example, cheap_bundle, tmp_path):
    manifest = build(tmp_path / "reference.cxr")
    assert (manifest.backend, manifest.settings["parity"]["images"]) == ("reference", 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 512, 512), np.uint8)
    images //= np.arange(1, 4, dtype=np.uint8)[:, None, None]
    with Engine(tmp_path / "reference.cxr") as engine, Engine(cheap_bundle) as other:
        found, expected = (one.run(images, class_maps=True) for one in (engine, other))
        assert engine.run(images).class_maps is None
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-5)
    tolerance = 1e-5 * np.abs(expected.class_maps).max()
    np.testing.assert_allclose(found.class_maps, expected.class_maps, rtol=0, atol=tolerance)
    assert np.ptp(found.probabilities) > 0.1


def test_a_wrong_backend_gets_no_bundle(example, monkeypatch, tmp_path):
    """The first of what the page says that a backend gets for free."""
    run = example.ReferenceRunner.run
    monkeypatch.setattr(
        example.ReferenceRunner, "run", lambda self, images, class_maps: run(self, images // 2, class_maps)
    )
    with pytest.raises(BackendError, match="nothing was written"):
        build(tmp_path / "reference.cxr")
    assert not list(tmp_path.iterdir())


def test_the_example_is_a_backend_for_mypy(source):
    (source.parent / "registered.py").write_text(
        "from cxr_trt.engine.backend import Backend, Runner\n"
        "from reference import ReferenceBackend, ReferenceRunner\n"
        "BACKENDS: dict[str, Backend] = {'reference': ReferenceBackend()}\n"
        "runner: type[Runner] = ReferenceRunner\n"
    )
    pytest.importorskip("mypy", reason="needs pip install mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports=silent"]
    process = subprocess.run(
        [*command, "--cache-dir", source.parent, "registered.py", "reference.py"],
        cwd=source.parent,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_the_command_line_knows_every_backend():
    assert list(BACKEND_NAMES) == ["auto", *BACKENDS]


def test_the_page_speaks_of_every_member_of_the_protocols():
    text = PAGE.read_text()
    members = {name for protocol in (Backend, Runner) for name in (*vars(protocol), *protocol.__annotations__)}
    missing = [name for name in members if not name.startswith("_") and f"`{name}`" not in text]
    assert len(members) > 15
    assert not missing
