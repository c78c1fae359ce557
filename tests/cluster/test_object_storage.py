"""Lists, parts and tables in object storage, on a real S3 client and moto's server, which fails and is cut off."""

import csv
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from object_store import object_store, upload

from cxr_trt import storage
from cxr_trt.errors import StorageError, UsageError
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.objects import object_source
from cxr_trt.score.engine import Engine
from cxr_trt.storage import Url, parse_location

pytest.importorskip("moto", reason="needs pip install 'moto[server]'")
NAMES = ("a.png", "über weiß%20?.png", "ward/b+c&d.png", "ward/e f.png", "ward/g.png", "ward/h.png", "x")


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """Seven pictures with odd names, one of them without suffix; a broken file, and what is no picture."""
    folder = tmp_path_factory.mktemp("storage") / "xrays"
    (folder / "ward").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        picture = np.random.default_rng(i).integers(0, 256, (64, 80), np.uint8)
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    (folder / "ward" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "README").write_text("no picture")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def server(xrays):
    with object_store() as (store, files):
        upload(files, xrays, "cxr/xrays")
        yield store, files


@pytest.fixture
def store(server):
    return server[0]


@pytest.fixture
def files(server):
    return server[1]


@pytest.fixture
def here(tmp_path, store, cheap_bundle, monkeypatch):
    """A folder of its own, the store in the environment, and no waiting between two tries."""
    for name, value in {**store.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CXR_TRT_ENGINE", str(cheap_bundle))
    monkeypatch.setattr(storage, "WAITS", (0.01, 0.02, 0.04))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    store.fail()


def run(cli, *arguments, code=1):
    result = cli(*arguments)
    assert result.exit_code == code, result.output
    return result


def rows_of(data):
    return list(csv.reader(io.StringIO(data.decode("utf-8"))))


def content(files, name):
    with files.open_input_stream(name) as stream:
        return stream.read()


def test_a_bucket_gives_the_table_of_the_same_folder(cli, here, files, xrays):
    said = run(cli, "score", "s3://cxr/xrays", "-o", "s3://cxr/scores.csv", "--workers", 2).stderr
    assert "table: s3://cxr/scores.csv" in said
    run(cli, "score", xrays, "-o", "scores.csv", "--workers", 2)
    assert content(files, "cxr/scores.csv") == (here / "scores.csv").read_bytes()
    assert len(rows_of(content(files, "cxr/scores.csv"))) == 1 + len(NAMES) + 1

    again = run(cli, "score", "s3://cxr/xrays", "-o", "s3://cxr/scores.csv", "--workers", 2)
    assert f"({len(NAMES)} of them in an earlier run)" in again.stderr


def test_a_table_in_a_bucket_is_not_replaced_unasked(cli, here, files):
    with files.open_output_stream("cxr/others.csv") as stream:
        stream.write(b"somebody else's\n")
    result = run(cli, "score", "s3://cxr/xrays/a.png", "-o", "s3://cxr/others.csv", code=2)
    assert "s3://cxr/others.csv exists; add --overwrite" in result.stderr
    assert content(files, "cxr/others.csv") == b"somebody else's\n"
    run(cli, "score", "s3://cxr/xrays/a.png", "-o", "s3://cxr/others.csv", "--overwrite", code=0)
    assert [row[0] for row in rows_of(content(files, "cxr/others.csv"))] == ["path", "a.png"]
    lost = run(cli, "score", "s3://cxr/xrays/x", "-o", "s3://cxr/others.csv", code=2).stderr
    assert "s3://cxr/others.csv has the rows of 1 file not named now, such as s3://cxr/xrays/a.png" in lost
    run(cli, "score", "s3://cxr/xrays/x", "-o", "s3://cxr/others.csv", "--append", code=0)
    assert [row[0] for row in rows_of(content(files, "cxr/others.csv"))] == ["path", "a.png", "x"]


def test_list_parts_and_table_in_a_bucket(cli, here, files, xrays):
    listed = run(cli, "list", "s3://cxr/xrays", "-o", "s3://cxr/run/list", "--shard", 3, code=0).stderr
    size = sum((xrays / name).stat().st_size for name in (*NAMES, "ward/broken.png"))
    assert f"8 files in 3 shards, {size / 1e6:.1f} MB" in listed
    for part in ("2/2", "1/2"):
        cli("score", "s3://cxr/run/list", "-o", "s3://cxr/run/parts", "--part", part, "--workers", 1)
    again = run(cli, "score", "s3://cxr/run/list", "-o", "s3://cxr/run/parts", code=0).stderr
    assert "scoring 0 files in 0 of 3 shards" in again
    options = ("--list", "s3://cxr/run/list", "-o", "s3://cxr/run/scores.parquet")
    run(cli, "collect", "s3://cxr/run/parts", *options)
    run(cli, "score", xrays, "-o", "scores.parquet")
    collected = pq.read_table(io.BytesIO(content(files, "cxr/run/scores.parquet")))
    assert collected.equals(pq.read_table("scores.parquet"))
    assert collected.schema.metadata[b"cxr_trt.root"] == b"s3://cxr/xrays"
    assert "exists; add --overwrite" in run(cli, "collect", "s3://cxr/run/parts", *options, code=2).stderr

    files.delete_file("cxr/run/parts/part-00000001.parquet")
    missing = run(cli, "collect", "s3://cxr/run/parts", "--list", "s3://cxr/run/list", code=2).stderr
    assert "missing: 1 of 3 shards (1)" in missing
    other = run(cli, "list", "s3://cxr/xrays", "-o", "s3://cxr/run/list", "--shard", 4, "--overwrite", code=0)
    assert "in 2 shards" in other.stderr
    refused = run(cli, "score", "s3://cxr/run/list", "-o", "s3://cxr/run/parts", code=2).stderr
    assert "part-00000000.parquet: is a part of another list than s3://cxr/run/list" in refused


@pytest.mark.slow
def test_a_store_that_fails_now_and_then_costs_no_row(cli, here, store, files, xrays):
    store.fail(every=5)
    run(cli, "score", "s3://cxr/xrays", "-o", "s3://cxr/flaky.csv", "--workers", 2)
    store.fail()
    run(cli, "score", xrays, "-o", "scores.csv", "--workers", 2)
    assert content(files, "cxr/flaky.csv") == (here / "scores.csv").read_bytes()


def test_an_object_that_cannot_be_read_costs_an_error_row_until_it_can(cli, here, store, files, xrays):
    store.fail(key="/g.png")
    said = run(cli, "score", "s3://cxr/xrays", "-o", "s3://cxr/one.csv", "--workers", 2).stderr
    assert "ward/g.png: cannot be read (" in said
    assert "errors" not in said
    (row,) = [row for row in rows_of(content(files, "cxr/one.csv")) if row[0] == "ward/g.png"]
    assert "score it again when the store answers" in row[-2]
    store.fail()
    run(cli, "score", "s3://cxr/xrays", "-o", "s3://cxr/one.csv", "--workers", 2)
    run(cli, "score", xrays, "-o", "scores.csv", "--workers", 2)
    assert content(files, "cxr/one.csv") == (here / "scores.csv").read_bytes()


def test_an_object_that_went_away_is_an_error_row(cli, here, files, xrays):
    upload(files, xrays, "cxr/going")
    run(cli, "list", "s3://cxr/going", "-o", "list", "--shard", 3, code=0)
    files.delete_file("cxr/going/ward/h.png")
    said = run(cli, "score", "list", "-o", "parts", "--workers", 1).stderr
    assert "ward/h.png: the object is not there any more" in said
    assert "scored 6 of 8 files" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["list", "folder"])
def test_a_store_that_is_cut_off_ends_the_run_and_the_same_command_goes_on(cli, here, store, files, xrays, kind):
    upload(files, xrays, f"cxr/cut-{kind}")
    if kind == "list":
        run(cli, "list", f"s3://cxr/cut-{kind}", "-o", "list", "--shard", 2, code=0)
        command = ("score", "list", "-o", "parts", "--workers", 1)
    else:
        command = ("score", f"s3://cxr/cut-{kind}", "-o", "scores.csv", "--workers", 1)
    read, reads = Url.read, []

    def cut_off_at_the_sixth(url, most=None):
        if not url.name.startswith(("README", "x")):  # whose heads are read to find out what they are
            reads.append(url)
            if len(reads) == 6:
                store.cut_off()
        return read(url, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Url, "read", cut_off_at_the_sixth)
        patch.setattr("cxr_trt.images.decoders.READING_THREADS", 1)
        said = run(cli, *command, code=2).stderr
    assert "the same command goes on when the store answers" in said
    store.connect()
    said = run(cli, *command, code=0 if kind == "list" else 1).stderr  # the broken one is in a part that is there
    if kind == "list":
        assert "in 4 of 4 shards" not in said
        run(cli, "collect", "parts", "--list", "list", "-o", "scores.csv")
    run(cli, "score", xrays, "-o", "local.csv", "--workers", 1)
    assert (here / "scores.csv").read_bytes() == (here / "local.csv").read_bytes()


def test_a_killed_run_leaves_no_object_and_the_same_command_goes_on(cli, here, store, files, cheap_bundle):
    code = (
        "import os, signal\n"
        "from cxr_trt.commands import kept_rows\n"
        "kept_rows.write_table = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from cxr_trt.cli import main\n"
        "main(['score', 's3://cxr/xrays', '-o', 's3://cxr/killed.csv', '--workers', '1'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not storage.names_in(Url("s3", "cxr")) & {"killed.csv"}
    said = run(cli, "score", "s3://cxr/xrays", "-o", "s3://cxr/killed.csv", "--workers", 1).stderr
    assert f"({len(NAMES)} of them in an earlier run)" in said
    assert len(rows_of(content(files, "cxr/killed.csv"))) == 1 + len(NAMES) + 1


def test_decoders_have_no_credentials(here, cheap_bundle):
    sources = [object_source(Url("s3", f"cxr/xrays/{name}"), name) for name in NAMES]
    with Engine(cheap_bundle) as engine, Decoders(1, engine.spec.image_size, Limits()) as decoders:
        answers = [answer for _, answer in decoders.map([Request(source) for source in sources], 2)]
        assert all(answer.image is not None for answer in answers)
        (child,) = subprocess.run(
            ["pgrep", "-P", str(os.getpid()), "-f", "cxr_trt.images.worker"], capture_output=True, text=True
        ).stdout.split()
        names = {line.split(b"=")[0] for line in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")}
    assert b"PATH" in names
    assert not [name for name in names if name.startswith(b"AWS")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("score", "s3://nowhere/xrays", "-o", "a.csv"), "s3://nowhere: there is no such bucket"),
        (("score", "s3://cxr/none", "-o", "a.csv"), "s3://cxr/none: no DICOM, PNG, JPEG or TIFF file"),
        (("score", "s3://cxr/xrays/ward", "s3://cxr/xrays", "-o", "a.csv"), "several places in object storage"),
        (("score", "s3://cxr/xrays", "xrays", "-o", "a.csv"), "cannot be combined with other files"),
        (("score", "http://cxr/xrays", "-o", "a.csv"), "http://cxr/xrays: not one of the stores s3://, gs://"),
        (("score", "s3://key:secret@cxr/xrays"), "s3://cxr: write s3://bucket/..., and give credentials by"),
        (("score", "abfss://xrays/a"), "write abfss://container@account.dfs.core.windows.net/"),
        (("score", "s3://", "-o", "a.csv"), "s3://: name a bucket"),
        (("score", "s3://cxr/xrays", "-o", "s3://cxr/scores"), "the name must end in .csv or .parquet"),
        (("collect", "s3://cxr/parts", "--list", "s3://cxr/none"), "s3://cxr/none: no list of files; make one"),
        (("list", "s3://cxr/xrays", "-o", "s3://nowhere/list"), "s3://nowhere: there is no such bucket"),
    ],
)
def test_mistakes_are_one_sentence_without_secrets(cli, here, arguments, sentence):
    result = run(cli, *arguments, code=2)
    assert sentence in result.stderr
    assert "secret" not in result.stderr


def test_settings_that_no_store_has_are_one_sentence(cli, here, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://127.0.0.1:1")
    said = run(cli, "score", "s3://cxr/xrays", "-o", "a.csv", code=2).stderr
    assert "s3://cxr: cannot be reached (Invalid S3 connection scheme 'ftp'); check the store's settings" in said


def test_an_object_that_is_too_large_is_an_error_row(cli, here, xrays, monkeypatch):
    largest = max((xrays / name).stat().st_size for name in NAMES)
    monkeypatch.setattr("cxr_trt.images.objects.MAX_FILE_BYTES", largest - 1)
    said = run(cli, "score", "s3://cxr/xrays", "-o", "a.csv", "--workers", 1, code=2).stderr
    assert "the object has more than 1 GiB; export it with at most 1 GiB" in said


def test_a_store_that_refuses_is_not_asked_again(here, monkeypatch):
    tries = []

    def refuse(fs, path):
        tries.append(path)
        raise OSError("When reading: AWS Error ACCESS_DENIED during GetObject operation: Access Denied (Request ID: x)")

    with pytest.raises(StorageError, match=r"\(ACCESS_DENIED during GetObject operation: Access Denied\)"):
        storage._patiently(Url("s3", "cxr/a"), "read", refuse)
    assert tries == ["cxr/a"]


@pytest.mark.parametrize("text", ["xrays", "./s3", "a b/ü", "/s3:/x"])
def test_paths_are_paths(text):
    assert parse_location(text) == Path(text)


def test_parts_of_a_url():
    url = parse_location("abfss://xrays@hospital.dfs.core.windows.net/2026/a b.PNG/")
    assert (str(url), url.name, url.suffix) == (
        "abfss://xrays@hospital.dfs.core.windows.net/2026/a b.PNG",
        "a b.PNG",
        ".PNG",
    )
    assert str(url.parent / "c") == "abfss://xrays@hospital.dfs.core.windows.net/2026/c"
    assert parse_location("s3://cxr/") == Url("s3", "cxr")
    with pytest.raises(UsageError):
        parse_location("ftp://cxr/a")
