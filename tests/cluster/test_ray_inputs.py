"""Scoring on a Ray cluster: real X-rays, object storage, and a list that is long."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from ray_cluster import PORT, end, wait_for, why_not

from cxr_trt.cluster.listing import write_list
from cxr_trt.images.files import Selection, Source

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]
OBJECT_STORE = Path(__file__).parents[1] / "support" / "object_store.py"


ACTORS = pytest.mark.parametrize("actors", [(), ("--actors", 1, "--decoders", 1)], ids=["alike", "decoders"])


def score(cluster, *arguments, code):
    return end(cluster.start("score", *arguments, "--ray", cluster.address), code)


@ACTORS
def test_real_xrays_have_the_rows_of_score(cluster, cxr14, center_bundle, tmp_path, cli, actors):
    (tmp_path / "xrays").mkdir()
    for path in sorted((cxr14 / "images").iterdir())[:40]:
        shutil.copy(path, tmp_path / "xrays")
    for command in (
        ("score", tmp_path / "xrays", "-e", center_bundle, "-o", tmp_path / "scores.parquet"),
        ("list", tmp_path / "xrays", "-o", tmp_path / "list", "--shard", 6),
    ):
        assert cli(*command).exit_code == 0
    score(cluster, tmp_path / "list", "-e", center_bundle, "-o", tmp_path / "parts", *actors, code=0)
    collect = ("collect", tmp_path / "parts", "--list", tmp_path / "list", "-o", tmp_path / "collected.parquet")
    assert cli(*collect).exit_code == 0
    scores, collected = pq.read_table(tmp_path / "scores.parquet"), pq.read_table(tmp_path / "collected.parquet")
    assert scores.num_rows == 40
    assert collected.equals(scores)


class Store:
    """An object storage where the cluster is; see `object_store.py`."""

    def __init__(self, cluster, folder):
        self._process = cluster.start_python(OBJECT_STORE, PORT, folder, "cxr/xrays", stdin=subprocess.PIPE)
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, command):
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self):
        self._process.communicate()


@ACTORS
def test_object_storage_that_is_cut_off_in_the_middle(cluster, cheap_bundle, tmp_path, cli, actors):
    pytest.importorskip("moto", reason="needs pip install 'moto[server]'")
    xrays = tmp_path / "xrays"
    (xrays / "ward").mkdir(parents=True)
    names = ("über weiß%20?.png", *(f"ward/{i}.png" for i in range(39)))
    for i, name in enumerate(names):
        picture = np.random.default_rng(i).integers(1, 256, (64, 80), np.uint8)
        (xrays / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    assert cli("score", xrays, "-e", cheap_bundle, "-o", tmp_path / "scores.parquet").exit_code == 0
    store = Store(cluster, xrays)
    end(cluster.start("list", "s3://cxr/xrays", "-o", "s3://cxr/list", "--shard", 2), code=0)
    arguments = ("score", "s3://cxr/list", "-e", cheap_bundle, "-o", "s3://cxr/parts", *actors)
    process = cluster.start(*arguments, "--ray", cluster.address)
    wait_for(lambda: int(store.ask("count cxr/parts")) >= 2)
    store.ask("cut_off")
    said = end(process, code=2)
    assert "the same command goes on when the store answers" in said
    store.ask("connect")
    done = int(store.ask("count cxr/parts"))
    assert 2 <= done < 20
    assert f"in {20 - done} of 20 shards" in score(cluster, *arguments[1:], code=0)
    table = tmp_path / "collected.parquet"
    end(cluster.start("collect", "s3://cxr/parts", "--list", "s3://cxr/list", "-o", table), code=0)
    assert pq.read_table(table).equals(pq.read_table(tmp_path / "scores.parquet"))
    store.close()


DRIVER = """
import sys
from cxr_trt.measure.machine import peak_memory
from cxr_trt.cli import main
try:
    main(sys.argv[1:])
finally:
    print(peak_memory())
"""


def test_the_memory_of_the_command_does_not_grow_with_the_list(cluster, cheap_bundle, tmp_path):
    """All files but a few are empty, so that most rows are errors, whose names and sentences reach the command."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64), 100, np.uint8))
    (tmp_path / "empty.png").write_bytes(b"")
    peaks = []
    for count in (1_000, 100_000):
        sources = tuple(Source(tmp_path / ("empty.png" if i % 100 else "a.png"), f"{i:09}.png") for i in range(count))
        write_list(Selection(sources, {}, "/"), tmp_path / f"list-{count}", 512, sizes=[0] * count, overwrite=False)
        options = ("-e", cheap_bundle, "--ray", cluster.address, "--progress", "lines")
        files, parts = tmp_path / f"list-{count}", tmp_path / f"parts-{count}"
        process = cluster.start_python("-c", DRIVER, "score", files, "-o", parts, *options)
        peak, errors = process.communicate(timeout=900)
        assert process.returncode == 1, errors
        assert f"scored {count // 100} of {count} files" in errors
        peaks.append(float(peak))
    assert peaks[1] < peaks[0] + 50, f"{peaks} MiB"
