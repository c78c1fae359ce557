"""The command `cxr-trt doctor`: shows what this machine can build and run, and how to install what is missing."""

import os
import platform
from importlib.metadata import PackageNotFoundError, metadata, version

import click
from packaging.requirements import Requirement

from cxr_trt.commands.terminal import show_facts, show_table
from cxr_trt.engine.cpu.openvino import has_bfloat16
from cxr_trt.engine.gpu.tensorrt_plugin import NOT_BUILT, find_plugin
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import UsageError

REINSTALL_COMMAND = "pip install --force-reinstall cxr-trt"


@click.command()
def doctor() -> None:
    """Show what this machine can build and run, and how to install what is missing."""
    show_facts(
        {
            "cxr-trt": version("cxr-trt"),
            "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "bfloat16": "yes: --precision bf16" if has_bfloat16() else "no: this processor does not multiply it",
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
    extras = [extra for extra in own.get_all("Provides-Extra") or () if extra not in ("dev", "test")]
    for extra in ("", *extras):
        for requirement in requirements:
            is_wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if is_wanted and requirement.name != "cxr-trt":
                commands.setdefault(requirement.name, f"pip install 'cxr-trt[{extra}]'" if extra else REINSTALL_COMMAND)
    return commands


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
