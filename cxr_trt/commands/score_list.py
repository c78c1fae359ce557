"""`cxr-trt score LIST`: scores the shards of a list, or a part of them, into a folder of parts."""

from collections.abc import Sequence
from typing import NamedTuple

import click
from click.core import ParameterSource

from cxr_trt.cluster.listing import LIST_FILE, FileList
from cxr_trt.cluster.parts import facts_of_parts, part_path
from cxr_trt.cluster.scoring import score_shards
from cxr_trt.commands.messages import file_count, say
from cxr_trt.commands.options import finish
from cxr_trt.commands.progress import FileProgress
from cxr_trt.commands.run import describe
from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_folder
from cxr_trt.score.engine import Engine
from cxr_trt.storage import Location, Url, check_writable

OPTIONS_OF_A_LIST = ("paths", "bundle", "output", "part", "workers", "overwrite")


class Part(NamedTuple):
    """One of `of` parts of a list, counted from 1: every `of`-th shard."""

    number: int
    of: int

    def shards(self, count: int) -> range:
        """The shards of this part, of a list with `count` shards."""
        return range(self.number - 1, count, self.of)


WHOLE = Part(1, 1)


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


def is_list(paths: Sequence[Location]) -> bool:
    """Whether the command was given a list of `cxr-trt list`, and nothing else."""
    return len(paths) == 1 and (paths[0] / LIST_FILE).is_file()


def check_options(context: click.Context) -> None:
    """Raise UsageError for options that are not for a list."""
    for parameter in context.command.params:
        name = str(parameter.name)
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_given and parameter.expose_value and name not in OPTIONS_OF_A_LIST:
            raise UsageError(f"{parameter.opts[0]} is not for a list of files; leave it out")


def score_list(
    folder: Location, engine: Engine, output: Location | None, part: Part, workers: int | None, *, overwrite: bool
) -> None:
    """Score the shards of a part of a list that have no rows yet, and finish as `cxr-trt score` does."""
    files = FileList.open(folder)
    if output is None or output.suffix:
        raise UsageError("the rows of a list are written in parts: name a folder for them with -o")
    if isinstance(output, Url):
        check_writable(output)
    else:
        check_folder(output)
    mine = part.shards(files.shards.count)
    if overwrite:
        for shard in mine:
            part_path(output, shard).unlink(missing_ok=True)
    done = facts_of_parts(output, files, mine, engine.fingerprint)
    shards = [shard for shard in mine if shard not in done]
    total = sum(map(files.shards.size, shards))
    say(f"scoring {file_count(total)} in {len(shards)} of {len(mine)} shards: {describe(engine)}, {engine.fingerprint}")
    for warning in engine.warnings:
        say(warning, "warning")
    with FileProgress(total) as progress:
        for result in score_shards(engine, files, shards, output, workers):
            if result.row.error:
                say(f"{result.row.path}: {result.row.error}", "error")
            progress.advance(error=result.row.error is not None, skipped=result.skipped is not None)
    say(f"scored {progress.scored} of {file_count(total)}; parts: {output}")
    finish(0 if not progress.errors else 2 if not progress.scored else 1)
