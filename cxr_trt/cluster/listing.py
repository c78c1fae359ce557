"""A list of files, divided into shards: the unit of work of a cluster.

A list is a folder with one Parquet file, of which each row group is a shard. So a process reads the names of its own
shards and no others, however long the list is.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_trt.errors import UsageError
from cxr_trt.hashing import hash_file
from cxr_trt.images.files import Selection, Source
from cxr_trt.outputs import check_folder, replacing

LIST_FILE = "list.parquet"
ROOT_KEY = b"cxr_trt.root"
FIELDS: list["pa.Field[Any]"] = [
    pa.field("name", pa.string()),
    pa.field("path", pa.binary()),
    pa.field("size", pa.int64()),
]
SCHEMA = pa.schema(FIELDS)


@dataclass(frozen=True)
class FileList:
    """A list that was written before.

    folder: where it is. root: the folder that names are relative to. files: how many there are. shards: how many.
    sha256: hash of the list, which parts carry.
    """

    folder: Path
    root: str
    files: int
    shards: int
    sha256: str

    @classmethod
    def open(cls, folder: Path) -> "FileList":
        """Read what is said of a list. Raises UsageError if there is none, or it is damaged."""
        path = folder / LIST_FILE
        try:
            parquet = pq.ParquetFile(path)
            root = parquet.schema_arrow.metadata[ROOT_KEY].decode("utf-8")
            if parquet.schema_arrow.remove_metadata() != SCHEMA:
                raise ValueError("other columns")
        except FileNotFoundError as error:
            raise UsageError(f"{folder}: no list of files; make one: `cxr-trt list XRAYS -o {folder}`") from error
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: not a list of `cxr-trt list`, or damaged; make it again") from error
        metadata = parquet.metadata
        return cls(folder, root, metadata.num_rows, metadata.num_row_groups, hash_file(path))

    def shard(self, number: int) -> list[Source]:
        """The files of a shard, counted from 0, in order."""
        table = self._parquet.read_row_group(number)
        paths = (Path(os.fsdecode(path)) for path in table["path"].to_pylist())
        return [Source(path, name) for path, name in zip(paths, table["name"].to_pylist(), strict=True)]

    def shard_sizes(self) -> list[int]:
        """How many files each shard has."""
        metadata = self._parquet.metadata
        return [metadata.row_group(number).num_rows for number in range(self.shards)]

    @cached_property
    def _parquet(self) -> Any:
        return pq.ParquetFile(self.folder / LIST_FILE)


def write_list(selection: Selection, folder: Path, shard_files: int, *, overwrite: bool) -> int:
    """Write a list.

    Args:
        selection: the files.
        folder: where to write it; it is made.
        shard_files: how many files a shard has; the last one has the rest.
        overwrite: whether a list that is there may be replaced.

    Returns:
        The bytes of all files together; of files that cannot be read, none.

    Raises:
        UsageError: there is a list already, or it cannot be written.
    """
    path = folder / LIST_FILE
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; add --overwrite to replace it, or choose another -o")
    check_folder(folder)
    total = 0
    schema = SCHEMA.with_metadata({ROOT_KEY: selection.root})
    with replacing(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in range(0, len(selection.sources), shard_files):
            rows = list(_rows(selection.sources[start : start + shard_files]))
            total += sum(row["size"] for row in rows)
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return total


def _rows(sources: tuple[Source, ...]) -> Iterator[dict[str, Any]]:
    for source in sources:
        try:
            size = source.path.stat().st_size
        except OSError:  # it gets an error row
            size = 0
        whole = os.path.abspath(source.path)  # noqa: PTH100 - keeps links
        yield {"name": source.name, "path": os.fsencode(whole), "size": size}
