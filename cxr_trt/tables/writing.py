"""Writing the table of scores: CSV, Parquet, JSON Lines or XLSX by the suffix, or CSV to standard output."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np

from cxr_trt.calibrate.calibration import Calibration, calibrated_column
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import NOTICE, Row, columns, spreadsheet_safe
from cxr_trt.tables.uids import UID_COLUMNS

TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl", ".xlsx")
XLSX_ROWS = 1 << 20  # of a sheet in Excel, the header's among them
SPECIFICATION_KEY, CALIBRATION_KEY = "cxr_trt.specification", "cxr_trt.calibration"  # in a Parquet file's metadata
ENGINE_KEY = "cxr_trt.engine"  # there and in a journal: what the engine is, in words
ROW_GROUP_ROWS = 1000  # rows of a Parquet table that are in memory at once


class CsvWriter:
    """Writes rows and flushes each. Probabilities have as many digits as it takes to read the same float32 again.

    No text is a formula in a spreadsheet (`cxr_trt.tables.rows.spreadsheet_safe`).
    """

    def __init__(
        self, stream: TextIO, findings: Sequence[str], calibration: Calibration | None = None, *, uids: bool = False
    ) -> None:
        self._stream, self._writer = stream, csv.writer(stream, lineterminator="\n")
        self._findings, self._calibration, self._uids = findings, calibration, uids
        self._writer.writerow(all_columns(findings, calibration, uids=uids))

    def write(self, row: Row) -> None:
        cells = all_values(row, self._findings, self._calibration, uids=self._uids)
        self._writer.writerow(map(_csv_cell, cells))
        self._stream.flush()


def _csv_cell(value: str | float | None) -> str | int | None:
    if isinstance(value, str):
        return spreadsheet_safe(value)
    return str(np.float32(value)) if isinstance(value, float) else value


def all_columns(findings: Sequence[str], calibration: Calibration | None, *, uids: bool = False) -> tuple[str, ...]:
    """The columns of a table, with those that a calibration adds, and those of UIDs."""
    calibrated = calibration.columns if calibration else ()
    return (*columns(findings), *calibrated, *(UID_COLUMNS if uids else ()))


def all_values(
    row: Row, findings: Sequence[str], calibration: Calibration | None, *, uids: bool = False
) -> tuple[str | int | float | None, ...]:
    """The cells of a row, in the order of `all_columns`."""
    calibrated = calibration.values(row.probabilities) if calibration else ()
    return (*row.values(findings), *calibrated, *((row.uids or (None,) * len(UID_COLUMNS)) if uids else ()))


def write_table(
    path: Path,
    suffix: str,
    rows: Iterable[Row],
    spec: Specification,
    calibration: Calibration | None = None,
    *,
    root: str | None = None,
    bom: bool = False,
    uids: bool = False,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write a whole table.

    Args:
        path: the file to write, under any name.
        suffix: one of TABLE_SUFFIXES. A Parquet file has the specification in the metadata of its schema.
        rows: the rows in order; only a few of them are in memory at once.
        spec: the specification of the engine that made the rows; it names their findings.
        calibration: the calibration of that engine, whose columns are added, or None.
        root: the folder that the paths are relative to; a Parquet file has it in its metadata too.
        uids: whether there are columns of UIDs.
        facts: what else is written into the metadata of a Parquet file.
        bom: whether a CSV file starts with a byte-order mark, by which Excel knows that it is UTF-8.

    Raises:
        BackendError: the package that writes .xlsx is not installed.
    """
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as stream:
            writer = CsvWriter(stream, spec.findings, calibration, uids=uids)
            for row in rows:
                writer.write(row)
    elif suffix == ".parquet":
        _write_parquet(path, rows, spec, calibration, root, facts or {}, uids=uids)
    else:
        write = _write_json_lines if suffix == ".jsonl" else _write_xlsx
        cells = (all_values(row, spec.findings, calibration, uids=uids) for row in rows)
        write(path, all_columns(spec.findings, calibration, uids=uids), cells)


def _write_json_lines(path: Path, names: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            values = (float(str(np.float32(value))) if isinstance(value, float) else value for value in row)
            stream.write(json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False) + "\n")


def check_xlsx() -> None:
    """Raise BackendError if .xlsx cannot be written here."""
    try:
        import xlsxwriter  # noqa: F401
    except ModuleNotFoundError as error:
        raise BackendError("an .xlsx table needs xlsxwriter; pip install 'cxr-trt[xlsx]'") from error


def _write_xlsx(path: Path, names: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> None:
    import xlsxwriter

    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with path.open("wb") as stream, xlsxwriter.Workbook(stream, options) as book:
        sheet = book.add_worksheet("scores")
        sheet.freeze_panes(1, 1)
        sheet.set_column(0, 0, 40)
        for number, cells in enumerate(chain((names,), rows)):
            if number == XLSX_ROWS:
                raise UsageError(f"{path}: more rows than the {XLSX_ROWS} of a sheet; write .csv or .parquet")
            sheet.write_row(number, 0, cells)


def _write_parquet(
    path: Path,
    rows: Iterable[Row],
    spec: Specification,
    calibration: Calibration | None,
    root: str | None,
    facts: Mapping[str, str],
    *,
    uids: bool,
) -> None:
    import pyarrow as pa  # takes a third of a second, which a CSV need not wait for
    import pyarrow.parquet as pq

    numbers = (*spec.findings, *map(calibrated_column, spec.findings))
    types = {"width": pa.int32(), "height": pa.int32(), **dict.fromkeys(numbers, pa.float32())}
    names = all_columns(spec.findings, calibration, uids=uids)
    fields = [pa.field(name, types.get(name, pa.string())) for name in names]
    metadata: dict[bytes | str, bytes | str] = {SPECIFICATION_KEY: spec.to_json(), "cxr_trt.notice": NOTICE}
    for name, value in facts.items():
        metadata[name] = value
    if root is not None:
        metadata["cxr_trt.root"] = root
    if calibration:
        metadata[CALIBRATION_KEY] = calibration.to_json()
    schema = pa.schema(fields, metadata)
    cells = (all_values(row, spec.findings, calibration, uids=uids) for row in rows)
    remaining = (dict(zip(names, values, strict=True)) for values in cells)
    with pq.ParquetWriter(path, schema) as parquet:
        while group := list(islice(remaining, ROW_GROUP_ROWS)):
            parquet.write_table(pa.Table.from_pylist(group, schema))


def standard_output(findings: Sequence[str], calibration: Calibration | None, *, uids: bool) -> CsvWriter:
    """CSV in UTF-8 to standard output, which stays open. Raises UsageError if it was closed before."""
    if sys.stdout is None:
        raise UsageError("standard output is closed; name a table with -o")
    stream = os.fdopen(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False)
    return CsvWriter(stream, findings, calibration, uids=uids)
