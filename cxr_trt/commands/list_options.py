"""The options of `cxr-trt score` that are for a list of files, which `cxr_trt.commands.score_list` scores."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from cxr_trt.cluster.shards import LIST_FILE
from cxr_trt.errors import UsageError
from cxr_trt.storage import Location

OF_A_LIST = (
    "paths",
    "bundles",
    "output",
    "part",
    "workers",
    "overwrite",
    "address",
    "actors",
    "cpus",
    "gpus",
    "decoders",
)
Command = TypeVar("Command", bound=Callable[..., Any])


class Part(NamedTuple):
    """One of `of` parts of a list, counted from 1: every `of`-th shard."""

    number: int
    of: int

    def shards(self, count: int) -> range:
        """The shards of this part, of a list with `count` shards."""
        return range(self.number - 1, count, self.of)


class PartType(click.ParamType):  # type: ignore[type-arg]
    """Reads "7/100"."""

    name = "I/N"

    def convert(self, value: str | Part, param: click.Parameter | None, ctx: click.Context | None) -> Part:
        if isinstance(value, Part):
            return value
        number, _, of = value.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            self.fail(f"{value!r} is not a part such as 7/100, counted from 1/100 to 100/100", param, ctx)
        return Part(int(number), int(of))


class ListOptions(NamedTuple):
    """The options of `list_options`: which part, on which Ray cluster, and what each actor takes of it."""

    part: Part | None
    address: str | None
    actors: int | None
    cpus: float | None
    gpus: float | None
    decoders: int | None


OPTIONS = (
    click.option(
        "--part",
        type=PartType(),
        help="Of a list of `cxr-trt list`: score only its I-th part of N, such as 7/100. -o then names a folder.",
    ),
    click.option(
        "--ray", "address", metavar="ADDRESS", help="Score a list on this Ray cluster; auto: the one that runs here."
    ),
    click.option("--actors", type=click.IntRange(1), help="With --ray: engines at once. Default: as many as fit."),
    click.option(
        "--cpus",
        type=click.FloatRange(0, min_open=True),
        help="With --ray: CPUs of each engine. Default: a node's, divided among its GPUs; with --decoders, 1 per GPU.",
    ),
    click.option(
        "--gpus",
        type=click.FloatRange(0, min_open=True),
        help="With --ray: GPUs of each engine. Default: 1 if it needs one.",
    ),
    click.option(
        "--decoders",
        type=click.IntRange(1),
        help="With --ray: the most actors that only decode, each on all CPUs that engines leave free on a node. "
        "Default: engines decode for themselves.",
    ),
)


def list_options(command: Command) -> Command:
    """Add the options of a list of files. The command gets them as `of_list`."""

    @wraps(command)
    def with_options(*arguments: Any, **options: Any) -> Any:
        of_list = ListOptions(*(options.pop(name) for name in ListOptions._fields))
        return command(*arguments, of_list=of_list, **options)

    for option in reversed(OPTIONS):
        with_options = option(with_options)
    return with_options  # type: ignore[return-value]


def is_list(paths: Sequence[Location]) -> bool:
    """Whether the command was given a list of `cxr-trt list`, and nothing else."""
    return len(paths) == 1 and (paths[0] / LIST_FILE).is_file()


def check_options_of_a_list(context: click.Context, options: ListOptions) -> None:
    """Raise UsageError for options that are not for a list, or only for one on a cluster."""
    for parameter in context.command.params:
        name = str(parameter.name)
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_given and parameter.expose_value and name not in OF_A_LIST:
            raise UsageError(f"{parameter.opts[0]} is not for a list of files; leave it out")
    if not options.address and (options.actors or options.cpus or options.gpus or options.decoders):
        raise UsageError("--actors, --cpus, --gpus and --decoders are about a Ray cluster; add --ray")


def refuse_options_of_a_list(options: ListOptions) -> None:
    """Raise UsageError for options that only a list has."""
    if any(options):
        what = "--part" if options.part else "--ray" if options.address else "--actors, --cpus, --gpus or --decoders"
        raise UsageError(f"{what} is for a list of files: name one that `cxr-trt list` made")
