"""Scoring on a Ray cluster: the same rows as without it, whichever of its processes dies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from ray_cluster import ray_cluster, why_not

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]
SHARDS, SHARD_FILES = 8, 5


def write_xrays(folder, radiographs):
    """Pictures, one of which is black, a broken file, and a DICOM object that is no image."""
    folder.mkdir()
    for i in range(SHARDS * SHARD_FILES - 2):
        picture = np.random.default_rng(i).integers(1, 256, (64, 80), np.uint8)
        cv2.imwrite(str(folder / f"{i:03}.png"), picture * (i != 12))
    (folder / "012-broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder / "chest.dcm")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with ray_cluster(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


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


def end(process, code=1):
    said, errors = process.communicate(timeout=900)
    assert (process.returncode, said) == (code, ""), errors
    return errors


def wait_for(what):
    for _ in range(6000):
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def written(parts):
    return sorted(path.name for path in parts.glob("part-*.parquet")) if parts.exists() else []


def check_table(cli, run, parts, *, but=()):
    """The collected table is that of `score`, but for the rows of some files, which are returned."""
    table = parts.parent / "collected.parquet"
    assert cli("collect", parts, "--list", run / "list", "-o", table).exit_code == 1
    found, expected = pq.read_table(table).to_pylist(), pq.read_table(run / "scores.parquet").to_pylist()
    assert [row["path"] for row in found] == [row["path"] for row in expected]
    assert [row for row in found if row["path"] not in but] == [row for row in expected if row["path"] not in but]
    return [row for row in found if row["path"] in but]


def test_a_file_that_the_engine_dies_of_costs_one_row_and_nothing_is_done_twice(cluster, run, parts, cli):
    said = end(start(cluster, run, parts, "--actors", 2))
    assert said.count("its process died, or its node; it is tried again") == 4  # twice in its shard, and twice alone
    assert "usage" not in said.lower()
    (row,) = check_table(cli, run, parts, but=["012.png"])
    assert row["error"].startswith("the engine failed on this file: its process died")
    assert row["Mass"] is None
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
    check_table(cli, run, parts, but=["012.png"])
    assert pq.read_table(parts).num_rows == SHARDS * SHARD_FILES  # also if a process died while it wrote a part


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--cpus", 64), "--cpus 64: the largest node has 1; take at most so many"),
        (("--gpus", 1), "mine.cxr is an engine for CPUs; leave the option out"),
    ],
)
def test_what_no_node_has_is_refused(cluster, run, parts, options, sentence):
    assert sentence in end(start(cluster, run, parts, *options), code=2)


def test_an_engine_that_a_node_cannot_open_is_one_sentence_that_names_the_node(cluster, run, parts, monkeypatch):
    """Its list is another one there, as on a node whose disk is not shared."""
    monkeypatch.setitem(cluster.environment, "PYTHONPATH", str(Path(__file__).parents[2]))
    code = (
        "import sys\n"
        "from cxr_trt.cluster import ray_runner\n"
        "key = ray_runner.bundle_key\n"
        "ray_runner.bundle_key = lambda files: key(files) + '/no/such/folder'\n"
        "from cxr_trt.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    process = start(cluster, run, parts)
    process.kill()
    process.communicate()
    command = [word if word != "-m" else "-c" for word in process.args]
    command[command.index("cxr_trt")] = code
    said = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=900)
    assert said.returncode == 2, said.stderr
    assert "error: on node " in said.stderr
    assert "the engine cannot be kept there" in said.stderr


def test_a_node_that_is_lost_costs_no_row(cluster, run, parts, cli):
    """The last test: from then on the cluster has one node less."""
    driver = start(cluster, run, parts)
    wait_for(lambda: len(written(parts)) >= 1)
    lost = cluster.raylets[0]
    children = subprocess.run(["pgrep", "-P", str(lost)], capture_output=True, text=True).stdout.split()
    for pid in (lost, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    end(driver)
    check_table(cli, run, parts, but=["012.png"])


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
