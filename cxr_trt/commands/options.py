"""Options that several commands have."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cxr_trt.systems import setting_names
from cxr_trt.views import VIEW_SETS

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
json_option = click.option("--json", "json_path", type=PATH, help="Also write the result to this file, unrounded.")
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="Number of decoding processes. Default: one per processor."
)


def resampling_options(command: Command) -> Command:
    """Add the options of commands that give intervals."""
    command = click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed for the resamples."
    )(command)
    return click.option(
        "--resamples",
        type=click.IntRange(0),
        default=1000,
        show_default=True,
        help="Number of resamples of the patients for the 95 % intervals.",
    )(command)


def graph_options(command: Command) -> Command:
    """Add the options of commands that may start from a checkpoint."""
    command = click.option(
        "--views",
        "view_set",
        type=click.Choice(VIEW_SETS),
        help="Which crops of each X-ray are scored. Default: those of the source.",
    )(command)
    return click.option(
        "--setting",
        type=click.Choice(setting_names()),
        metavar="NAME",
        help="The kind of network, if the checkpoint does not say it: a setting in docs/reference/systems.md.",
    )(command)


def verbose_option(command: Command) -> Command:
    """Add --verbose, which shows what cxr-trt and the backends log."""

    def show_log(context: click.Context, parameter: click.Parameter, is_on: bool) -> None:
        if is_on:
            handler = logging.StreamHandler()  # standard error
            handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
            logger = logging.getLogger("cxr_trt")
            level = logger.level
            logger.setLevel(logging.DEBUG)
            logger.addHandler(handler)
            context.call_on_close(lambda: logger.removeHandler(handler))
            context.call_on_close(lambda: logger.setLevel(level))

    return click.option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=show_log,
        help="Show what the backend logs: all of TensorRT's messages, for example.",
    )(command)


def finish(exit_code: int) -> None:
    """End the command with this exit code."""
    click.get_current_context().exit(exit_code)
