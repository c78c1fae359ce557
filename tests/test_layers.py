"""The contracts on imports in pyproject.toml: they hold, and they would notice."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, with the contracts."""
    pytest.importorskip("importlinter", reason="needs pip install import-linter")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "cxr_trt", tmp_path / "cxr_trt", ignore=shutil.ignore_patterns("models", "__pycache__"))
    return tmp_path


def lint(folder):
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, env={"PATH": ""}, capture_output=True, text=True
    )


def test_packages_import_downwards_only(copy):
    process = lint(copy)
    assert process.returncode == 0, process.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("score/pipeline.py", "import cxr_trt.commands.score"),
        ("images/raster.py", "from cxr_trt.spec import Specification"),
        ("engine/gpu/cuda.py", "from cxr_trt.engine.build import build_bundle"),
    ],
)
def test_an_import_upwards_is_an_error(copy, module, statement):
    with (copy / "cxr_trt" / module).open("a") as file:
        file.write(f"\n{statement}\n")
    process = lint(copy)
    assert process.returncode == 1
    assert "BROKEN" in process.stdout
