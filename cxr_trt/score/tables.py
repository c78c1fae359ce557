"""The table of scores on disk: CSV or Parquet, by suffix. It appears under its name when it is complete."""

import csv
import sys
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import check_output
from cxr_trt.score.rows import COLUMNS, NOTICE, Row
from cxr_trt.spec import Specification

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
        if self._stream is not sys.stdout:
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
    """A table at `path`, written beside it under a `.partial` name until `publish`.

    If the run ends before that, by an error or Ctrl-C, the rows so far stay in the partial file.
    """

    def __init__(self, path: Path, spec: Specification, *, overwrite: bool) -> None:
        """Raises UsageError if the suffix is neither .csv nor .parquet, or the path cannot be written."""
        check_output(path, overwrite=overwrite)
        self.path, self.partial = path, path.with_name(f"{path.stem}.partial{path.suffix}")
        self._writer: Writer
        try:
            if path.suffix == ".csv":
                self._writer = CsvWriter(self.partial.open("w", newline="", encoding="utf-8"))
            elif path.suffix == ".parquet":
                self._writer = ParquetWriter(self.partial, spec)
            else:
                raise UsageError(f"{path}: the table must end in .csv or .parquet")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another path") from error

    def write(self, row: Row) -> None:
        """Raises UsageError if the disk is full or gone."""
        try:
            self._writer.write(row)
        except OSError as error:
            raise UsageError(f"{self.partial}: cannot be written ({error.strerror}); mend it and run again") from error

    def close(self) -> None:
        """Finish the partial file, so that it can be read."""
        self._writer.close()

    def publish(self) -> None:
        """Give the closed table its name."""
        self.partial.replace(self.path)
