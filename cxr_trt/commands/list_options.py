"""The options of `cxr-trt score` that are for a list of files, which `cxr_trt.commands.score_list` scores."""

from collections.abc import Sequence
from typing import NamedTuple

import click
from click.core import ParameterSource

from cxr_trt.cluster.shards import LIST_FILE
from cxr_trt.errors import UsageError
from cxr_trt.storage import Location

OF_A_LIST = ("paths", "bundle", "output", "part", "workers", "overwrite", "address", "actors", "cpus", "gpus")


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


class RayOptions(NamedTuple):
    """Where to run, and what each actor takes; None stands for what `cxr_trt.cluster.ray_runner` chooses."""

    address: str | None
    actors: int | None
    cpus: float | None
    gpus: float | None


def is_list(paths: Sequence[Location]) -> bool:
    """Whether the command was given a list of `cxr-trt list`, and nothing else."""
    return len(paths) == 1 and (paths[0] / LIST_FILE).is_file()


def check_options_of_a_list(context: click.Context, ray: RayOptions) -> None:
    """Raise UsageError for options that are not for a list, or only for one on a cluster."""
    for parameter in context.command.params:
        name = str(parameter.name)
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_given and parameter.expose_value and name not in OF_A_LIST:
            raise UsageError(f"{parameter.opts[0]} is not for a list of files; leave it out")
    if not ray.address and (ray.actors or ray.cpus or ray.gpus):
        raise UsageError("--actors, --cpus and --gpus are about a Ray cluster; add --ray")


def refuse_options_of_a_list(part: Part | None, ray: RayOptions) -> None:
    """Raise UsageError for options that only a list has."""
    if part or any(ray):
        what = "--part" if part else "--ray" if ray.address else "--actors, --cpus or --gpus"
        raise UsageError(f"{what} is for a list of files: name one that `cxr-trt list` made")
