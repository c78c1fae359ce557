"""The page of all commands and options, from the commands themselves: `python docs/commands.py` writes it."""

import re
import textwrap
from pathlib import Path

import click

from cxr_trt.cli import main

PAGE = Path(__file__).parent / "reference" / "commands.md"
HEAD = """\
# Commands

<!-- written by `python docs/commands.py` -->

In the order of work. Data go to standard output; progress and messages go to standard error, as a bar on a terminal and
as plain lines elsewhere. [Exit codes](../guide/troubleshooting.md).

| variable | effect |
|---|---|
| `CXR_TRT_ENGINE` | the engine bundle of `score`, unless `--engine` names one |
| `CXR_TRT_PLUGIN` | the TensorRT plugin, if it is not where `make plugin` puts it |
| `CXR_TRT_CUDA` | `pycuda`: PyCUDA handles streams and memory in place of cuda-core |
| `CUDA_VISIBLE_DEVICES` | the GPUs that an engine may use |
| `NO_COLOR` | no colours |
| `ORT_DISABLE_TELEMETRY` | 0 allows ONNX Runtime's telemetry, which is off otherwise |

For completion in bash, add `eval "$(_CXR_TRT_COMPLETE=bash_source cxr-trt)"` to `~/.bashrc`; for zsh and fish, write
`zsh` or `fish` in place of `bash`.
"""


def render() -> str:
    """The page."""
    parent = click.Context(main, info_name="cxr-trt")
    sections = [HEAD]
    for name in main.list_commands(parent):
        command = main.get_command(parent, name)
        assert command is not None  # noqa: S101
        context = click.Context(command, info_name=name, parent=parent)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        paragraphs = re.split(r"\n\s*\n", (command.help or "").strip())
        text = "\n\n".join(textwrap.fill(" ".join(paragraph.split()), 120) for paragraph in paragraphs)
        options = [one for one in command.params if isinstance(one, click.Option)]
        records = [record for option in options if (record := option.get_help_record(context))]
        rows = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in records]
        table = "\n".join(["", "| option | |", "|---|---|", *rows, ""]) if rows else ""
        sections.append(f"## cxr-trt {name}\n\n`{usage}`\n\n{text}\n{table}")
    return "\n".join(sections)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
