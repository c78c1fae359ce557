import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxr_trt.findings import FINDINGS
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import Row, columns
from cxr_trt.tables.writing import ROW_GROUP_ROWS, write_table

PROBABILITIES = tuple(np.random.default_rng(0).random(14, np.float32).tolist())
SCORED = Row('a/b "c",\nd.png', "0" * 64, 1024, 900, "PNG", PROBABILITIES, ("dark", "small"), None, "ab-cd")
FAILED = Row("e.png", None, None, None, None, None, (), "the file is empty", "ab-cd")


def test_csv(tmp_path):
    write_table(tmp_path / "scores.csv", ".csv", [SCORED, FAILED], Specification())
    with (tmp_path / "scores.csv").open(newline="") as file:
        header, scored, failed = csv.reader(file)
    assert (
        tuple(header)
        == columns(FINDINGS)
        == ("path", "sha256", "width", "height", "format", *FINDINGS, "warnings", "error", "engine")
    )
    assert scored[:5] == [SCORED.path, "0" * 64, "1024", "900", "PNG"]
    assert np.array_equal(np.array(scored[5:19], np.float32), np.array(PROBABILITIES, np.float32))
    assert scored[19:] == ["dark; small", "", "ab-cd"]
    assert failed == ["e.png", *[""] * 18, "", "the file is empty", "ab-cd"]


@pytest.mark.parametrize("count", [0, 1, ROW_GROUP_ROWS, ROW_GROUP_ROWS + 1])
def test_parquet_over_several_row_groups(tmp_path, count):
    rows = [SCORED] * count + [FAILED]
    write_table(tmp_path / "a table", ".parquet", iter(rows), Specification())
    table = pq.read_table(tmp_path / "a table")
    assert tuple(table.column_names) == columns(FINDINGS)
    assert table.num_rows == len(rows)
    assert table["Mass"].to_pylist() == [PROBABILITIES[4]] * count + [None]
    assert table["error"].to_pylist()[-1] == "the file is empty"
    assert table.schema.metadata[b"cxr_trt.specification"].decode() == Specification().to_json()
