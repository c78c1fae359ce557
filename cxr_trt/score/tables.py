"""The table of scores: CSV or Parquet on disk, by suffix, or CSV to standard output."""

import csv
import os
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.score.rows import COLUMNS, NOTICE, Row
from cxr_trt.spec import Specification

SUFFIXES = (".csv", ".parquet")
ROW_GROUP = 1000  # rows of a Parquet table that are in memory at once


class CsvWriter:
    """Each row is flushed as it is written. Probabilities have the fewest digits that give back the float32."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._writer = stream, csv.writer(stream, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def write(self, row: Row) -> None:
        values = (str(np.float32(value)) if isinstance(value, float) else value for value in row.values())
        self._writer.writerow(values)
        self._stream.flush()


def write_table(path: Path, suffix: str, rows: Iterable[Row], spec: Specification) -> None:
    """Write a whole table.

    Args:
        path: the file, whatever its name.
        suffix: ".csv" or ".parquet"; in Parquet the specification stands in the schema's metadata.
        rows: in the order of the table; few of them are in memory at once.
        spec: of the engine that made the rows.
    """
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = CsvWriter(stream)
            for row in rows:
                writer.write(row)
    else:
        _write_parquet(path, rows, spec)


def _write_parquet(path: Path, rows: Iterable[Row], spec: Specification) -> None:
    import pyarrow as pa  # takes a third of a second, which a CSV need not wait for
    import pyarrow.parquet as pq

    types = {"width": pa.int32(), "height": pa.int32(), **dict.fromkeys(FINDINGS, pa.float32())}
    fields = [pa.field(name, types.get(name, pa.string())) for name in COLUMNS]
    metadata: dict[bytes | str, bytes | str] = {"cxr_trt.specification": spec.to_json(), "cxr_trt.notice": NOTICE}
    schema = pa.schema(fields, metadata)
    remaining = (dict(zip(COLUMNS, row.values(), strict=True)) for row in rows)
    with pq.ParquetWriter(path, schema) as parquet:
        while group := list(islice(remaining, ROW_GROUP)):
            parquet.write_table(pa.Table.from_pylist(group, schema))


def standard_output() -> CsvWriter:
    """CSV in UTF-8 to standard output, which stays open. Raises UsageError if it was closed before."""
    if sys.stdout is None:
        raise UsageError("standard output is closed; name a table with -o")
    return CsvWriter(os.fdopen(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False))
