import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.score.rows import COLUMNS, Row
from cxr_trt.score.tables import ROW_GROUP, Table
from cxr_trt.spec import Specification

PROBABILITIES = tuple(np.random.default_rng(0).random(14, np.float32).tolist())
SCORED = Row('a/b "c",\nd.png', "0" * 64, 1024, 900, "PNG", PROBABILITIES, ("dark", "small"), None, "ab-cd")
FAILED = Row("e.png", None, None, None, None, None, (), "the file is empty", "ab-cd")


def write(path, rows, publish=True, overwrite=False):
    with Table(path, Specification(), overwrite=overwrite) as table:
        for row in rows:
            table.write(row)
        if publish:
            table.publish()
    return table


def test_csv(tmp_path):
    write(tmp_path / "scores.csv", [SCORED, FAILED])
    with (tmp_path / "scores.csv").open(newline="") as file:
        header, scored, failed = csv.reader(file)
    assert (
        tuple(header)
        == COLUMNS
        == ("path", "sha256", "width", "height", "format", *FINDINGS, "warnings", "error", "engine")
    )
    assert scored[:5] == [SCORED.path, "0" * 64, "1024", "900", "PNG"]
    assert np.array_equal(np.array(scored[5:19], np.float32), np.array(PROBABILITIES, np.float32))
    assert scored[19:] == ["dark; small", "", "ab-cd"]
    assert failed == ["e.png", *[""] * 18, "", "the file is empty", "ab-cd"]


def test_parquet_over_several_row_groups(tmp_path):
    rows = [SCORED] * (ROW_GROUP + 1) + [FAILED]
    write(tmp_path / "scores.parquet", rows)
    table = pq.read_table(tmp_path / "scores.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert table.num_rows == len(rows)
    assert table["Mass"].to_pylist() == [PROBABILITIES[4]] * (ROW_GROUP + 1) + [None]
    assert table["error"].to_pylist()[-1] == "the file is empty"
    assert table.schema.metadata[b"cxr_trt.specification"].decode() == Specification().to_json()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_until_it_is_published_a_table_is_partial_and_readable(tmp_path, suffix):
    target = tmp_path / f"scores.{suffix}"
    table = write(target, [SCORED], publish=False)
    assert [path.name for path in tmp_path.iterdir()] == [f"scores.partial.{suffix}"]
    if suffix == "parquet":
        assert pq.read_table(table.partial).num_rows == 1
    else:
        with table.partial.open(newline="") as file:
            assert len(list(csv.reader(file))) == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_error_between_rows_loses_none(tmp_path, suffix):
    with pytest.raises(MemoryError), Table(tmp_path / f"a.{suffix}", Specification(), overwrite=False) as table:
        table.write(SCORED)
        raise MemoryError
    if suffix == "parquet":
        assert pq.read_table(table.partial).num_rows == 1
    else:
        assert table.partial.read_text().count(",PNG,") == 1


def test_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "a.partial.csv").symlink_to("/dev/full")
    with pytest.raises(UsageError, match="No space left"):
        write(tmp_path / "a.csv", [SCORED], overwrite=True)


def test_rows_of_a_stopped_run_are_not_overwritten(tmp_path):
    write(tmp_path / "a.csv", [SCORED], publish=False)
    with pytest.raises(UsageError, match="rows of a run that was stopped"):
        Table(tmp_path / "a.csv", Specification(), overwrite=False)


def test_an_existing_table_is_replaced_only_on_request(tmp_path):
    (tmp_path / "scores.csv").write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        Table(tmp_path / "scores.csv", Specification(), overwrite=False)
    write(tmp_path / "scores.csv", [SCORED], publish=False, overwrite=True)
    assert (tmp_path / "scores.csv").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "reason"), [("scores.xlsx", ".csv or .parquet"), ("a.csv/scores.csv", "cannot be made")]
)
def test_paths_that_cannot_be(tmp_path, name, reason):
    (tmp_path / "a.csv").touch()
    with pytest.raises(UsageError, match=reason):
        Table(tmp_path / name, Specification(), overwrite=False)
