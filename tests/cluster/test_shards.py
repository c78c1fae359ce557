"""Lists, parts and what collects them: equal to what `score` writes, whoever scored which shard, and in which order."""

import csv
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle
from hypothesis import given
from hypothesis import strategies as st

from cxr_trt.cluster import listing
from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.parts import part_path
from cxr_trt.cluster.shards import LIST_FILE
from cxr_trt.commands.list_options import Part
from cxr_trt.errors import UsageError
from cxr_trt.images.files import find_files


@pytest.fixture(scope="module")
def xrays(tmp_path_factory, radiographs):
    """Eleven files with odd names: nine pictures, a broken file, and a DICOM object that is no image."""
    folder = tmp_path_factory.mktemp("cluster") / "xrays"
    (folder / "ward ü").mkdir(parents=True)
    for i in range(8):
        picture = np.random.default_rng(i).integers(0, 256, (64, 80), np.uint8)
        cv2.imwrite(str(folder / "ward ü" / f"{i}%20.png"), picture)
    shutil.copy(folder / "ward ü" / "0%20.png", bytes(folder) + b"/\xff.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder / "chest.dcm")
    return folder


@pytest.fixture
def here(tmp_path, xrays, cheap_bundle, cli, monkeypatch):
    """A list of four shards, three files in each but the last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXR_TRT_ENGINE", str(cheap_bundle))
    result = cli("list", xrays, "-o", "run/list", "--shard", 3)
    assert result.exit_code == 0, result.output
    assert "11 files in 4 shards" in result.stderr
    return tmp_path


def score(cli, *options, code=1):
    result = cli("score", "run/list", "-o", "parts", "--workers", 1, *options)
    assert result.exit_code == code, result.output
    return result


def collect(cli, *options, code=1):
    result = cli("collect", "parts", "--list", "run/list", *options)
    assert result.exit_code == code, result.output
    return result


def lines(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@given(st.integers(0, 300), st.integers(1, 7))
def test_each_shard_is_in_one_part(shards, of):
    found = [shard for number in range(1, of + 1) for shard in Part(number, of).shards(shards)]
    assert sorted(found) == list(range(shards))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_the_parts_together_are_the_table_that_score_writes(cli, here, xrays, suffix):
    for number in (3, 1, 2):
        cli("score", "run/list", "-o", "parts", "--part", f"{number}/3", "--workers", 1)
    collect(cli, "-o", f"collected{suffix}")
    assert cli("score", xrays, "-o", f"scores{suffix}", "--workers", 1).exit_code == 1
    if suffix == ".parquet":
        collected, scored = pq.read_table("collected.parquet"), pq.read_table("scores.parquet")
        assert collected.equals(scored)
        assert collected.schema.metadata == scored.schema.metadata
    else:
        assert (here / f"collected{suffix}").read_bytes() == (here / f"scores{suffix}").read_bytes()
    assert pq.read_table("parts").num_rows == 11  # the folder of parts is a table too


def test_only_missing_shards_are_scored(cli, here):
    assert "scoring 11 files in 4 of 4 shards" in score(cli).stderr
    part_path(here / "parts", 2).unlink()
    before = {path: path.stat().st_mtime_ns for path in (here / "parts").iterdir()}
    assert "scoring 3 files in 1 of 4 shards" in score(cli, code=0).stderr
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert "scoring 0 files in 0 of 4 shards" in score(cli, code=0).stderr
    assert "scoring 11 files in 4 of 4 shards" in score(cli, "--overwrite").stderr


def test_missing_shards_are_named_and_no_table_is_written(cli, here):
    score(cli, "--part", "2/2", code=0)
    result = collect(cli, "-o", "collected.csv", code=2)
    assert "missing: 2 of 4 shards (0, 2)" in result.stderr
    assert not (here / "collected.csv").exists()
    assert "scored" in collect(cli, code=2).stderr


def test_nothing_at_all_is_missing_too(cli, here):
    (here / "parts").mkdir()
    assert "missing: 4 of 4 shards (0, 1, 2, 3)" in collect(cli, code=2).stderr


def test_what_was_scored_of_a_killed_run_stays(cli, here, xrays):
    """Killed after its second shard; the same command does the rest."""
    code = (
        "import os, signal\n"
        "from cxr_trt.cluster import scoring\n"
        "write = scoring.write_part\n"
        "def writes_two(folder, files, shard, *others):\n"
        "    write(folder, files, shard, *others)\n"
        "    if shard == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "scoring.write_part = writes_two\n"
        "from cxr_trt.cli import main\n"
        "main(['score', 'run/list', '-o', 'parts', '--workers', '1'])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True).returncode == -9
    assert sorted(path.name for path in (here / "parts").glob("part-*")) == [
        "part-00000000.parquet",
        "part-00000001.parquet",
    ]
    assert "in 2 of 4 shards" in score(cli, code=0).stderr
    collect(cli, "-o", "collected.csv")
    assert len(lines(here / "collected.csv")) == 1 + 11


def test_parts_of_another_list_or_engine_are_refused_by_name(cli, here, xrays, tmp_path):
    score(cli)
    other = build_cheap_bundle(tmp_path / "other.cxr", views="ten-crop")
    assert "part-00000000.parquet: was scored with the engine" in score(cli, "-e", other, code=2).stderr
    assert cli("list", xrays, "-o", "run/list", "--shard", 4, "--overwrite").exit_code == 0
    error = score(cli, code=2).stderr
    assert "part-00000000.parquet: is a part of another list than" in error
    assert "run/list; choose another -o" in error
    assert "another list" in collect(cli, code=2).stderr


def test_parts_of_two_engines_are_not_one_table(cli, here, tmp_path):
    def score_the_rest(**options):
        other = build_cheap_bundle(tmp_path / f"{len(options)}.cxr", **options)
        shutil.rmtree(here / "others", ignore_errors=True)
        result = cli("score", "run/list", "-o", "others", "-e", other, "--part", "2/2", "--workers", 1)
        assert result.exit_code in (0, 1), result.output
        for path in (here / "others").iterdir():
            shutil.copy(path, here / "parts")

    score(cli, "--part", "1/2")
    score_the_rest(backend="openvino")
    assert "has parts of several engines" in collect(cli, "-o", "scores.parquet", code=2).stderr
    assert not (here / "scores.parquet").exists()
    said = collect(cli, "-o", "scores.parquet", "--several-engines").stderr
    assert said.count("2 shards of the engine ") == 2
    table = pq.read_table(here / "scores.parquet")
    assert len(set(table["engine"].to_pylist())) == 2
    assert table.num_rows == 11
    words = table.schema.metadata[b"cxr_trt.engine"].decode()
    assert "onnxruntime " in words
    assert "openvino " in words
    score_the_rest(views="ten-crop", backend="openvino")
    assert "engines with other findings or views" in collect(cli, "--several-engines", code=2).stderr


def test_damage_is_one_sentence(cli, here):
    score(cli)
    path = part_path(here / "parts", 1)
    path.write_bytes(path.read_bytes()[:-20])
    assert f"parts/{path.name}: damaged" in collect(cli, code=2).stderr
    shutil.copy(here / "run" / "list" / "list-00000.parquet", path)
    assert "not a part of a table" in collect(cli, code=2).stderr
    path.unlink()
    data = bytearray((here / "run" / "list" / "list-00000.parquet").read_bytes())
    data[50] ^= 1
    (here / "run" / "list" / "list-00000.parquet").write_bytes(data)
    assert "list-00000.parquet: damaged, or of another list" in score(cli, "--overwrite", code=2).stderr
    (here / "run" / "list" / LIST_FILE).write_text("{}")
    assert "not a list of `cxr-trt list`, or damaged" in collect(cli, code=2).stderr


def test_a_long_list_has_several_files_of_which_each_must_be_its_own(cli, here, xrays, monkeypatch):
    monkeypatch.setattr(listing, "SHARDS_PER_FILE", 2)
    folder = here / "run" / "list"
    assert cli("list", xrays, "-o", folder, "--shard", 2, "--overwrite").exit_code == 0
    pieces = [f"list-0000{number}.parquet" for number in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == [*pieces, "list.json"]
    files = FileList.open(folder)
    names = [source.name for shard in range(files.shards.count) for source in files.sources(shard)]
    assert names == [source.name for source in find_files(xrays).sources]
    assert cli("list", xrays, "-o", here / "other", "--shard", 2, "--exclude", "*/7*").exit_code == 0
    shutil.copy(here / "other" / pieces[1], folder / pieces[0])
    with pytest.raises(UsageError, match=f"{pieces[0]}: damaged, or of another list"):
        FileList.open(folder).sources(0)
    assert cli("list", xrays, "-o", folder, "--shard", 11, "--overwrite").exit_code == 0
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("score", "run/list"), "name a folder for them with -o"),
        (("score", "run/list", "-o", "scores.csv"), "name a folder for them with -o"),
        (("score", "run/list", "-o", "parts", "--heatmaps", "maps"), "--heatmaps is not for a list of files"),
        (("score", "run/list", "-o", "parts", "--part", "0/4"), "'0/4' is not a part such as 7/100"),
        (("score", "run/list", "-o", "parts", "--part", "5/4"), "'5/4' is not a part"),
        (("score", ".", "-o", "parts", "--part", "1/4"), "--part is for a list of files"),
        (("list", "run", "-o", "run/list"), "no DICOM, PNG, JPEG or TIFF file"),
        (("collect", "parts", "--list", "nowhere"), "nowhere: no list of files; make one"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(cli, here, arguments, sentence):
    result = cli(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_list_is_not_replaced_unasked(cli, here, xrays):
    result = cli("list", xrays, "-o", "run/list")
    assert (result.exit_code, "exists; add --overwrite" in result.stderr) == (2, True)
    assert FileList.open(here / "run" / "list").shards.count == 4


def test_a_process_reads_the_names_of_its_own_shards_alone(here):
    files = FileList.open(here / "run" / "list")
    assert (files.shards.files, [files.shards.size(shard) for shard in range(4)]) == (11, [3, 3, 3, 2])
    assert [source.name for source in files.sources(3)] == ["ward ü/6%20.png", "ward ü/7%20.png"]
    assert all(source.path.exists() for number in range(4) for source in files.sources(number))


MEASURE = """
import sys
from pathlib import Path
from cxr_trt.cluster.listing import FileList, write_list
from cxr_trt.images.files import Selection, Source
from cxr_trt.measure.machine import peak_memory

folder, count = Path(sys.argv[1]), int(sys.argv[2])
if not folder.exists():
    names = (f"site/{number * 2654435761 % (1 << 64):016x}/{number:09}.dcm" for number in range(count))
    sources = tuple(Source(Path("/xrays", name), name) for name in names)
    write_list(Selection(sources, {}, "/xrays"), folder, 512, sizes=[1] * count, overwrite=False)
else:
    files = FileList.open(folder)
    for shard in range(0, files.shards.count, max(1, files.shards.count // 10)):
        assert len(files.sources(shard)) == files.shards.size(shard)
    print(peak_memory())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_list(tmp_path):
    peaks = []
    for count in (1_000, 100_000):
        for _ in range(2):
            command = [sys.executable, "-c", MEASURE, str(tmp_path / str(count)), str(count)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 20, f"{peaks} MiB"


def test_calibrated_columns_are_in_the_table(cli, tmp_path, cheap_bundle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cheap_bundle, "mine.cxr")
    monkeypatch.setenv("CXR_TRT_ENGINE", "mine.cxr")
    (tmp_path / "xrays").mkdir()
    for i in range(24):
        picture = np.random.default_rng(i).integers(0, 256, (64, 64), np.uint8)
        cv2.imwrite(str(tmp_path / "xrays" / f"{i}.png"), picture)
    (tmp_path / "labels.csv").write_text("image,Mass\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(24)))
    for command in (
        ("score", "xrays", "-o", "first.csv"),
        ("calibrate", "first.csv", "labels.csv", "-e", "mine.cxr"),
        ("score", "xrays", "-o", "scores.csv"),
        ("list", "xrays", "-o", "run/list", "--shard", 10),
        ("score", "run/list", "-o", "parts"),
        ("collect", "parts", "--list", "run/list", "-o", "collected.csv"),
    ):
        result = cli(*command)
        assert result.exit_code == 0, result.output
    assert "Mass_calibrated" in lines(tmp_path / "collected.csv")[0]
    assert (tmp_path / "collected.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()


def test_progress_is_one_json_object_per_line(cli, here):
    result = score(cli, "--progress", "json")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[-1]["event"] != "progress"
    assert any(event.get("total") == 11 for event in events)
