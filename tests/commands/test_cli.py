"""The command line as a whole: the group is light, complete, and tells what the machine lacks."""

import shlex
import subprocess
import sys
from importlib.metadata import metadata

import click
import pytest
from packaging.requirements import Requirement

from cxr_trt.cli import COMMANDS, main
from cxr_trt.commands.doctor import install_commands
from cxr_trt.engine.gpu.cuda_versions import CudaVersion

MODULES = {f"cxr_trt.commands.{name.replace('-', '_')}" for name in COMMANDS}


def test_the_help_lists_every_command_and_imports_none():
    code = "import atexit, runpy, sys\natexit.register(lambda: print('imported', *sys.modules))\n"
    code += "sys.argv[1:] = ['--help']; runpy.run_module('cxr_trt', run_name='__main__')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, imported = process.stdout.split("imported ")
    listed = text.split("Commands, in the order of work:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split(maxsplit=1) for line in listed] == [[name, summary] for name, summary in COMMANDS.items()]
    assert max(map(len, text.splitlines())) <= 80
    assert "cxr_trt.cli" in imported.split()
    assert not {*MODULES, "numpy", "cv2", "onnx", "openvino", "rich"} & set(imported.split())


def test_the_help_ends_with_examples_that_can_be_copied(cli):
    examples = [line.strip() for line in cli("--help").output.splitlines() if line.startswith("    cxr-trt ")]
    assert len(examples) == 3
    for example in examples:
        _, name, *arguments = shlex.split(example)
        main.get_command(click.Context(main), name).make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_name_is_a_command_that_explains_itself(cli, name):
    command = main.get_command(click.Context(main), name)
    assert isinstance(command, click.Command)
    assert command.name == name
    result = cli(name, "--help")
    assert result.exit_code == 0
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_an_unknown_command_is_one_sentence(cli):
    result = cli("scroe")
    assert result.exit_code == 2
    assert "No such command 'scroe'. Did you mean 'score'?" in result.stderr


def requirements(extra=""):
    """The packages of an extra on this machine; by default the base dependencies."""
    found = map(Requirement, metadata("cxr-trt").get_all("Requires-Dist"))
    return {
        requirement.name
        for requirement in found
        if (requirement.marker is None) == (extra == "")
        and (requirement.marker is None or requirement.marker.evaluate({"extra": extra}))
        and requirement.name != "cxr-trt"
    }


def test_doctor_knows_every_dependency_but_those_of_development(cli, monkeypatch):
    others = ("dev", "test", "jetson", "cuda12", "tensorrt-cu12", "tensorrt-rtx-cu12")  # not for this driver
    extras = [extra for extra in metadata("cxr-trt").get_all("Provides-Extra") if extra not in others]
    monkeypatch.setattr("cxr_trt.commands.doctor.driver_cuda", lambda: CudaVersion(13, 0))
    commands = install_commands()
    assert set(commands) == requirements().union(*map(requirements, extras))
    assert {"numpy", "openvino", "filelock", "torch", "tensorrt-cu13", "cuda-core", "highdicom"} <= set(commands)
    assert "furo" not in commands
    assert commands["torch"] == "pip install 'cxr-trt[export]'"
    assert commands["numpy"] == "pip install --force-reinstall cxr-trt"
    result = cli("doctor")
    assert result.exit_code == 0
    shown = {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert set(commands) <= shown


def test_doctor_names_the_command_for_what_is_missing(cli, monkeypatch):
    monkeypatch.setattr("cxr_trt.commands.doctor._version", lambda package: None if package == "pydicom" else "1.0")
    (line,) = (line for line in cli("doctor").stdout.splitlines() if line.strip().startswith("pydicom "))
    assert "pip install --force-reinstall cxr-trt" in line
