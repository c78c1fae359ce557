"""Checks that pip finds wheels for every extra, all of one major version of CUDA, on the machines they are meant for.

TensorRT's own packages are only named, not resolved: PyPI has them as sources that fetch NVIDIA's libraries as they are
built, and their CUDA stands in their names. For everything else, pip resolves in a dry run, for the Python and the
processor of each machine. pip judges by the machine it runs on what packages require only on some processors.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
EXTRAS = (
    *("tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    *("cuda-cu12", "cuda-cu13", "jetson"),
    *("export", "train", "dicom-results", "plots"),
)
PYTHONS = ("3.10", "3.12")  # of Ubuntu 22.04 with JetPack 6, and of Ubuntu 24.04 with JetPack 7
PROCESSORS = ("x86_64", "aarch64")
AT_ONCE = 4  # pip mostly waits for the package index, but keeps wheels of some GB on disk meanwhile
GLIBC_MINORS = range(17, 36)  # wheels for glibc 2.17 to 2.35, which is that of Ubuntu 22.04
SOURCES = re.compile(r"tensorrt(-rtx)?-cu(\d+)")
PER_CUDA = re.compile(r".*-cu(\d\d)")
VERSIONED_AS_CUDA = ("cuda-bindings", "cuda-toolkit", "nvidia-cuda-runtime")


def main() -> None:
    """Resolve every extra, print what came out, and fail where it is not one version of CUDA."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    machines = list(itertools.product(EXTRAS, PYTHONS, PROCESSORS))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        results = list(threads.map(lambda machine: resolved(extras, *machine), machines))
    for machine, (is_right, found) in zip(machines, results, strict=True):
        print(f"{'ok' if is_right else 'WRONG'}: {', '.join(machine)}: {found}")
    sys.exit(not all(is_right for is_right, _ in results))


def resolved(extras: dict[str, list[str]], extra: str, python: str, processor: str) -> tuple[bool, str]:
    """Whether an extra is of one version of CUDA at most, and which, or why pip cannot resolve it."""
    wanted = [*requirements(extras, "", python, processor), *requirements(extras, extra, python, processor)]
    try:
        majors = cuda_majors(wanted, python, processor)
    except subprocess.CalledProcessError as error:
        return False, error.stderr.strip().splitlines()[-1]
    return len(majors) <= 1, f"CUDA {', '.join(map(str, sorted(majors)))}" if majors else "no CUDA"


def requirements(extras: dict[str, list[str]], extra: str, python: str, processor: str) -> Iterator[str]:
    """The requirements of an extra, with those of the extras in it, for a version of Python and a processor."""
    machine = {"python_version": python, "platform_machine": processor}
    for text in extras[extra]:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate(machine):
            continue
        if requirement.name == "cxr-trt":
            for other in requirement.extras:
                yield from requirements(extras, other, python, processor)
        else:
            yield text


def cuda_majors(wanted: list[str], python: str, processor: str) -> set[int]:
    """The major versions of CUDA of all that pip would install. Raises CalledProcessError if it finds no wheel."""
    sources = [text for text in wanted if SOURCES.fullmatch(Requirement(text).name)]
    majors = {int(match[2]) for text in sources if (match := SOURCES.fullmatch(Requirement(text).name))}
    platforms = [f"--platform=manylinux_2_{minor}_{processor}" for minor in GLIBC_MINORS]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += ["--only-binary=:all:", f"--python-version={python}", f"--platform=manylinux2014_{processor}"]
        command += [*platforms, f"--target={folder}", f"--report={report}"]
        subprocess.run(
            [*command, *(text for text in wanted if text not in sources)], check=True, capture_output=True, text=True
        )
        for package in json.loads(report.read_text(encoding="utf-8"))["install"]:
            name = package["metadata"]["name"].lower().replace("_", "-")
            if match := PER_CUDA.fullmatch(name):
                majors.add(int(match[1]))
            elif name in VERSIONED_AS_CUDA:
                majors.add(int(package["metadata"]["version"].partition(".")[0]))
    return majors


if __name__ == "__main__":
    main()
