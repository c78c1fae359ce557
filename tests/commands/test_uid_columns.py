"""Columns with the UIDs of DICOM files, or with their pseudonyms: only where they are asked for."""

import csv
import hashlib
import hmac
import json
import sqlite3
from contextlib import closing

import cv2
import numpy as np
import pydicom
import pytest

from cxr_trt.tables.uids import UID_COLUMNS

KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
KEY = "0123456789abcdef0123456789abcdef"


pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")


@pytest.fixture
def xrays(tmp_path, radiographs):
    """Two DICOM files of one study, one whose UID is no UID, and a PNG."""
    folder = tmp_path / "xrays"
    folder.mkdir()
    dataset = pydicom.dcmread(radiographs / "RG1_UNCR.dcm")
    dataset.save_as(folder / "a.dcm")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(folder / "b.dcm")
    dataset.SeriesInstanceUID = "=1+1"
    dataset.save_as(folder / "c.dcm")
    cv2.imwrite(str(folder / "d.png"), np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8))
    return folder


@pytest.fixture
def score(cli, xrays, cheap_bundle, tmp_path):
    def score(*options, code=0, output="s.csv"):
        result = cli("score", xrays, "-e", cheap_bundle, "-o", tmp_path / output, "--workers", 1, *options)
        assert result.exit_code == code, result.output
        return result

    return score


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def uids_of(path):
    return {name: tuple(row[column] for column in UID_COLUMNS) for name, row in rows_of(path).items()}


def in_files(xrays):
    datasets = {name: pydicom.dcmread(xrays / name) for name in ("a.dcm", "b.dcm", "c.dcm")}
    found = {name: tuple(str(dataset[keyword].value) for keyword in KEYWORDS) for name, dataset in datasets.items()}
    found["c.dcm"] = (found["c.dcm"][0], "", found["c.dcm"][2])  # it is none
    return {**found, "d.png": ("", "", "")}


def journal_text(path):
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(text for (text,) in database.execute("SELECT row FROM scored"))


def test_they_are_left_out_unless_they_are_asked_for(score, xrays, tmp_path):
    score()
    assert not set(UID_COLUMNS) & set(rows_of(tmp_path / "s.csv")["a.dcm"])
    for uid in in_files(xrays)["a.dcm"]:
        assert uid not in (tmp_path / "s.csv").read_text() + journal_text(tmp_path / "s.csv.journal")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_uids_of_the_files(score, xrays, tmp_path, suffix):
    score("--uids", output=f"s{suffix}")
    path = tmp_path / f"s{suffix}"
    if suffix == ".csv":
        assert uids_of(path) == in_files(xrays)
    elif suffix == ".jsonl":
        found = {row["path"]: row for row in map(json.loads, path.read_text().splitlines())}
        assert [found["a.dcm"][column] for column in UID_COLUMNS] == list(in_files(xrays)["a.dcm"])
        assert found["d.png"]["study_uid"] is None
    else:
        parquet = pytest.importorskip("pyarrow.parquet").read_table(path)
        assert parquet.column_names[-3:] == list(UID_COLUMNS)
        assert parquet["instance_uid"].to_pylist()[1] == "1.2.3"


def test_pseudonyms_are_uids_of_their_own_and_the_same_for_the_same_study(score, xrays, tmp_path):
    (tmp_path / "key").write_text(KEY + "\n")
    score("--pseudonyms", tmp_path / "key")
    found, real = uids_of(tmp_path / "s.csv"), in_files(xrays)
    digest = hmac.new(KEY.encode(), real["a.dcm"][0].encode(), hashlib.sha256).digest()
    assert found["a.dcm"][0] == f"2.25.{int.from_bytes(digest[:16], 'big')}"
    assert found["a.dcm"][:2] == found["b.dcm"][:2]
    assert found["a.dcm"][2] != found["b.dcm"][2]
    assert (found["c.dcm"][1], found["d.png"]) == ("", ("", "", ""))
    assert all(len(uid) <= 64 and pydicom.uid.UID(uid).is_valid for row in found.values() for uid in row if uid)
    text = (tmp_path / "s.csv").read_text() + journal_text(tmp_path / "s.csv.journal")
    assert not [uid for row in real.values() for uid in row if len(uid) > 8 and uid in text]


def test_an_earlier_run_is_used_only_if_its_columns_are_the_same(score, xrays, tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "other").write_text(KEY[::-1])
    assert "(4 of them in an earlier run)" not in score("--uids").stderr
    assert "(4 of them in an earlier run)" in score("--uids").stderr
    assert "earlier run" not in score("--pseudonyms", tmp_path / "key").stderr
    first = uids_of(tmp_path / "s.csv")
    assert "earlier run" not in score("--pseudonyms", tmp_path / "other").stderr
    assert uids_of(tmp_path / "s.csv")["a.dcm"] != first["a.dcm"]
    assert "(4 of them in an earlier run)" in score().stderr
    assert "study_uid" not in rows_of(tmp_path / "s.csv")["a.dcm"]


def test_rows_that_are_kept_do_not_bring_uids_of_another_kind(score, xrays, tmp_path):
    (tmp_path / "key").write_text(KEY)
    score("--uids")
    for name in ("a.dcm", "b.dcm"):
        (xrays / name).rename(tmp_path / name)
    score("--append", "--pseudonyms", tmp_path / "key")
    found = uids_of(tmp_path / "s.csv")
    assert found["a.dcm"] == found["b.dcm"] == ("", "", "")
    assert found["c.dcm"][0].startswith("2.25.")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--pseudonyms", "missing"), "missing: the key cannot be read (No such file or directory); make one: openssl"),
        (
            ("--pseudonyms", "short"),
            "short: has 5 bytes, but a key has 16 to 4096; make one: openssl rand -hex 32 > short",
        ),
        (("--uids", "--pseudonyms", "short"), "exclude each other"),
    ],
)
def test_mistakes_are_one_sentence(score, tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("12345\n")
    assert sentence in score(*options, code=2).stderr
    assert not (tmp_path / "s.csv").exists()


def test_a_report_and_an_evaluation_read_the_table(cli, score, tmp_path):
    score("--uids")
    assert cli("report", tmp_path / "s.csv", "-o", tmp_path / "r.html").exit_code == 0
    assert "study_uid" not in (tmp_path / "r.html").read_text()
