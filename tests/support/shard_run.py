"""A list to score on a Ray cluster, of whose files an engine and a decoder die, and what its table must be."""

import shutil

import cv2
import numpy as np
import pyarrow.parquet as pq

SHARDS, SHARD_FILES = 8, 5


def write_run(folder, radiographs, bundle, cli):
    """Write X-rays, their list of eight shards, an engine, and the table of `score` without Ray.

    One picture is black; besides them there are a broken file, one that a decoder dies of, and a DICOM file.
    """
    xrays = folder / "xrays"
    xrays.mkdir()
    for i in range(SHARDS * SHARD_FILES - 3):
        picture = np.random.default_rng(i).integers(1, 256, (64, 80), np.uint8)
        cv2.imwrite(str(xrays / f"{i:03}.png"), picture * (i != 12))
    (xrays / "012-broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (xrays / "020-crash.png").write_bytes(b"crash")
    shutil.copy(radiographs / "RG1_UNCR.dcm", xrays / "chest.dcm")
    shutil.copytree(bundle, folder / "mine.cxr")
    assert cli("list", xrays, "-o", folder / "list", "--shard", SHARD_FILES).exit_code == 0
    result = cli("score", xrays, "-e", folder / "mine.cxr", "-o", folder / "scores.parquet")
    assert result.exit_code == 1, result.output


def written(parts):
    """The names of the parts that are there."""
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
