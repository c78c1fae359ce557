"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cxr_trt.model.settings import SETTINGS
from cxr_trt.views import VIEW_SETS

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
json_option = click.option("--json", "json_path", type=PATH, help="Also write the result to this file, unrounded.")
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="Decoding processes. Default: one per processor."
)


def resampling_options(command: Command) -> Command:
    """Options of the commands that give intervals."""
    command = click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed for the resamples."
    )(command)
    return click.option(
        "--resamples",
        type=click.IntRange(0),
        default=1000,
        show_default=True,
        help="Resamples of the patients for the 95 % intervals.",
    )(command)


def graph_options(command: Command) -> Command:
    """Options of the commands that may start from a checkpoint."""
    command = click.option(
        "--views", "view_set", type=click.Choice(VIEW_SETS), help="Crops of each X-ray. Default: those of the source."
    )(command)
    return click.option(
        "--setting", type=click.Choice(list(SETTINGS)), help="The network, if the checkpoint does not say which."
    )(command)


def finish(exit_code: int) -> None:
    """End the command with an exit code."""
    click.get_current_context().exit(exit_code)
