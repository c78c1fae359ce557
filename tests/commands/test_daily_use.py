"""What people do every day: the same table again, lists of files, other formats, what is said on the way."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from cxr_trt.commands.messages import Messages
from cxr_trt.commands.progress import FileProgress, in_words
from cxr_trt.tables.reading import read_paths
from cxr_trt.tables.rows import spreadsheet_safe, without_apostrophe


def rows_of(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def wards(tmp_path):
    """Two folders with pictures of the same names."""
    for number, ward in enumerate(("a", "b")):
        (tmp_path / ward).mkdir()
        for i in range(3):
            noise = np.random.default_rng(10 * number + i).integers(0, 256, (64, 64), np.uint8)
            cv2.imwrite(str(tmp_path / ward / f"{i}.png"), noise)
    return tmp_path


@pytest.fixture
def score(cli, cheap_bundle, wards):
    """Scores folders of the wards; `score("a", "--limit", 1)`."""

    def score(*arguments, table="s.csv", code=0):
        names = [wards / one if one in ("a", "b") else one for one in arguments]
        result = cli("score", *names, "-e", cheap_bundle, "-o", wards / table)
        assert result.exit_code == code, result.output
        return result

    return score


def test_another_folder_does_not_replace_a_table_unasked(score, wards):
    score("a")
    before = (wards / "s.csv").read_bytes()
    refused = score("b", code=2)
    assert "has the rows of 3 files not named now" in refused.stderr
    assert "--append" in refused.stderr
    assert (wards / "s.csv").read_bytes() == before
    assert "not named now" in score("a", "--limit", 1, code=2).stderr
    score("b", "--overwrite")
    assert len(rows_of(wards / "s.csv")) == 3


def test_append_adds_rows_under_names_that_lead_to_the_files(score, wards):
    score("a")
    first = rows_of(wards / "s.csv")
    score("b", "--append")
    both = rows_of(wards / "s.csv")
    assert both[:3] == first
    assert [row["path"] for row in both[3:]] == [str(wards / "b" / f"{i}.png") for i in range(3)]
    assert "(3 of them in an earlier run)" in score("a", "--append").stderr
    assert rows_of(wards / "s.csv") == both


def test_append_keeps_to_one_engine(score, cli, wards, tmp_path):
    from cheap_engine import cheap_bundle

    score("a")
    other = cheap_bundle(tmp_path / "other.cxr", views="ten-crop")
    result = cli("score", wards / "b", "-e", other, "-o", wards / "s.csv", "--append")
    assert result.exit_code == 2
    assert "rows of another engine" in result.stderr


def test_paths_can_be_joined_back_to_the_files(score, cli, wards, cheap_bundle):
    score("a", table="s.parquet")
    schema = pq.read_schema(wards / "s.parquet")
    paths = pq.read_table(wards / "s.parquet")["path"].to_pylist()
    root = schema.metadata[b"cxr_trt.root"].decode()
    assert all(os.path.exists(os.path.join(root, path)) for path in paths)  # noqa: PTH110, PTH118


def test_files_without_a_common_folder_keep_their_whole_path(wards):
    from cxr_trt.images.files import find_files

    selection = find_files([wards / "a" / "0.png", "/bin/sh"])
    assert selection.root == "/"
    assert all(source.name.startswith("/") and os.path.exists(source.name) for source in selection.sources)  # noqa: PTH110


def test_no_cell_of_a_csv_is_a_formula(score, wards):
    for name in ("=HYPERLINK(1).png", "+cmd.png", "@x.png", "'quoted.png", "ünï.png"):
        shutil.copy(wards / "a" / "0.png", wards / "a" / name)
    score("a", "--bom")
    data = (wards / "s.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    cells = [cell for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {"=HYPERLINK(1).png", "+cmd.png", "@x.png", "'quoted.png", "ünï.png"} < set(read_paths(wards / "s.csv"))


@pytest.mark.parametrize("text", ["=1", "'=1", "''", "'", "a", "", "-x", "'a"])
def test_what_is_made_safe_can_be_read_again(text):
    assert without_apostrophe(spreadsheet_safe(text)) == text


def test_json_lines_hold_what_the_csv_holds(score, wards):
    (wards / "a" / "1.png").write_bytes(b"")
    score("a", code=1)
    score("a", table="s.jsonl", code=1)
    lines = [json.loads(line) for line in (wards / "s.jsonl").read_text().splitlines()]
    for line, row in zip(lines, rows_of(wards / "s.csv"), strict=True):
        assert {name: "" if value is None else str(value) for name, value in line.items()} == row


def test_xlsx_has_a_header_and_no_formulas(score, wards):
    pytest.importorskip("xlsxwriter", reason="needs pip install 'cxr-trt[xlsx]'")
    import zipfile

    shutil.copy(wards / "a" / "0.png", wards / "a" / "=1+1.png")
    score("a", table="s.xlsx")
    with zipfile.ZipFile(wards / "s.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert sheet.count("<row ") == 5
    assert "=1+1.png" in sheet


def test_lists_of_files(score, wards):
    (wards / "test_list.txt").write_text("0.png\n2.png\n9.png\n")
    result = score("a", "--files-from", wards / "test_list.txt")
    assert [row["path"] for row in rows_of(wards / "s.csv")] == ["0.png", "2.png"]
    assert "3 names, 2 files of them found" in result.stderr
    (wards / "Data_Entry_2017.csv").write_text("Image Index,Finding Labels\n1.png,No Finding\n")
    score("a", "--files-from", wards / "Data_Entry_2017.csv", table="nih.csv")
    assert [row["path"] for row in rows_of(wards / "nih.csv")] == ["1.png"]
    shutil.copy(wards / "a" / "1.png", wards / "a" / "3.tif")
    shutil.copy(wards / "a" / "1.png", wards / "a" / "0.tif")
    (wards / "stems.txt").write_text("0.png\n3.png\n")
    score("a", "--files-from", wards / "stems.txt", table="stems.csv")
    assert [row["path"] for row in rows_of(wards / "stems.csv")] == ["0.png", "3.tif"]
    (wards / "whole.txt").write_text(f"{wards}/b/1.png\n{wards}/b/2.png\n")
    score("--files-from", wards / "whole.txt", table="whole.csv")
    assert [row["path"] for row in rows_of(wards / "whole.csv")] == ["1.png", "2.png"]
    (wards / "other.txt").write_text("7.png\n")
    assert "names no file of" in score("a", "--files-from", wards / "other.txt", table="o.csv", code=2).stderr


def test_a_list_from_standard_input_to_exclude_to_limit_and_only_to_list(cheap_bundle, wards):
    command = [sys.executable, "-m", "cxr_trt", "score", "--files-from", "-", "-e", cheap_bundle, "--dry-run"]
    listed = "".join(f"{wards}/a/{i}.png\n" for i in range(3))
    done = subprocess.run([*command, "--exclude", "0.*", "--limit", "1"], input=listed, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1.png\n")
    assert "would score 1 file of" in done.stderr
    assert "files of --exclude (1)" in done.stderr


def test_quiet_verbose_and_log(score, wards):
    assert score("a", "--quiet").stderr == ""
    (wards / "a" / "1.png").write_bytes(b"")
    loud = score("a", "-v", "--log", wards / "run.log", code=1)
    assert "2.png: scored" in loud.stderr
    quiet = score("a", "-q", "--log", wards / "run.log", code=1)
    assert [line.split(":")[0] for line in quiet.stderr.splitlines()] == ["error"]
    log = (wards / "run.log").read_text().splitlines()
    assert sum("detail: 2.png: scored" in line for line in log) == 2
    assert sum("error: 1.png" in line for line in log) == 2


def test_progress_as_json_is_one_object_per_line(score, wards):
    result = score("a", "--progress", "json")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert {"message", "end"} <= {event["event"] for event in events} <= {"message", "progress", "end"}
    (end,) = (event for event in events if event["event"] == "end")
    assert (end["done"], end["total"], end["errors"], end["seconds_left"]) == (3, 3, 0, 0)


def test_warnings_are_counted_at_the_end(score, wards, radiographs):
    (wards / "a" / "1.png").unlink()
    for i in range(3):
        cv2.imwrite(str(wards / "a" / f"{i}.png"), np.full((64, 64), 9, np.uint8))
    for i in range(2):
        cv2.imwrite(str(wards / "b" / f"{i}.png"), np.full((64, 64), 9, np.uint8))
    shown = score("a", "b").stderr
    assert "warning: 6 files with warnings, all in the table\n" in shown
    assert re.search(r"\nwarning: 5 files: .*almost constant", shown)
    assert "with warnings" not in score(radiographs / "RG1_UNCR.dcm", table="one.csv").stderr


def test_an_earlier_run_has_no_speed(score):
    assert "scored 3 of 3 files, " in score("a").stderr
    again = score("a").stderr
    assert "scored 3 of 3 files (3 of them in an earlier run)\n" in again


def test_time_left_is_by_the_average_of_the_run(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("cxr_trt.commands.progress.time.monotonic", lambda: now[0])
    with FileProgress(20) as progress:
        assert progress.seconds_left is None
        for _ in range(2):
            now[0] += 50  # longer than the 30 s that rich looks back
            progress.advance(error=False)
        assert progress.seconds_left == pytest.approx(900)
        assert progress._note() == "0.02 files/s, 15 min left"
    assert [in_words(seconds) for seconds in (7, 119, 120, 7200, 3 * 86400)] == [
        "7 s",
        "119 s",
        "2 min",
        "2 h",
        "3 days",
    ]


def test_error_and_hint_are_apart_and_coloured_where_colour_is_wanted(monkeypatch, capsys):
    monkeypatch.setattr("cxr_trt.commands.messages.wants_colour", lambda: True)
    monkeypatch.setattr("click.utils.should_strip_ansi", lambda *arguments: False)
    Messages().say("s.csv exists; add --overwrite", "error")
    coloured = capsys.readouterr().err
    assert coloured == "\x1b[31m\x1b[1merror:\x1b[0m s.csv exists\n\x1b[36m\x1b[1mhint:\x1b[0m add --overwrite\n"
    monkeypatch.undo()
    Messages().say("s.csv exists; add --overwrite", "error")
    assert capsys.readouterr().err == "error: s.csv exists; add --overwrite\n"


def test_a_bundle_is_named_cxr(cli, cheap_bundle, tmp_path):
    result = cli("build-engine", cheap_bundle, "-o", tmp_path / "x")
    assert result.exit_code == 2
    assert "must end in .cxr" in result.stderr


def test_the_demonstration_by_name(cli, wards, tmp_path, monkeypatch):
    """One build of the shipped network serves the name in build-engine and score without an engine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    built = cli("build-engine", "edge", "--no-tune", "--views", "center")
    assert built.exit_code == 0, built.output
    assert (tmp_path / "edge.cxr" / "manifest.json").is_file()

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def build(bundle):
        shutil.move(tmp_path / "edge.cxr", bundle)

    monkeypatch.setattr("cxr_trt.commands.demo._build", build)
    for _ in range(2):
        scored = cli("score", wards / "a", "-o", tmp_path / "s.csv")
        assert scored.exit_code == 0, scored.output
        assert "DEMONSTRATION network" in scored.stderr
    assert len(list((tmp_path / "cache" / "cxr-trt").glob("edge-*.cxr"))) == 1
    assert "demonstration" in rows_of(tmp_path / "s.csv")[0]["warnings"]


ELSEWHERE = """
import signal, sys
import click, click._compat, click.core, click.termui  # these look at the real system

sys.platform = {platform!r}
for module in ("fcntl", "resource", "pty", "termios"):
    sys.modules[module] = None
for name in ("SIGHUP", "SIGALRM", "setitimer"):
    delattr(signal, name)
sys.argv = ["cxr-trt", *{arguments!r}]
{code}
"""
"""Simulates another system: without the modules and signals that it lacks."""


def elsewhere(platform, arguments, code):
    script = ELSEWHERE.format(platform=platform, arguments=arguments, code=code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize(("platform", "remedy"), [("win32", "install it in WSL 2"), ("darwin", "run it in a Linux")])
@pytest.mark.parametrize("arguments", [["score", "xrays"], ["score", "--help"], ["doctor"], ["report", "s.csv"]])
def test_other_systems_than_linux_are_one_sentence(platform, remedy, arguments):
    """Simulated: it has not been run on Windows or macOS."""
    done = elsewhere(platform, arguments, "from cxr_trt.cli import main; main()")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: cxr-trt runs on Linux only, and this is {platform}; {remedy}")
    assert done.stderr.count("\n") == 1
    code = "import cxr_trt\ntry: cxr_trt.Engine\nexcept Exception as error: print(type(error).__name__, error)"
    assert elsewhere(platform, [], code).stdout.startswith(
        f"BackendError cxr-trt runs on Linux only, and this is {platform}"
    )


def test_the_help_works_on_every_system():
    done = elsewhere("win32", ["--help"], "from cxr_trt.cli import main; main()")
    assert "Commands, in the order of work" in done.stdout


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_kinds_of_warnings_keep_the_terms_of_the_standard(cli, cheap_bundle, radiographs, tmp_path):
    dataset = pydicom.dcmread(radiographs / "RG1_UNCR.dcm")
    term = dataset.PhotometricInterpretation
    dataset.PhotometricInterpretation = term.lower()
    dataset.save_as(tmp_path / "a.dcm")
    summary = tmp_path / "s.json"
    assert (
        cli("score", tmp_path / "a.dcm", "-e", cheap_bundle, "-o", tmp_path / "s.csv", "--json", summary).exit_code == 0
    )
    kinds = json.loads(summary.read_text())["warnings"]
    assert [kind for kind in kinds if term in kind]
    assert not [kind for kind in kinds if "MONOCHROME#" in kind]
