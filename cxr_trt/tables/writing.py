"""Writing the table of scores: CSV or Parquet by the suffix of the file, or CSV to standard output."""

import csv
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from cxr_trt.calibrate.calibration import Calibration, calibrated_column
from cxr_trt.errors import UsageError
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import NOTICE, Row, columns

TABLE_SUFFIXES = (".csv", ".parquet")
ROW_GROUP_ROWS = 1000  # rows of a Parquet table that are in memory at once


class CsvWriter:
    """Writes rows and flushes each. Probabilities have as many digits as it takes to read the same float32 again."""

    def __init__(self, stream: TextIO, findings: Sequence[str], calibration: Calibration | None = None) -> None:
        self._stream, self._writer = stream, csv.writer(stream, lineterminator="\n")
        self._findings, self._calibration = findings, calibration
        self._writer.writerow(all_columns(findings, calibration))

    def write(self, row: Row) -> None:
        cells = all_values(row, self._findings, self._calibration)
        values = (str(np.float32(value)) if isinstance(value, float) else value for value in cells)
        self._writer.writerow(values)
        self._stream.flush()


def all_columns(findings: Sequence[str], calibration: Calibration | None) -> tuple[str, ...]:
    """The columns of a table, with those that a calibration adds."""
    return (*columns(findings), *calibration.columns) if calibration else columns(findings)


def all_values(
    row: Row, findings: Sequence[str], calibration: Calibration | None
) -> tuple[str | int | float | None, ...]:
    """The cells of a row, in the order of `all_columns`."""
    cells = row.values(findings)
    return (*cells, *calibration.values(row.probabilities)) if calibration else cells


def write_table(
    path: Path, suffix: str, rows: Iterable[Row], spec: Specification, calibration: Calibration | None = None
) -> None:
    """Write a whole table.

    Args:
        path: the file to write, under any name.
        suffix: ".csv" or ".parquet". A Parquet file has the specification in the metadata of its schema.
        rows: the rows in order; only a few of them are in memory at once.
        spec: the specification of the engine that made the rows; it names their findings.
        calibration: the calibration of that engine, whose columns are added, or None.
    """
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = CsvWriter(stream, spec.findings, calibration)
            for row in rows:
                writer.write(row)
    else:
        _write_parquet(path, rows, spec, calibration)


def _write_parquet(path: Path, rows: Iterable[Row], spec: Specification, calibration: Calibration | None) -> None:
    import pyarrow as pa  # takes a third of a second, which a CSV need not wait for
    import pyarrow.parquet as pq

    numbers = (*spec.findings, *map(calibrated_column, spec.findings))
    types = {"width": pa.int32(), "height": pa.int32(), **dict.fromkeys(numbers, pa.float32())}
    names = all_columns(spec.findings, calibration)
    fields = [pa.field(name, types.get(name, pa.string())) for name in names]
    metadata: dict[bytes | str, bytes | str] = {"cxr_trt.specification": spec.to_json(), "cxr_trt.notice": NOTICE}
    if calibration:
        metadata["cxr_trt.calibration"] = calibration.to_json()
    schema = pa.schema(fields, metadata)
    remaining = (dict(zip(names, all_values(row, spec.findings, calibration), strict=True)) for row in rows)
    with pq.ParquetWriter(path, schema) as parquet:
        while group := list(islice(remaining, ROW_GROUP_ROWS)):
            parquet.write_table(pa.Table.from_pylist(group, schema))


def standard_output(findings: Sequence[str], calibration: Calibration | None) -> CsvWriter:
    """CSV in UTF-8 to standard output, which stays open. Raises UsageError if it was closed before."""
    if sys.stdout is None:
        raise UsageError("standard output is closed; name a table with -o")
    stream = os.fdopen(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False)
    return CsvWriter(stream, findings, calibration)
