"""The command `cxr-trt doctor`: shows what this machine can build and run, and how to install what is missing."""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, version

import click
from packaging.requirements import Requirement

from cxr_trt.commands.terminal import show_facts, show_table
from cxr_trt.engine.cpu.openvino import has_bfloat16, has_float16
from cxr_trt.engine.gpu.cuda_versions import cuda_of, driver_cuda, install_command, installed_packages
from cxr_trt.engine.gpu.tensorrt_plugin import NOT_BUILT, find_plugin
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import UsageError
from cxr_trt.processors import processors

SHARED_EXTRAS = ("cuda12", "cuda13")  # what the extras for GPUs have in common
REINSTALL_COMMAND = "pip install --force-reinstall cxr-trt"


@click.command()
def doctor() -> None:
    """Show what this machine can build and run, and how to install what is missing."""
    show_facts(
        {
            "cxr-trt": version("cxr-trt"),
            "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "processors": processors(),
            "bfloat16": "yes: --precision bf16" if has_bfloat16() else "no: this processor does not multiply it",
            "float16": "yes: --precision fp16" if has_float16() else "no: this processor does not compute in it",
            "CUDA": _cuda(),
            "TensorRT plugin": _plugin(),
        }
    )
    packages = [(name, _version(name), command) for name, command in install_commands().items()]
    rows = [(name, found or "-", "" if found else command) for name, found, command in packages]
    show_table(("package", "version", "to install"), rows)
    backends = [
        (name, backend.why_not_build() or "yes", backend.why_not_run() or "yes") for name, backend in BACKENDS.items()
    ]
    show_table(("backend", "builds here", "runs here"), backends)


def install_commands() -> dict[str, str]:
    """Every package that cxr-trt can use on this machine, and the command that installs it, from cxr-trt's metadata."""
    commands: dict[str, str] = {}
    own = metadata("cxr-trt")
    requirements = list(map(Requirement, own.get_all("Requires-Dist") or ()))
    for extra in ("", *filter(_is_for_this_machine, own.get_all("Provides-Extra") or ())):
        command = f"pip install 'cxr-trt[{extra}]'" if extra else REINSTALL_COMMAND
        for requirement in _required(requirements, extra):
            commands.setdefault(requirement.name, command)
    return commands


def _required(requirements: Sequence[Requirement], extra: str) -> Iterator[Requirement]:
    """The requirements of an extra on this machine, with those of cxr-trt's extras in it; "" is the base."""
    for requirement in requirements:
        is_base, is_wanted = (
            requirement.marker is None or requirement.marker.evaluate({"extra": name}) for name in ("", extra)
        )
        if not is_wanted or is_base != (extra == ""):
            continue
        if requirement.name == "cxr-trt":
            for other in requirement.extras:
                yield from _required(requirements, other)
        else:
            yield requirement


def _is_for_this_machine(extra: str) -> bool:
    """Whether a user here may want the extra: of those for GPUs, the one whose CUDA is the driver's."""
    if extra in ("dev", "test", *SHARED_EXTRAS):
        return False
    if extra == "jetson" or extra.startswith(("tensorrt-", "cuda-")):
        backend = extra.rpartition("-cu")[0] or "tensorrt"
        return f"[{extra}]" in install_command(backend, driver_cuda())
    return True


def _cuda() -> str:
    """The CUDA of the driver and of the packages that use it."""
    driver = driver_cuda()
    found = {"driver": driver or "none", **cuda_of(installed_packages())}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _plugin() -> str:
    """Where the pooling plugin is, or what engines do without it."""
    try:
        plugin = find_plugin()
    except UsageError as error:
        return str(error)
    return f"{plugin.path}, sha256 {plugin.sha256[:16]}" if plugin else NOT_BUILT


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
