"""The command `cxr-trt list`: writes a list of files in shards, which machines of a cluster can score independently."""

from pathlib import Path

import click

from cxr_trt.cluster.listing import FileList, write_list
from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import PATH, overwrite_option
from cxr_trt.commands.selection import choose_files, selection_options
from cxr_trt.images.files import counted
from cxr_trt.words import quantity


@click.command()
@click.argument("paths", nargs=-1, type=PATH)
@selection_options
@click.option("-o", "--output", type=PATH, required=True, help="The folder to write the list into.")
@click.option(
    "--shard",
    type=click.IntRange(1, 100_000),
    default=512,
    show_default=True,
    help="Files per shard. A shard is scored as a whole: what is lost with a machine is at most that.",
)
@overwrite_option
@message_options
def list(
    paths: tuple[Path, ...],
    files_from: Path | None,
    exclude: tuple[str, ...],
    limit: int | None,
    output: Path,
    shard: int,
    overwrite: bool,
) -> None:
    """List the X-rays in PATHS, in shards that can be scored anywhere: with `cxr-trt score LIST --part 7/100`."""
    selection = choose_files(paths, files_from, exclude, limit)
    total = write_list(selection, output, shard, overwrite=overwrite)
    shards = FileList.open(output).shards
    say(f"{output}: {quantity(len(selection.sources), 'file')} in {quantity(shards, 'shard')}, {total / 1e6:.1f} MB")
    if selection.skipped:
        say(f"left out: {counted(selection.skipped)}")
