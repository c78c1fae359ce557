"""The command `cxr-trt list`: writes a list of files in shards, which machines of a cluster can score independently."""

from pathlib import Path

import click

from cxr_trt.cluster.listing import FileList, write_list
from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import LOCATION, overwrite_option
from cxr_trt.commands.selection import choose_sized_files, selection_options
from cxr_trt.images.files import counted
from cxr_trt.storage import Location
from cxr_trt.words import quantity


@click.command()
@click.argument("paths", nargs=-1, type=LOCATION)
@selection_options
@click.option("-o", "--output", type=LOCATION, required=True, help="The folder to write the list into.")
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
    paths: tuple[Location, ...],
    files_from: Path | None,
    exclude: tuple[str, ...],
    limit: int | None,
    output: Location,
    shard: int,
    overwrite: bool,
) -> None:
    """List the X-rays in PATHS, in shards that can be scored anywhere: with `cxr-trt score LIST --part 7/100`.

    PATHS are files and folders, or a place in object storage: s3://, gs:// or abfss://.
    """
    selection, sizes = choose_sized_files(paths, files_from, exclude, limit)
    total = write_list(selection, output, shard, sizes=sizes, overwrite=overwrite)
    shards = FileList.open(output).shards.count
    say(f"{output}: {quantity(len(selection.sources), 'file')} in {quantity(shards, 'shard')}, {total / 1e6:.1f} MB")
    if selection.skipped:
        say(f"left out: {counted(selection.skipped)}")
