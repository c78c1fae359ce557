"""CONTRIBUTING.md and docs/architecture.md followed to the letter, in a copy of the tree: new files, changes, tests."""

import importlib.util
import re
import shutil
import subprocess
import sys

import pytest
from cheap_engine import cheap_graph
from pages import ROOT, SHELL, blocks, shell_lines

from cxr_trt.engine.backend import Backend, Runner
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError

PAGES = (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md")
BLOCKS = [block for page in PAGES for block in blocks(page) if block.file]
NEW_FILES = {block.file: block.text for block in BLOCKS if block.language in ("python", "toml")}
CHANGES = {block.file: block.text for block in BLOCKS if block.language == "diff"}
TESTS = [file for file in NEW_FILES if file.startswith("tests/")]
SYSTEM_TEST = "tests/systems/test_small2026.py"
PYTHON_FILES = [file for file in (*NEW_FILES, *CHANGES) if file.endswith(".py")]
PACKAGE_FILES = [file for file in PYTHON_FILES if file.startswith("cxr_trt/")]
BACKEND_FILE = "cxr_trt/engine/cpu/onnx_reference.py"


def changed(text, diff):
    """A text after a change, whose parts are divided by lines of @@."""
    for part in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = part.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert text.count(old) == 1, f"not once in the file:\n{old}"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The package and what its tests need, with everything that the pages add."""
    tree = tmp_path_factory.mktemp("tree")
    left_out = shutil.ignore_patterns("models", "__pycache__", "*.so")
    for package in ("cxr_trt", "train"):
        shutil.copytree(ROOT / package, tree / package, ignore=left_out)
    shutil.copytree(ROOT / "tests" / "support", tree / "tests" / "support")
    for file in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / file, tree / file)
    for file, text in NEW_FILES.items():
        assert not (ROOT / file).exists()
        (tree / file).parent.mkdir(exist_ok=True)
        (tree / file).write_text(text)
    for file, diff in CHANGES.items():
        (tree / file).write_text(changed((ROOT / file).read_text(), diff))
    return tree


def run(tree, module, *arguments):
    process = subprocess.run([sys.executable, "-m", module, *arguments], cwd=tree, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.parametrize("file", TESTS)
def test_the_added_tests_pass(tree, file):
    if file == SYSTEM_TEST:
        pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
    tests = NEW_FILES[file].count("\ndef test_")
    assert tests >= 1
    assert f"{tests} passed" in run(tree, "pytest", "-q", "-p", "no:cacheprovider", file)


def test_the_named_commands_run_the_added_tests():
    shells = [block for page in PAGES for block in blocks(page) if block.language in SHELL]
    lines = [line for block in shells for _, line in shell_lines(block)]
    named = [line.removeprefix("make test T=") for line in lines if line.startswith("make test T=")]
    assert set(TESTS) <= set(named)
    assert all(test in TESTS or (ROOT / test).exists() for test in named)


def test_the_additions_pass_ruff(tree):
    pytest.importorskip("ruff", reason="needs pip install 'cxr-trt[dev]'")
    run(tree, "ruff", "check", *PYTHON_FILES)
    run(tree, "ruff", "format", "--check", *PYTHON_FILES)


def test_the_additions_keep_the_order_of_the_packages(tree):
    pytest.importorskip("importlinter", reason="needs pip install 'cxr-trt[dev]'")
    run(tree, "importlinter.cli", "lint", "--no-cache")


def test_the_additions_are_typed(tree):
    """And what implements a protocol does so for mypy: it is held against it where it is registered."""
    pytest.importorskip("mypy", reason="needs pip install 'cxr-trt[dev]'")
    if (ROOT / ".mypy_cache").exists():  # what `make lint` kept: the types of all that is imported
        shutil.copytree(ROOT / ".mypy_cache", tree / "mypy")
    run(tree, "mypy", f"--cache-dir={tree / 'mypy'}", *PACKAGE_FILES)


def test_a_wrong_backend_gets_no_bundle(tree, monkeypatch, tmp_path):
    """As the example is, but for half of the grey."""
    spec = importlib.util.spec_from_file_location("onnx_reference", tree / BACKEND_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    backend = module.OnnxReferenceBackend()
    build_bundle(BuildRequest(cheap_graph(), backend), tmp_path / "right.cxr")
    submit = module.OnnxReferenceRunner.submit

    def submit_halves(self, images, class_maps):
        return submit(self, [image // 2 for image in images], class_maps)

    monkeypatch.setattr(module.OnnxReferenceRunner, "submit", submit_halves)
    with pytest.raises(BackendError, match="nothing was written"):
        build_bundle(BuildRequest(cheap_graph(), backend), tmp_path / "wrong.cxr")
    assert [path.name for path in tmp_path.iterdir()] == ["right.cxr"]


def test_the_page_on_backends_names_every_member_of_the_protocols():
    text = (ROOT / "docs" / "adding-a-backend.md").read_text()
    members = {name for protocol in (Backend, Runner) for name in (*vars(protocol), *protocol.__annotations__)}
    missing = [name for name in members if not name.startswith("_") and f"`{name}`" not in text]
    assert len(members) > 15
    assert not missing


def test_the_example_has_a_name_that_is_free():
    assert "onnx-reference" not in BACKENDS
