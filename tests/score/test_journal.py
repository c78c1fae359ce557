"""The journal by itself, and how the command continues with it."""

import csv
import dataclasses
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import cv2
import numpy as np
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle

from cxr_trt.errors import UsageError
from cxr_trt.outputs import locked
from cxr_trt.score.journal import Journal
from cxr_trt.tables.rows import Row

SCORED = Row("a.png", "0" * 64, 9, 8, "PNG", (0.1, *[np.float32(1 / 3).item()] * 13), ("dark",), None, "engine")
FAILED = Row("b.png", None, None, None, None, None, (), "the file is empty", "engine")


def test_rows_come_back_as_they_were(tmp_path):
    with Journal(tmp_path / "j", fresh=False) as journal:
        journal.add(SCORED, None)
        journal.add(FAILED, None)
    with Journal(tmp_path / "j", fresh=False) as journal:
        assert list(journal.rows(["b.png", "a.png"])) == [FAILED, SCORED]
        assert journal.row("a.png", "engine", None) == SCORED
        assert journal.row("a.png", "another engine", None) is None
        assert journal.row("b.png", "engine", None) is None  # an error is tried again
        assert journal.row("c.png", "engine", None) is None
    with Journal(tmp_path / "j", fresh=True) as journal:
        assert journal.row("a.png", "engine", None) is None


def test_files_beside_the_table_are_part_of_what_is_known(tmp_path):
    with Journal(tmp_path / "j", fresh=False) as journal:
        journal.add(SCORED, "3 in maps")
        assert journal.row("a.png", "engine", "3 in maps") == journal.row("a.png", "engine", None) == SCORED
        assert journal.row("a.png", "engine", "4 in maps") is None
        journal.add(SCORED, None)
        assert journal.row("a.png", "engine", "3 in maps") is None


@pytest.mark.parametrize("rows", [[], [FAILED]])
def test_a_journal_of_no_further_use_is_removed(tmp_path, rows):
    with Journal(tmp_path / "j", fresh=False) as journal:
        for row in rows:
            journal.add(row, None)
    assert not list(tmp_path.iterdir())


def test_a_row_is_on_the_disk_when_it_was_added(tmp_path):
    code = """
import os, sys
from cxr_trt.score.journal import Journal
from cxr_trt.tables.rows import Row
journal = Journal(__import__("pathlib").Path(sys.argv[1]), fresh=False)
journal.add(Row("a.png", "0" * 64, 9, 8, "PNG", (0.5,) * 14, (), None, "engine"), None)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "j"]).returncode == -signal.SIGKILL
    with Journal(tmp_path / "j", fresh=False) as journal:
        assert journal.row("a.png", "engine", None).probabilities == (0.5,) * 14


def test_a_full_disk_is_one_sentence_and_the_rows_stay(tmp_path):
    """Here a limit on the size of files; SIGXFSZ is ignored by Python."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / "j", fresh=False) as journal:
        journal.add(SCORED, None)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(UsageError, match="j: cannot be written"):
                for i in range(1000):
                    journal.add(Row(f"{i}.png", *[None] * 5, (), "e" * 1000, "engine"), None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(journal.rows(["a.png"])) == [SCORED]


@pytest.mark.parametrize("change", ["PRAGMA user_version = 99", "UPDATE scored SET row = '{}'"])
def test_another_version_and_damage_are_named(tmp_path, change):
    with Journal(tmp_path / "j", fresh=False) as journal:
        journal.add(SCORED, None)
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as database:
        database.execute(change)
    with pytest.raises(UsageError, match=r"not a journal .*--fresh"), Journal(tmp_path / "j", fresh=False) as journal:
        journal.row("a.png", "engine", None)


VERSION_1 = """
CREATE TABLE scored (path TEXT PRIMARY KEY, engine TEXT, heatmaps TEXT, is_error INTEGER, row TEXT) WITHOUT ROWID;
CREATE TABLE made (what TEXT PRIMARY KEY) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def test_a_journal_of_version_1_is_upgraded_with_all_its_rows(tmp_path):
    with closing(sqlite3.connect(tmp_path / "j", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(VERSION_1)
        for row, heatmaps in ((SCORED, "3 in maps"), (FAILED, None)):
            values = (row.path, row.engine, heatmaps, row.error is not None, json.dumps(dataclasses.asdict(row)))
            database.execute("INSERT INTO scored VALUES (?, ?, ?, ?, ?)", values)
        database.execute("INSERT INTO made VALUES ('the hash of a table')")
    for _ in range(2):
        with Journal(tmp_path / "j", fresh=False) as journal:
            assert journal.row("a.png", "engine", None) == journal.row("a.png", "engine", "3 in maps") == SCORED
            assert journal.row("a.png", "engine", "4 in maps") is None
            assert list(journal.rows(["b.png"])) == [FAILED]
            assert journal.has_made("the hash of a table")
            journal.add(dataclasses.replace(SCORED, path="c.png"), "3 in maps")
    with closing(sqlite3.connect(tmp_path / "j")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (3,)


def command(*arguments):
    return [sys.executable, "-m", "cxr_trt", "score", *map(str, arguments)]


@pytest.fixture
def score(cli, cheap_bundle, tmp_path):
    """Scores the folder xrays into a.csv in this process."""

    def run(*options, engine=cheap_bundle):
        return cli("score", tmp_path / "xrays", "-e", engine, "-o", tmp_path / "a.csv", *options)

    return run


def rows_of(path):
    with path.open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def picture(seed):
    return cv2.imencode(".png", np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8))[1].tobytes()


@pytest.fixture
def xrays(tmp_path):
    """Six pictures and a broken one."""
    (tmp_path / "xrays").mkdir()
    for i in range(6):
        (tmp_path / "xrays" / f"{i}.png").write_bytes(picture(i))
    (tmp_path / "xrays" / "3.png").write_bytes(b"")
    return tmp_path / "xrays"


def test_only_what_is_new_or_changed_is_scored_again(score, xrays, tmp_path):
    assert score().exit_code == 1
    first = rows_of(tmp_path / "a.csv")

    again = score()
    assert again.exit_code == 1
    assert "scored 5 of 6 files (5 of them in an earlier run)" in again.stderr
    assert rows_of(tmp_path / "a.csv") == first

    (xrays / "1.png").write_bytes(picture(11))
    (xrays / "3.png").write_bytes(picture(3))
    (xrays / "4.png").unlink()
    (xrays / "7.png").write_bytes(picture(7))
    changed = score()
    assert changed.exit_code == 0
    assert "scored 6 of 6 files (3 of them in an earlier run)" in changed.stderr
    second = rows_of(tmp_path / "a.csv")
    assert list(second) == ["0.png", "1.png", "2.png", "3.png", "5.png", "7.png"]
    assert second["1.png"]["sha256"] != first["1.png"]["sha256"]
    assert second["1.png"]["Mass"] != first["1.png"]["Mass"]
    assert all(second[name] == first[name] for name in ("0.png", "2.png", "5.png"))

    other = build_cheap_bundle(tmp_path / "other.cxr", views="ten-crop")
    assert "scored 6 of 6 files, " in score(engine=other).stderr
    assert rows_of(tmp_path / "a.csv")["0.png"]["engine"] != first["0.png"]["engine"]
    assert "scored 6 of 6 files, " in score("--fresh", "--overwrite", engine=other).stderr


def test_rows_of_a_journal_of_version_1_are_not_scored_again(score, xrays, tmp_path):
    score()
    whole = (tmp_path / "a.csv").read_text()
    with closing(sqlite3.connect(tmp_path / "a.csv.journal", isolation_level=None)) as database:
        database.execute("ALTER TABLE scored RENAME COLUMN artifacts_key TO heatmaps")
        database.execute("PRAGMA user_version = 1")
    assert "scored 5 of 6 files (5 of them in an earlier run)" in score().stderr
    assert (tmp_path / "a.csv").read_text() == whole


def test_a_table_that_was_edited_is_not_replaced(score, xrays, tmp_path):
    score()
    whole = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").write_text(whole + "a note\n")
    refused = score()
    assert refused.exit_code == 2
    assert "add --overwrite" in refused.stderr
    assert (tmp_path / "a.csv").read_text() == whole + "a note\n"
    assert score("--overwrite").exit_code == 1
    assert (tmp_path / "a.csv").read_text() == whole


def test_when_no_file_can_be_read_any_more_the_table_stays(score, xrays, tmp_path):
    score()
    whole = (tmp_path / "a.csv").read_text()
    for path in xrays.iterdir():
        path.write_bytes(b"")
    refused = score()
    assert refused.exit_code == 2
    assert refused.stderr.endswith(
        f"error: none of the 6 files could be scored; {tmp_path / 'a.csv'} was left as it is\n"
    )
    assert "are kept in" not in refused.stderr
    assert (tmp_path / "a.csv").read_text() == whole


def test_fresh_replaces_what_is_not_a_journal(score, xrays, tmp_path):
    (tmp_path / "a.csv.journal").write_bytes(b"rubbish" * 1000)
    assert score().exit_code == 2
    assert score("--fresh").exit_code == 1


def test_missing_heat_maps_are_made_again(score, xrays, tmp_path):
    score()
    pictured = ("--heatmaps", tmp_path / "maps", "--top", 2)
    assert "(5 of them in an earlier run)" not in score(*pictured).stderr
    made = sorted((tmp_path / "maps").rglob("*.png"))
    assert len([path for path in made if path.is_file()]) == 2 * 5
    assert "(5 of them in an earlier run)" in score(*pictured).stderr
    next((tmp_path / "maps" / "2.png").iterdir()).unlink()
    assert "(4 of them in an earlier run)" in score(*pictured).stderr
    assert sorted((tmp_path / "maps").rglob("*.png")) == made


def test_names_that_would_be_written_alike_keep_their_own_rows(score, tmp_path):
    (tmp_path / "xrays").mkdir()
    for seed, name in enumerate((b"\\xe9.png", b"\xe9.png")):
        (tmp_path / "xrays" / os.fsdecode(name)).write_bytes(picture(seed))
    assert score().exit_code == 0
    rows = rows_of(tmp_path / "a.csv")
    assert set(rows) == {r"\\xe9.png", r"\xe9.png"}
    assert len({row["sha256"] for row in rows.values()}) == 2


def test_a_second_run_on_one_table_is_refused(score, xrays, tmp_path):
    with locked(tmp_path / ".a.csv.lock"):
        second = score()
    assert second.exit_code == 2
    sentence = f"error: {tmp_path / 'a.csv'}: another process is writing there; wait for it or stop it\n"
    assert second.stderr == sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.csv.lock", "xrays"]
    assert score().exit_code == 1


COUNT = 400
SIGNALS = [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 143, "stopped by SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")]


@pytest.fixture
def many_xrays(tmp_path):
    (tmp_path / "xrays").mkdir()
    for i in range(COUNT):
        (tmp_path / "xrays" / f"{i:03}.png").write_bytes(picture(i))
    return tmp_path / "xrays"


def signalled(arguments, wal, number, **handlers):
    """Runs the command and sends it a signal once there are rows, with other handlers if so wanted: code, messages."""
    deaf = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}  # background jobs, and those under nohup
    handlers = {**deaf, **handlers}
    process = subprocess.Popen(
        command(*arguments),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: [signal.signal(signal.Signals[name], handler) for name, handler in handlers.items()],
    )
    deadline = time.monotonic() + 120
    try:
        while not (wal.exists() and wal.stat().st_size > 70_000):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, messages


@pytest.mark.parametrize(("number", "code", "sentence"), SIGNALS)
def test_a_signal_ends_in_a_message_and_the_same_command_continues(
    score, cheap_bundle, many_xrays, tmp_path, number, code, sentence
):
    arguments = [many_xrays, "-e", cheap_bundle, "-o", tmp_path / "a.csv"]
    returned, messages = signalled(arguments, tmp_path / "a.csv.journal-wal", number)
    assert returned == code
    assert sentence in messages
    assert "Traceback" not in messages
    assert f"are kept in {tmp_path / 'a.csv.journal'}; the same command again continues from there" in messages
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.csv.lock", "a.csv.journal", "xrays"]
    with closing(sqlite3.connect(tmp_path / "a.csv.journal")) as database:
        rows = database.execute("SELECT count(*) FROM scored").fetchone()[0]
    assert f"the rows of {rows} files are kept" in messages
    assert 0 < rows < COUNT

    finished = score()
    assert finished.exit_code == 0, finished.stderr
    assert f"scored {COUNT} of {COUNT} files ({rows} of them in an earlier run)" in finished.stderr
    assert list(rows_of(tmp_path / "a.csv")) == [f"{i:03}.png" for i in range(COUNT)]


def test_under_nohup_a_run_outlives_its_terminal(cheap_bundle, many_xrays, tmp_path):
    arguments = [many_xrays, "-e", cheap_bundle, "-o", tmp_path / "a.csv"]
    wal = tmp_path / "a.csv.journal-wal"
    code, messages = signalled(arguments, wal, signal.SIGHUP, SIGHUP=signal.SIG_IGN)
    assert code == 0, messages
    assert len(rows_of(tmp_path / "a.csv")) == COUNT
