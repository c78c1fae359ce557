"""Scoring on a Ray cluster with actors that only decode: nodes without a GPU feed the one that has one."""

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from ray_cluster import children, end, ray_cluster, wait_for, why_not
from shard_run import check_table, written

from cxr_trt.cluster.listing import write_list
from cxr_trt.images.files import Selection, Source

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]
COMMAND = """
import sys
from cxr_trt.cli import main
from cxr_trt.cluster import bundles, ray_pool
ray_pool.WAIT_SECONDS = float(sys.argv[2])
if sys.argv[1] == "gpu":
    bundles._is_for_gpus = lambda manifest: True
main(sys.argv[3:])
"""
"""The command, which waits so many seconds for actors, and to which every engine may be one for GPUs: it then runs on
the CPU of the node whose GPU is one for Ray alone."""
WORKER = "cxr_trt.images.worker"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes with one processor each; the second one has a GPU, and the engine is slow."""
    with ray_cluster(tmp_path_factory.mktemp("ray"), "gpu", ENGINE_SECONDS="0.05") as cluster:
        yield cluster


def start(cluster, files, parts, *options, engine_for="gpu", wait_seconds=30):
    arguments = ("score", files, "-o", parts, "--ray", cluster.address, *options)
    return cluster.start_python("-c", COMMAND, engine_for, wait_seconds, *arguments)


def spilled(cluster):
    """What the nodes' logs say of decoded shards that went to the disk."""
    logs = list(Path(cluster.environment["RAY_TMPDIR"]).glob("ray/session_2*/logs/raylet*.out"))
    assert logs
    return [line for log in logs for line in log.read_text().splitlines() if "Spilled" in line]


def test_nodes_without_a_gpu_decode_for_the_one_that_has_one(cluster, run, parts, cli):
    process = start(cluster, run / "list", parts, "-e", run / "mine.cxr", "--decoders", 2)
    first, gpu, last = cluster.raylets
    wait_for(lambda: len(written(parts)) >= 1)
    (engine,) = wait_for(lambda: children(gpu, "ray::ShardActor"))
    assert not children(engine, WORKER)
    decoders = [wait_for(lambda node=node: children(node, "ray::DecodingActor")) for node in (first, last)]
    assert [len(actors) for actors in decoders] == [1, 1]
    assert not [actor for node in (first, last) for actor in children(node, "ray::ShardActor")]
    assert not children(gpu, "ray::DecodingActor")
    workers = [worker for (decoder,) in decoders for worker in children(decoder, WORKER)]
    assert len(workers) == 2
    for worker in workers:
        names = {line.split(b"=")[0] for line in Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")}
        assert b"PATH" in names
        assert not {b"AWS_SECRET_ACCESS_KEY", b"RAY_AUTH_TOKEN"} & names
    said = end(process)
    assert "actors: 1 with 1 CPUs and 1 GPUs; decoding: 2 with 1 CPUs" in said.replace("\n", " ")
    assert said.count("its process died, or its node; it is tried again") == 4  # twice in its shard, and twice alone
    check_table(cli, run, parts)


@pytest.mark.parametrize("kind", ["DecodingActor", "ShardActor"])
def test_a_killed_actor_of_either_kind_costs_no_row(cluster, run, parts, cli, kind):
    process = start(cluster, run / "list", parts, "-e", run / "mine.cxr", "--decoders", 1)
    wait_for(lambda: len(written(parts)) >= 1)
    (actor,) = wait_for(lambda: cluster.actors(kind))
    os.kill(actor, signal.SIGKILL)
    assert process.poll() is None
    end(process)
    check_table(cli, run, parts)


@pytest.fixture
def long_list(tmp_path):
    """A list of 480 X-rays, which are one file: decoded, a shard of 40 has 10 MB, and all together do not fit."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64), 100, np.uint8))

    def write(shard_files):
        sources = tuple(Source(tmp_path / "a.png", f"{i:03}.png") for i in range(480))
        write_list(Selection(sources, {}, "/"), tmp_path / "list", shard_files, sizes=[0] * 480, overwrite=False)
        return tmp_path / "list"

    return write


def test_decoded_shards_stay_in_memory_and_are_few(cluster, long_list, parts, cheap_bundle):
    end(start(cluster, long_list(40), parts, "-e", cheap_bundle, "--decoders", 1), code=0)
    assert len(written(parts)) == 12
    assert not spilled(cluster)


def test_shards_that_a_node_cannot_keep_are_refused_before_anything_is_decoded(cluster, long_list, parts, cheap_bundle):
    said = end(start(cluster, long_list(480), parts, "-e", cheap_bundle, "--decoders", 1), code=2).replace("\n", " ")
    assert (
        "a decoded shard has 126 MB, of which a node may have to keep 2, too much for its object store of 84 MB" in said
    )
    assert not written(parts)


def test_a_node_that_is_lost_with_what_it_has_decoded_costs_no_row(cluster, run, parts, cli):
    """From then on the cluster has one node less."""
    process = start(cluster, run / "list", parts, "-e", run / "mine.cxr", "--decoders", 2)
    wait_for(lambda: len(written(parts)) >= 1)
    cluster.lose(cluster.raylets[0])
    end(process)
    check_table(cli, run, parts)


def test_an_engine_decodes_for_itself_if_no_node_is_left_that_does(cluster, run, parts, cli):
    """And now it has but the one with the GPU."""
    process = start(cluster, run / "list", parts, "-e", run / "mine.cxr", "--decoders", 1, wait_seconds=4)
    (decoder,) = wait_for(lambda: cluster.actors("DecodingActor"))
    wait_for(lambda: len(written(parts)) >= 1)
    cluster.lose(next(raylet for raylet in cluster.raylets if decoder in children(raylet)))
    assert "waiting for actors" in end(process)
    check_table(cli, run, parts)


def test_actors_that_decode_give_way_to_an_engine_that_has_no_room(run, parts, cli, tmp_path):
    with ray_cluster(tmp_path) as cluster:
        options = ("-e", run / "mine.cxr", "--actors", 1, "--decoders", 1)
        process = start(cluster, run / "list", parts, *options, engine_for="cpu", wait_seconds=4)
        (engine,) = wait_for(cluster.actors)
        wait_for(lambda: len(written(parts)) >= 1)
        cluster.lose(next(raylet for raylet in cluster.raylets if engine in children(raylet)))
        assert "waiting for actors" in end(process)
        check_table(cli, run, parts)
