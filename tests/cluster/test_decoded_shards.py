"""Shards that one process decodes and another scores, without a cluster."""

import pyarrow.parquet as pq

from cxr_trt.cluster.listing import FileList
from cxr_trt.cluster.parts import part_path
from cxr_trt.cluster.scoring import ShardDecoder, ShardScorer
from cxr_trt.score.engine import Engine


def test_they_have_the_same_rows(run, tmp_path):
    """Also of what is no image, and of what cannot be read."""
    files = FileList.open(run / "list")
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    whole.mkdir()
    divided.mkdir()
    with (
        Engine(run / "mine.cxr") as engine,
        ShardDecoder(files, engine.spec, 2) as decoder,
        ShardScorer(engine, files, whole, 1) as one,
        ShardScorer(engine, files, divided, 1) as other,
    ):
        for shard in range(files.shards.count):
            assert other.score_decoded(shard, decoder.decode(shard)) == one.score(shard)
            parts = [pq.read_table(part_path(folder, shard)) for folder in (whole, divided)]
            assert parts[0].equals(parts[1], check_metadata=True)
