"""Every command in README.md, CONTRIBUTING.md and docs/ is executed, in order, in a folder for each page.

What cannot be executed here stands in NOT_EXECUTED with its reason; its options, make targets and extras are checked.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner
from inputs import Inputs
from pages import PAGES, ROOT, SHELL, SILENT, blocks, inline_code, name, shell_lines, simple_commands

from benchmarks.catalogue import STUDIES
from cxr_trt.cli import main
from cxr_trt.hashing import hash_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_EXECUTED = {
    r"git clone ": "downloads the project",
    r"cd cxr-trt$": "enters what was cloned",
    r"python3 -m venv ": "makes an environment",
    r"\. \S+/bin/activate$": "enters that environment",
    r"pip install ": "installs packages",
    r"sudo apt-get ": "installs packages of the system",
    r"docker ": "needs a container engine",
    r"openssl rand ": "makes a random key; the pages are given one",
    r"cxr-trt .*s3://": "needs a store; tests/cluster/test_object_storage.py has one",
    r"ray start ": "starts a cluster that listens on all interfaces",
    r"cxr-trt .*--ray ": "needs a cluster; tests/cluster/test_ray.py has one",
    r"make demo$": "CI runs it beside the tests",
    r"make test$": "runs this test",
    r"make test T=": "makes an environment; test_contributing.py runs the tests that CONTRIBUTING.md adds",
    r"python plugins/build.py$": "compiles; tests/plugins runs the same script where the tools are",
    r"cxr-trt .*--backend tensorrt\b": "TensorRT needs an NVIDIA GPU, tensorrt-rtx to run one; see tests/engine",
    r"cxr-trt .*\b(gpu|jetson)\.cxr": "that engine was built by a command that needs a GPU",
    r"cxr-trt .*--calibrate ": "a minute of calibration; tests/precision runs it",
    r"python -m train paper ": "days on a GPU; tests/train/test_training.py trains on 16 small images",
    r"python -m train edge ": "an hour; tests/systems/test_edge.py trains on 16 small images",
    r"python -m train edge-taught ": "an hour; tests/train/test_teacher.py trains with a teacher",
    r"python -m train paper-taught-maps ": "an hour; tests/train/test_inner_teacher.py trains with a teacher",
}
"""Commands that are read but not executed, as regular expressions from the start of the command, and why."""

NOT_EXECUTED_PYTHON = {"xrv.models.DenseNet(weights=": "downloads weights; test_layouts.py makes such a file"}
FOREIGN_OPTIONS = ("--system-site-packages", "--object-store-memory")  # of Python and Ray, named in a text

EXECUTED = ("cxr-trt", "python -m train", "python -m train.split")
CONTEXT = click.Context(main, info_name="cxr-trt")
SUBCOMMANDS = {name: main.get_command(CONTEXT, name) for name in main.list_commands(CONTEXT)}
LINES = [
    (page, *line) for page in PAGES for block in blocks(page) if block.language in SHELL for line in shell_lines(block)
]
COMMANDS = [(page, number, command) for page, number, line in LINES for command in simple_commands(line)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def reason(command):
    text = " ".join(command)
    return next((why for pattern, why in NOT_EXECUTED.items() if re.match(pattern, text)), None)


def program(command):
    """`cxr-trt`, `python -m train`, `make`, ..., and the rest of the words."""
    length = 3 if command[:2] == ["python", "-m"] else 1
    return " ".join(command[:length]), command[length:]


def click_command(command):
    """The click command that is called, its name and its arguments; None if it is none of ours."""
    called, arguments = program(command)
    if called == "cxr-trt":
        if not arguments or arguments[0].startswith("-"):
            return main, called, arguments
        assert arguments[0] in SUBCOMMANDS, f"there is no cxr-trt {arguments[0]}"
        return SUBCOMMANDS[arguments[0]], arguments[0], arguments[1:]
    if called.startswith("python -m train"):
        pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
        module = called.removeprefix("python -m ")
        module = "train.__main__" if module == "train" else module
        __import__(module)
        return sys.modules[module].main, called, arguments
    return None


def check_options(command):
    """Fail unless every option exists."""
    if found := click_command(command):
        known = {option for parameter in found[0].params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.split("=")[0] for word in found[2] if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help", "--version", "-h"}, f"{sorted(given - known)}: no such option of {found[1]}"


def check(command):
    """Fail unless what the command names is there: options, make targets, extras."""
    called, arguments = program(command)
    check_options(command)
    if called == "make":
        targets = {
            word for found in re.findall(r"^([\w ./-]+):(?!=)", Makefile(), re.MULTILINE) for word in found.split()
        }
        unknown = [word for word in arguments if "=" not in word and word not in targets]
        assert not unknown, f"{unknown}: no such target of the Makefile"
    if called == "python -m benchmarks":
        unknown = [word for word in arguments if word not in {*STUDIES, "pages", "NAME"} and not word.startswith("-")]
        assert not unknown, f"{unknown}: no such study"
    if called == "pip" or called == "python -m pip":
        for extras in re.findall(r"(?:cxr-trt|\.)\[([\w,-]+)\]", " ".join(arguments)):
            unknown = set(extras.split(",")) - set(PROJECT["optional-dependencies"])
            assert not unknown, f"{sorted(unknown)}: no such extra in pyproject.toml"


def Makefile():  # noqa: N802 - the file's name
    return (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_has_a_language_that_is_known(page):
    unknown = [f"line {block.line}: {block.language}" for block in blocks(page)]
    unknown = [text for text in unknown if text.split(": ")[1] not in (*SHELL, *SILENT, "python")]
    assert not unknown
    assert f"\n{page.read_text()}".count("\n```") == 2 * len(blocks(page)), "a block is not closed, or is indented"


@pytest.mark.parametrize(
    ("page", "number", "command"), COMMANDS, ids=lambda value: name(value) if isinstance(value, Path) else None
)
def test_every_command_is_executed_or_listed_and_names_what_exists(page, number, command):
    if reason(command) is None:
        assert program(command)[0] in EXECUTED, (
            f"{name(page)}:{number}: neither executed nor in NOT_EXECUTED: {command}"
        )
    check(command)
    if found := click_command(command):
        try:
            found[0].make_context(found[1], list(found[2]))
        except click.ClickException as error:
            pytest.fail(f"{name(page)}:{number}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_in_a_text_names_what_exists(page):
    options = {
        option
        for command in SUBCOMMANDS.values()
        for one in command.params
        for option in (*one.opts, *one.secondary_opts)
    }
    for text in inline_code(page):
        if re.match(r"(cxr-trt|make|pip|python) \w|python -m (train|benchmarks)", text):
            for command in simple_commands(text):
                check(command)
        elif found := re.match(r"--[a-z][\w-]*", text):
            assert found[0] in options | train_options() | {"--help", *FOREIGN_OPTIONS}, (
                f"{text}: no command has that option"
            )


def train_options():
    pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
    from train.__main__ import main as train

    return {option for parameter in train.params for option in parameter.opts}


def test_nothing_is_listed_in_vain():
    texts = [" ".join(command) for _, _, command in COMMANDS]
    assert not [pattern for pattern in NOT_EXECUTED if not any(re.match(pattern, text) for text in texts)]
    python = "".join(block.text for page in PAGES for block in blocks(page) if block.language == "python")
    assert not [text for text in NOT_EXECUTED_PYTHON if text not in python]
    inline = [text for page in PAGES for text in inline_code(page)]
    assert not [option for option in FOREIGN_OPTIONS if option not in inline]


class Step(NamedTuple):
    """What is executed at once: a line of a shell block, or a whole block of Python."""

    line: int
    text: str
    is_python: bool


def steps(page):
    """Everything on a page that is executed, in order."""
    for block in blocks(page):
        if (
            block.language == "python"
            and not block.file
            and not any(text in block.text for text in NOT_EXECUTED_PYTHON)
        ):
            yield Step(block.line, block.text, is_python=True)
        elif block.language in SHELL:
            for number, line in shell_lines(block):
                reasons = [reason(command) for command in simple_commands(line)]
                if not any(reasons):
                    yield Step(number, line, is_python=False)
                else:
                    assert all(reasons), f"{name(page)}:{number}: give what can be executed a line of its own"


def execute(step, built):
    """Run a step in the current folder: in this process, as that saves starting one, if no shell is needed.

    `built` is a folder of what `export` and `build-engine` have made before, by command and source, for other pages.
    """
    if step.is_python:
        exec(step.text, {"__name__": "__main__"})  # noqa: S102
    elif re.search(r"[<>|&;$]|^\w+=", step.text):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        command = ["bash", "-euo", "pipefail", "-c", step.text]
        subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    else:
        (command,) = simple_commands(step.text)
        if command[1] in ("export", "build-engine") and Path(command[2]).is_file():
            (output,) = named_and_made(step)[1]
            key = hashlib.sha256(f"{step.text} {hash_file(Path(command[2]))}".encode()).hexdigest()
            if not (built / key).exists():
                call(command)
                copy(Path(output), built / key)
            elif not Path(output).exists():
                copy(built / key, Path(output))
        else:
            call(command)


def call(command):
    """Call a command of ours in this process."""
    called, _, arguments = click_command(command)
    result = CliRunner().invoke(called, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output[-2000:]


def copy(source, target):
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def named_and_made(step):
    """The words of a step that may name files, and those that it makes."""
    if step.is_python:
        return re.findall(r'"([^"\s]+)"', step.text), []
    named = [word for command in simple_commands(step.text) for word in command]
    return named, [named[i + 1] for i, word in enumerate(named) if word in ("-o", "--output", "--out")]


@pytest.fixture(scope="module")
def inputs(radiographs, cheap_bundle, network):
    """With PyTorch on one thread: the networks are small, and its threads spin where processors are busy."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Inputs(radiographs, cheap_bundle, network)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return tmp_path_factory.mktemp("built")


@pytest.mark.parametrize("page", [page for page in PAGES if any(steps(page))], ids=name)
def test_the_commands_of_a_page_run_in_order(page, inputs, built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [named_and_made(step) for step in steps(page)]
    made = {word for _, step_made in words for word in step_made}
    for word in [word for named, _ in words for word in named if word not in made]:
        inputs.make(word, tmp_path)
    for step in steps(page):
        try:
            execute(step, built)
        except Exception as error:
            raise AssertionError(f"{name(page)}:{step.line}: {step.text}") from error


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_messages_that_a_page_explains_are_in_the_source(page):
    """The first column of tables under `message`; what varies is written as `...`."""
    sources = [path.read_text() for path in (ROOT / "cxr_trt").rglob("*.py")]
    for table in re.findall(r"^\| message \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE):
        for message in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE):
            parts = message.split("...")
            assert any(all(part in source for part in parts) for source in sources), message
