"""Reading tables of scores, and columns of any table."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cxr_trt.errors import UsageError
from cxr_trt.tables.rows import findings_of, without_apostrophe

MAX_HEADER_BYTES = 1 << 20  # of a CSV file, to tell its columns, their separator, and whether it is text


def read_findings(scores: Path) -> tuple[str, ...]:
    """Read which findings a table of scores has, by the names of its columns (`cxr_trt.tables.rows.findings_of`).

    Raises:
        UsageError: it cannot be read, or has no column `path` or none of a finding.
    """
    header = read_header(scores, ("path",))
    findings = findings_of(header)
    if "path" not in header or not findings:
        missing = "of a finding" if "path" in header else "path"
        raise UsageError(f"{scores}: has no column {missing}; a table of scores has `path` and a column per finding")
    return findings


def read_table(path: Path, required: tuple[str, ...], optional: tuple[str, ...], text: tuple[str, ...]) -> pa.Table:
    """Read columns of a .csv or .parquet file: those in `text` as strings, the others as float64.

    Args:
        path: the file.
        required: names of columns that it must have.
        optional: names of columns that it may have.
        text: names of the columns that are text.

    Raises:
        UsageError: it cannot be read, or lacks a required column.
    """
    types = {name: pa.string() if name in text else pa.float64() for name in (*required, *optional)}
    header = read_header(path, required)
    if missing := [name for name in required if name not in header]:
        raise UsageError(f"{path}: has no column {', '.join(missing)}; it needs {', '.join(required)}")
    if repeated := [name for name, count in Counter(header).items() if count > 1 and name in types]:
        raise UsageError(f"{path}: has more than one column {', '.join(repeated)}; keep one")
    wanted = [name for name in types if name in header]
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=wanted)
        else:
            parsing = pacsv.ParseOptions(newlines_in_values=True)
            table = pacsv.read_csv(path, None, parsing, pacsv.ConvertOptions(column_types=types))
        table = table.select(wanted).cast(pa.schema([(name, types[name]) for name in wanted]))
        return table if path.suffix == ".parquet" else _with_own_texts(table)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _with_own_texts(table: pa.Table) -> pa.Table:
    """A CSV's texts without the apostrophes that keep a spreadsheet from taking them for formulas."""
    for number, field in enumerate(table.schema):
        if field.type == pa.string() and pc.any(pc.starts_with(table[number], "'")).as_py():
            texts = [text and without_apostrophe(text) for text in table[number].to_pylist()]
            table = table.set_column(number, field, pa.array(texts, pa.string()))
    return table


def read_header(path: Path, required: tuple[str, ...]) -> list[str]:
    """The columns of a table that needs those `required`. Raises UsageError if it is no table."""
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open("rb") as stream:
            start = stream.read(MAX_HEADER_BYTES)
        if b"\0" in start:
            raise UsageError(f"{path}: not a table but a binary file; give a .csv or .parquet file")
        line = start.decode("utf-8-sig", "replace").split("\n", 1)[0].rstrip("\r")
        for separator, name in ((";", "semicolons"), ("\t", "tabs")):
            if set(required) <= {cell.strip().strip('"') for cell in line.split(separator)} and separator in line:
                raise UsageError(f"{path}: its columns are separated by {name}; save it as CSV with commas")
        return next(csv.reader([line]), [])
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such table") from error
    except (pa.ArrowException, csv.Error, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_facts(path: Path) -> dict[str, str]:
    """What stands in the metadata of a Parquet file's schema, by name; nothing of other files."""
    if path.suffix != ".parquet":
        return {}
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in metadata.items()}


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = str(error).splitlines()[0]
    return UsageError(f"{path}: cannot be read as a table ({reason}); give a .csv or .parquet file")


def names_of(table: pa.Table, column: str, path: Path) -> list[str]:
    """The names in a column, each of which must be there once. Raises UsageError."""
    return check_names([name or "" for name in table[column].to_pylist()], path)


def check_names(names: list[str], path: Path) -> list[str]:
    """The names as they are. Raises UsageError if there are none, or one is there twice."""
    if not names:
        raise UsageError(f"{path}: has no rows")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{path}: {name!r} has {count} rows; an image must have one")
    return names


def read_paths(scores: Path) -> list[str]:
    """Read the paths of a table of scores, without error rows.

    Raises:
        UsageError: as `read_table` does; or a path is there twice.
    """
    table = read_table(scores, ("path",), optional=("error",), text=("path", "error"))
    errors = table["error"].to_pylist() if "error" in table.schema.names else [None] * len(table)
    return [path for path, error in zip(names_of(table, "path", scores), errors, strict=True) if not error]


def matrix(table: pa.Table, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """A column per name, [rows, names]; NaN where a cell is empty."""
    return columns_of(table, names).astype(np.float64)


def columns_of(table: pa.Table, names: tuple[str, ...]) -> npt.NDArray[Any]:
    """A column per name, [rows, names]."""
    if not names:
        return np.empty((len(table), 0))
    return np.stack([table[name].to_numpy() for name in names], axis=1)
