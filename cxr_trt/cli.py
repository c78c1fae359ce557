"""The command line: finds the command, and turns errors and signals into one sentence and an exit code.

Data go to standard output, everything else to standard error.

Exit codes: 0 if all went well; 1 if some files could not be scored or evaluated, or got no DICOM result, and the rest
was written; 2 if no file could be scored, or for a mistake in the call or its inputs; 130 if stopped by Ctrl-C, 143 if
stopped by SIGTERM.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

from cxr_trt.commands.messages import say
from cxr_trt.commands.signals import stoppable
from cxr_trt.errors import CxrTrtError
from cxr_trt.platforms import why_not_here

COMMANDS = {
    "doctor": "Show what this machine can build and run.",
    "export": "Turn a checkpoint into a scoring graph (ONNX).",
    "build-engine": "Build an engine bundle for this machine.",
    "inspect": "Show what an engine bundle is.",
    "score": "Score chest X-rays: PNG, JPEG and DICOM.",
    "list": "List files in shards, for a cluster.",
    "collect": "Put the parts of a cluster's table together.",
    "triton": "Put an engine into a model repository of Triton.",
    "report": "Show a table of scores as one HTML page.",
    "evaluate": "Compare scores with labels: AUC per finding.",
    "calibrate": "Fit probabilities and thresholds to validation data.",
    "compare": "Compare two engines, or an engine and its checkpoint.",
    "benchmark": "Measure how fast an engine is on this machine.",
}
"""In the order of work. Each is a function in a module of the same name in `cxr_trt.commands`."""


class CommandGroup(click.Group):
    """Imports a command only when it is called, so that `--help` and a mistyped command are answered at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"cxr_trt.commands.{name}"), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            _refuse(error, ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, 1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands, in the order of work"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        if reason := why_not_here():
            say(reason, "error")
            ctx.exit(2)
        try:
            with stoppable():
                return super().invoke(ctx)
        except CxrTrtError as error:
            say(str(error), "error")
            ctx.exit(2)
        except click.UsageError as error:
            _refuse(error, ctx)
        except BrokenPipeError:
            raise  # click ends quietly: whoever read the output has had enough
        except OSError as error:
            say(f"{error.filename or 'standard output'}: {error.strerror}", "error")
            ctx.exit(2)
        except KeyboardInterrupt:
            say("stopped")
            ctx.exit(130)


def _refuse(error: click.UsageError, ctx: click.Context) -> NoReturn:
    """Say what is wrong with the call in one sentence."""
    where = (error.ctx or ctx).command_path
    say(f"{error.format_message().removesuffix('.')}; see `{where} --help`", "error")
    ctx.exit(2)


EXAMPLES = """\b
The shipped demonstration network, in one step:
  cxr-trt score xrays/ -o scores.csv
A network of your own:
  cxr-trt build-engine run/best.safetensors -o mine.cxr
  cxr-trt score xrays/ -e mine.cxr -o scores.csv --heatmaps heatmaps/
"""


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
@click.version_option(package_name="cxr-trt", prog_name="cxr-trt")
def main() -> None:
    """Score chest X-rays for the findings of a network. Research use only; not a medical device."""
