"""Scoring on a Ray cluster: the same rows as without it, whichever of its processes dies."""

import os
import signal
import sys

import pytest
from ray_cluster import dies_of, end, wait_for, why_not
from shard_run import SHARDS, check_table, written

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]


def start(cluster, run, parts, *options):
    return cluster.start("score", run / "list", "-e", run / "mine.cxr", "-o", parts, "--ray", cluster.address, *options)


def test_files_that_engine_or_decoder_die_of_cost_one_row_each_and_nothing_is_done_twice(cluster, run, parts, cli):
    process = start(cluster, run, parts, "--actors", 2)
    wait_for(lambda: any(dies_of(actor, signal.SIGSEGV) for actor in cluster.actors()))  # Ray's handler may not end
    said = end(process)
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


@pytest.mark.parametrize("options", [("--actors", 2, "--cpus", 1), ("--actors", 5), ("--actors", 1, "--decoders", 5)])
def test_actors_on_all_cpus_and_more_than_there_is_room_for_do_not_hang(cluster, run, parts, cli, options):
    end(start(cluster, run, parts, *options), seconds=300)
    check_table(cli, run, parts)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--cpus", 64), "--cpus 64: the largest node has 1; take at most so many"),
        (("--gpus", 1), "mine.cxr is an engine for CPUs; leave the option out"),
        (("--decoders", 1), "--decoders: the engines take all CPUs of the cluster; limit them by --actors or --cpus"),
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
    cluster.lose(cluster.raylets[0])
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
