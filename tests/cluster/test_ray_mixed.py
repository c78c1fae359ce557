"""A Ray cluster whose nodes are not alike: each takes the first engine that it can open, and says so in its parts."""

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle
from ray_cluster import end, ray_cluster, why_not

from cxr_trt.engine.manifest import read_manifest

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]
SHARDS, SHARD_FILES, DEADLY = 12, 4, "021.png"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """On its second node, engines of ONNX Runtime cannot be opened."""
    with ray_cluster(tmp_path_factory.mktemp("ray"), "unlike") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def run(tmp_path_factory, cheap_bundle, cli):
    """A list, two engines of the same network, and the table of `score` with each. One picture is black."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "xrays").mkdir()
    for i in range(SHARDS * SHARD_FILES):
        name = f"{i:03}.png"
        picture = np.random.default_rng(i).integers(1, 256, (64, 80), np.uint8)
        cv2.imwrite(str(folder / "xrays" / name), picture * (name != DEADLY))
    assert cli("list", folder / "xrays", "-o", folder / "list", "--shard", SHARD_FILES).exit_code == 0
    for backend in ("onnxruntime", "openvino"):
        bundle = build_cheap_bundle(folder / f"{backend}.cxr", backend=backend)
        assert cli("score", folder / "xrays", "-e", bundle, "-o", folder / f"{backend}.parquet").exit_code == 0
    return folder


def start(cluster, run, parts, *backends):
    engines = [word for backend in backends for word in ("-e", run / f"{backend}.cxr")]
    return cluster.start("score", run / "list", *engines, "-o", parts, "--ray", cluster.address)


def test_a_node_that_cannot_open_the_engine_is_named_before_anything_is_scored(cluster, run, tmp_path):
    said = end(start(cluster, run, tmp_path / "parts", "onnxruntime"), code=2)
    (error,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "(127.0.0.4): " in error
    assert f"{run}/onnxruntime.cxr: built with onnxruntime " in error
    assert "but 1.0 is installed; rebuild it: " in error
    assert not list((tmp_path / "parts").glob("part-*"))


def test_each_node_takes_the_first_engine_that_it_can_open(cluster, run, tmp_path, cli):
    parts, table = tmp_path / "parts", tmp_path / "scores.parquet"
    said = end(start(cluster, run, parts, "onnxruntime", "openvino"))
    assert f"engines: {run}/onnxruntime.cxr on 1 node, {run}/openvino.cxr on 1 node" in said.replace("\n", " ")
    expected = {}
    for backend in ("onnxruntime", "openvino"):
        fingerprint = read_manifest(run / f"{backend}.cxr").fingerprint
        rows = pq.read_table(run / f"{backend}.parquet").to_pylist()
        expected |= {(row["path"], fingerprint): row for row in rows}
    engines = set()
    for path in parts.glob("part-*"):
        part = pq.read_table(path)
        assert set(part["engine"].to_pylist()) == {part.schema.metadata[b"cxr_trt.fingerprint"].decode()}
        engines |= set(part["engine"].to_pylist())
        for row in part.to_pylist():
            if row["path"] == DEADLY:
                assert row["error"].startswith("the engine failed on this file: its process died")
            else:
                assert row == expected[row["path"], row["engine"]]
    assert len(engines) == 2
    collect = ("collect", parts, "--list", run / "list", "-o", table)
    refused = cli(*collect)
    assert (refused.exit_code, table.exists()) == (2, False)
    assert "has parts of several engines" in refused.stderr
    assert cli(*collect, "--several-engines").exit_code == 1
    assert pq.read_table(table).num_rows == SHARDS * SHARD_FILES
    assert set(pq.read_table(table)["engine"].to_pylist()) == engines


def test_parts_of_an_engine_that_is_not_named_are_refused(cluster, run, tmp_path, cli):
    arguments = ("-e", run / "openvino.cxr", "-o", tmp_path / "parts", "--part", "1/12", "--workers", 1)
    assert cli("score", run / "list", *arguments).exit_code == 0
    said = end(start(cluster, run, tmp_path / "parts", "onnxruntime"), code=2)
    assert "part-00000000.parquet: was scored with the engine " in said
