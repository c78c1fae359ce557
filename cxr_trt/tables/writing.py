"""Writing the table of scores: CSV or Parquet by the suffix of the file, or CSV to standard output."""

import csv
import os
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from cxr_trt.calibrate.calibration import CALIBRATED_COLUMNS, CALIBRATION_COLUMNS, Calibration
from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import COLUMNS, NOTICE, Row

TABLE_SUFFIXES = (".csv", ".parquet")
ROW_GROUP_ROWS = 1000  # rows of a Parquet table that are in memory at once


class CsvWriter:
    """Writes rows and flushes each. Probabilities have as many digits as it takes to read the same float32 again."""

    def __init__(self, stream: TextIO, calibration: Calibration | None = None) -> None:
        self._stream, self._writer = stream, csv.writer(stream, lineterminator="\n")
        self._calibration = calibration
        self._writer.writerow(columns(calibration))

    def write(self, row: Row) -> None:
        cells = values_of(row, self._calibration)
        values = (str(np.float32(value)) if isinstance(value, float) else value for value in cells)
        self._writer.writerow(values)
        self._stream.flush()


def columns(calibration: Calibration | None) -> tuple[str, ...]:
    """The columns of a table."""
    return (*COLUMNS, *CALIBRATION_COLUMNS) if calibration else COLUMNS


def values_of(row: Row, calibration: Calibration | None) -> tuple[str | int | float | None, ...]:
    """The cells of a row, in the order of `columns`."""
    return (*row.values(), *calibration.values(row.probabilities)) if calibration else row.values()


def write_table(
    path: Path, suffix: str, rows: Iterable[Row], spec: Specification, calibration: Calibration | None = None
) -> None:
    """Write a whole table.

    Args:
        path: the file to write, under any name.
        suffix: ".csv" or ".parquet". A Parquet file has the specification in the metadata of its schema.
        rows: the rows in order; only a few of them are in memory at once.
        spec: the specification of the engine that made the rows.
        calibration: the calibration of that engine, whose columns are added, or None.
    """
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = CsvWriter(stream, calibration)
            for row in rows:
                writer.write(row)
    else:
        _write_parquet(path, rows, spec, calibration)


def _write_parquet(path: Path, rows: Iterable[Row], spec: Specification, calibration: Calibration | None) -> None:
    import pyarrow as pa  # takes a third of a second, which a CSV need not wait for
    import pyarrow.parquet as pq

    types = {
        "width": pa.int32(),
        "height": pa.int32(),
        **dict.fromkeys((*FINDINGS, *CALIBRATED_COLUMNS), pa.float32()),
    }
    names = columns(calibration)
    fields = [pa.field(name, types.get(name, pa.string())) for name in names]
    metadata: dict[bytes | str, bytes | str] = {"cxr_trt.specification": spec.to_json(), "cxr_trt.notice": NOTICE}
    if calibration:
        metadata["cxr_trt.calibration"] = calibration.to_json()
    schema = pa.schema(fields, metadata)
    remaining = (dict(zip(names, values_of(row, calibration), strict=True)) for row in rows)
    with pq.ParquetWriter(path, schema) as parquet:
        while group := list(islice(remaining, ROW_GROUP_ROWS)):
            parquet.write_table(pa.Table.from_pylist(group, schema))


def standard_output(calibration: Calibration | None) -> CsvWriter:
    """CSV in UTF-8 to standard output, which stays open. Raises UsageError if it was closed before."""
    if sys.stdout is None:
        raise UsageError("standard output is closed; name a table with -o")
    return CsvWriter(os.fdopen(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False), calibration)
