"""The table of scores: CSV or Parquet on disk, by suffix, or CSV to standard output."""

import csv
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import check_output
from cxr_trt.score.rows import COLUMNS, NOTICE, Row
from cxr_trt.spec import Specification

SUFFIXES = (".csv", ".parquet")
ROW_GROUP = 1000  # rows that a Parquet table holds in memory before it writes them


class Writer(Protocol):
    """Takes rows one at a time."""

    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


class CsvWriter:
    """Each row is flushed as it is written. Probabilities have the fewest digits that give back the float32."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._writer = stream, csv.writer(stream, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def write(self, row: Row) -> None:
        values = (str(np.float32(value)) if isinstance(value, float) else value for value in row.values())
        self._writer.writerow(values)
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class ParquetWriter:
    """The specification stands in the schema's metadata."""

    def __init__(self, path: Path, spec: Specification) -> None:
        types = {"width": pa.int32(), "height": pa.int32(), **dict.fromkeys(FINDINGS, pa.float32())}
        fields = [pa.field(name, types.get(name, pa.string())) for name in COLUMNS]
        metadata: dict[bytes | str, bytes | str] = {"cxr_trt.specification": spec.to_json(), "cxr_trt.notice": NOTICE}
        self._schema = pa.schema(fields, metadata)
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows = [dict(zip(COLUMNS, row.values(), strict=True)) for row in self._rows]
        self._writer.write_table(pa.Table.from_pylist(rows, self._schema))
        self._rows.clear()


class Table:
    """A table at `path`, written beside it under a `.partial` name until `publish`; a context manager.

    If the run ends before that, by an error or Ctrl-C, the rows so far stay in the partial file. An OSError, such as a
    full disk, becomes a UsageError.
    """

    def __init__(self, path: Path, spec: Specification, *, overwrite: bool) -> None:
        """Raises UsageError if the path cannot be written, or rows of an earlier run would be lost."""
        check_output(path, SUFFIXES, overwrite=overwrite)
        self.path, self.partial = path, path.with_name(f"{path.stem}.partial{path.suffix}")
        if self.partial.exists() and not overwrite:
            raise UsageError(
                f"{self.partial} holds rows of a run that was stopped; move it away, or add --overwrite to lose them"
            )
        self._writer: Writer
        try:
            if path.suffix == ".csv":
                self._writer = CsvWriter(self.partial.open("w", newline="", encoding="utf-8"))
            else:
                self._writer = ParquetWriter(self.partial, spec)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, row: Row) -> None:
        try:
            self._writer.write(row)
        except OSError as error:
            raise self._failure(error) from error

    def publish(self) -> None:
        """Finish the table and give it its name."""
        try:
            self._writer.close()
            self.partial.replace(self.path)
        except OSError as error:
            raise self._failure(error) from error

    def discard(self) -> None:
        """Finish without a table; what stands at `path` stays."""
        self._writer.close()
        self.partial.unlink()

    def __enter__(self) -> "Table":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        except OSError as failure:
            if error is None:
                raise self._failure(failure) from failure

    def _failure(self, error: OSError) -> UsageError:
        return UsageError(f"{self.path}: cannot be written ({error.strerror or error}); choose another path")


def standard_output() -> CsvWriter:
    """CSV in UTF-8 to standard output, which stays open. Raises UsageError if it was closed before."""
    if sys.stdout is None:
        raise UsageError("standard output is closed; name a table with -o")
    return CsvWriter(os.fdopen(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False))
