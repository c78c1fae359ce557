"""Scoring on a Ray cluster: the same rows as without it, whichever of its processes dies."""

import os
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from ray_cluster import end, wait_for, why_not

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]
SHARDS, SHARD_FILES = 8, 5


def write_xrays(folder, radiographs):
    """Pictures, one of which is black, a broken file, one that a decoder dies of, and a DICOM file."""
    folder.mkdir()
    for i in range(SHARDS * SHARD_FILES - 3):
        picture = np.random.default_rng(i).integers(1, 256, (64, 80), np.uint8)
        cv2.imwrite(str(folder / f"{i:03}.png"), picture * (i != 12))
    (folder / "012-broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "020-crash.png").write_bytes(b"crash")
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder / "chest.dcm")


@pytest.fixture(scope="module")
def run(tmp_path_factory, radiographs, cheap_bundle, cli):
    """A folder with a list of eight shards, its engine, and the table of `score` without Ray."""
    folder = tmp_path_factory.mktemp("run")
    write_xrays(folder / "xrays", radiographs)
    shutil.copytree(cheap_bundle, folder / "mine.cxr")
    assert cli("list", folder / "xrays", "-o", folder / "list", "--shard", SHARD_FILES).exit_code == 0
    result = cli("score", folder / "xrays", "-e", folder / "mine.cxr", "-o", folder / "scores.parquet")
    assert result.exit_code == 1, result.output
    return folder


@pytest.fixture
def parts(tmp_path):
    return tmp_path / "parts"


def start(cluster, run, parts, *options):
    return cluster.start("score", run / "list", "-e", run / "mine.cxr", "-o", parts, "--ray", cluster.address, *options)


def written(parts):
    return sorted(path.name for path in parts.glob("part-*.parquet")) if parts.exists() else []


def check_table(cli, run, parts):
    """The collected table is that of `score`, but for two files: the engine dies of one, and a decoder of the other."""
    table = parts.parent / "collected.parquet"
    assert cli("collect", parts, "--list", run / "list", "-o", table).exit_code == 1
    found, expected = (
        {row["path"]: row for row in pq.read_table(path).to_pylist()} for path in (table, run / "scores.parquet")
    )
    assert list(found) == list(expected)
    deadly = {path: found.pop(path)["error"] for path in ("012.png", "020-crash.png")}
    assert found == {path: row for path, row in expected.items() if path not in deadly}
    assert deadly["012.png"].startswith("the engine failed on this file: its process died")
    assert deadly["020-crash.png"] == "the decoder failed (SIGSEGV); export the image again"
    assert pq.read_table(parts).num_rows == SHARDS * SHARD_FILES


def test_files_that_engine_or_decoder_die_of_cost_one_row_each_and_nothing_is_done_twice(cluster, run, parts, cli):
    said = end(start(cluster, run, parts, "--actors", 2))
    assert said.count("its process died, or its node; it is tried again") == 4  # twice in its shard, and twice alone
    assert "usage" not in said.lower()
    check_table(cli, run, parts)
    before = {name: (parts / name).stat().st_mtime_ns for name in written(parts)}
    assert f"scoring 0 files in 0 of {SHARDS} shards" in end(start(cluster, run, parts), code=0)
    assert {name: (parts / name).stat().st_mtime_ns for name in written(parts)} == before


def test_a_killed_actor_and_a_killed_driver_cost_no_row(cluster, run, parts, cli):
    driver = start(cluster, run, parts, "--actors", 1)
    wait_for(lambda: len(written(parts)) >= 1)
    (actor,) = wait_for(cluster.actors)
    os.kill(actor, signal.SIGKILL)
    wait_for(lambda: len(written(parts)) >= 3)
    driver.kill()
    driver.communicate()
    wait_for(lambda: not cluster.actors())
    done = len(written(parts))
    assert f"in {SHARDS - done} of {SHARDS} shards" in end(start(cluster, run, parts, "--part", "1/1"))
    check_table(cli, run, parts)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--cpus", 64), "--cpus 64: the largest node has 1; take at most so many"),
        (("--gpus", 1), "mine.cxr is an engine for CPUs; leave the option out"),
    ],
)
def test_what_no_node_has_is_refused(cluster, run, parts, options, sentence):
    assert sentence in end(start(cluster, run, parts, *options), code=2)


def test_a_cache_that_a_node_cannot_write_is_one_sentence_that_names_the_node(cluster, run, parts):
    code = (
        "import sys\n"
        "from cxr_trt.cluster import ray_runner\n"
        "key = ray_runner.bundle_key\n"
        "ray_runner.bundle_key = lambda files: key(files) + '/no/such/folder'\n"
        "from cxr_trt.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    options = ("-e", run / "mine.cxr", "-o", parts, "--ray", cluster.address)
    said = end(cluster.start_python("-c", code, "score", run / "list", *options), code=2)
    assert "error: on node " in said
    assert "the engine cannot be kept there" in said


def test_a_node_that_is_lost_costs_no_row(cluster, run, parts, cli):
    """The last test: from then on the cluster has one node less."""
    driver = start(cluster, run, parts)
    wait_for(lambda: len(written(parts)) >= 1)
    lost = cluster.raylets[0]
    children = subprocess.run(["pgrep", "-P", str(lost)], capture_output=True, text=True).stdout.split()
    for pid in (lost, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    end(driver)
    check_table(cli, run, parts)


def test_without_the_token_nobody_is_let_in(cluster, run, parts, monkeypatch):
    monkeypatch.setitem(cluster.environment, "RAY_AUTH_TOKEN", "0" * 64)
    said = end(start(cluster, run, parts), code=2)
    assert f"--ray {cluster.address}: no Ray cluster answers (" in said
    assert "Traceback" not in said
    assert not written(parts)


def test_no_other_address_answers(cluster, run, parts):
    process = cluster.start("score", run / "list", "-e", run / "mine.cxr", "-o", parts, "--ray", "127.0.0.9:1")
    said = end(process, code=2)
    assert "--ray 127.0.0.9:1: no Ray cluster answers (" in said
    assert sys.executable not in said
