"""A list of files, divided into shards: the unit of work of a cluster.

A list is a folder, also in object storage, with `list.json` and Parquet files of SHARDS_PER_FILE shards, of which each
row group is a shard. So a process reads the names of its own shards and no others, however long the list is.
`list.json` is written last, so that a list appears whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxr_trt.cluster.shards import LIST_FILE, Shards
from cxr_trt.errors import UsageError
from cxr_trt.hashing import hash_fields, to_hashed_json
from cxr_trt.images.files import Selection, Source
from cxr_trt.images.objects import object_source
from cxr_trt.outputs import check_folder
from cxr_trt.storage import Location, Url, check_bucket, names_in, opened, parse_location, retried, writing

LIST_FORMAT = 1
SHARDS_PER_FILE = 1000
HASH_KEY = b"cxr_trt.rows_sha256"  # in the metadata of each Parquet file, and in `list.json`
FIELDS: list["pa.Field[Any]"] = [
    pa.field("name", pa.string()),
    pa.field("path", pa.binary()),
    pa.field("size", pa.int64()),
]
SCHEMA = pa.schema(FIELDS)


@dataclass(frozen=True)
class FileList:
    """A list that was written before.

    folder: where it is. root: the folder that names are relative to. shards: how its files are divided. sha256: hash of
    the list, which parts carry. hashes: of the rows of each Parquet file.
    """

    folder: Location
    root: str
    shards: Shards
    sha256: str
    hashes: tuple[str, ...]
    _open: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, folder: Location) -> "FileList":
        """Read what is said of a list.

        Raises:
            UsageError: there is none, or it is damaged.
            StorageError: the store does not answer.
        """
        path = folder / LIST_FILE
        try:
            with opened(path) as stream:
                fields = json.loads(stream.read())
            sha256 = fields.pop("sha256")
            if fields["format"] != LIST_FORMAT or hash_fields(fields) != sha256:
                raise ValueError("another format, or changed")
            shards = Shards(int(fields["files"]), int(fields["shard_files"]))
            return cls(folder, str(fields["root"]), shards, sha256, tuple(fields["rows_sha256"]))
        except FileNotFoundError as error:
            raise UsageError(f"{folder}: no list of files; make one: `cxr-trt list XRAYS -o {folder}`") from error
        except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{path}: not a list of `cxr-trt list`, or damaged; make it again") from error

    def sources(self, shard: int) -> list[Source]:
        """The files of a shard, counted from 0, in order.

        Raises:
            UsageError: the list is damaged, or was changed.
            StorageError: the store does not answer.
        """
        number, group = divmod(shard, SHARDS_PER_FILE)
        path = _file(self.folder, number)
        try:
            rows = retried(path, lambda: self._parquet(number).read_row_group(group).to_pylist())
            if len(rows) != self.shards.size(shard):
                raise ValueError("other rows")
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise UsageError(f"{path}: damaged, or of another list; make the list again") from error
        return [_source(row) for row in rows]

    def _parquet(self, number: int) -> Any:
        """Raises ValueError, OSError or ArrowException if the file is not as it was written."""
        if number not in self._open:
            self._open.clear()  # shards are asked for in order, and one open file is enough
            parquet = pq.ParquetFile(opened(_file(self.folder, number)), page_checksum_verification=True)
            if (parquet.metadata.metadata or {}).get(HASH_KEY, b"").decode("ascii") != self.hashes[number]:
                raise ValueError("other rows")
            self._open[number] = parquet
        return self._open[number]


def write_list(
    selection: Selection,
    folder: Location,
    shard_files: int,
    *,
    sizes: Sequence[int] | None = None,
    overwrite: bool,
) -> int:
    """Write a list.

    Args:
        selection: the files.
        folder: where to write it; it is made.
        shard_files: how many files a shard has; the last one has the rest.
        sizes: of the files in bytes; None means that they are asked for.
        overwrite: whether a list that is there may be replaced.

    Returns:
        The bytes of all files together; of files that cannot be read, none.

    Raises:
        UsageError: there is a list already, or it cannot be written.
        StorageError: the store does not answer.
    """
    path = folder / LIST_FILE
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; add --overwrite to replace it, or choose another -o")
    if isinstance(folder, Path):
        check_folder(folder)
    else:
        check_bucket(folder)
    for name in {LIST_FILE} | {name for name in names_in(folder) if name.startswith("list-")}:
        (folder / name).unlink(missing_ok=True)
    shards, total, hashes = Shards(len(selection.sources), shard_files), 0, []
    for number, start in enumerate(range(0, shards.count, SHARDS_PER_FILE)):
        digest = hashlib.sha256()
        with (
            writing(_file(folder, number)) as partial,
            pq.ParquetWriter(
                partial, SCHEMA, compression="zstd", write_statistics=False, write_page_checksum=True
            ) as writer,
        ):
            for shard in range(start, min(start + SHARDS_PER_FILE, shards.count)):
                rows = list(_rows(selection.sources, shards.files_of(shard), sizes))
                total += sum(row["size"] for row in rows)
                for row in rows:
                    digest.update(repr(tuple(row.values())).encode("utf-8"))
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            writer.add_key_value_metadata({HASH_KEY.decode("ascii"): digest.hexdigest()})
        hashes.append(digest.hexdigest())
    with writing(path) as partial:
        fields = {"format": LIST_FORMAT, "root": selection.root, "files": shards.files, "shard_files": shard_files}
        partial.write_text(to_hashed_json({**fields, "rows_sha256": hashes}), encoding="utf-8")
    return total


def _file(folder: Location, number: int) -> Location:
    return folder / f"list-{number:05}.parquet"


def _rows(sources: Sequence[Source], numbers: range, sizes: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    for number in numbers:
        source = sources[number]
        whole = source.url or os.path.abspath(source.path)  # noqa: PTH100 - keeps links
        size = _size(source.path) if sizes is None else sizes[number]
        yield {"name": source.name, "path": os.fsencode(whole), "size": size}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it gets an error row
        return 0


def _source(row: dict[str, Any]) -> Source:
    location = parse_location(os.fsdecode(row["path"]))
    if isinstance(location, Url):
        return object_source(location, row["name"])
    return Source(location, row["name"])
