"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cxr_trt.storage import Location, parse_location
from cxr_trt.systems import setting_names
from cxr_trt.views import VIEW_SETS

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class LocationType(click.ParamType):  # type: ignore[type-arg]
    """A path, or a place in object storage such as s3://bucket/xrays."""

    name = "path"

    def convert(self, value: str | Location, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        return parse_location(value) if isinstance(value, str) else value


LOCATION = LocationType()

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


def finish(exit_code: int) -> None:
    """End the command with this exit code."""
    click.get_current_context().exit(exit_code)
