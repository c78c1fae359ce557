import csv

import numpy as np
from click.testing import CliRunner

from cxr_trt.findings import FINDINGS
from cxr_trt.images.files import find_files
from cxr_trt.tables.labels import read_labelled_scores
from train.data import read_data
from train.split import main

HEADER = ["image", "patient_id", "split", *FINDINGS]


def test_a_side_of_the_split_can_be_scored_and_evaluated(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images" / "a").mkdir(parents=True)
    rows = [[f"{i}.png", str(i), ("train", "val", "test")[i % 3], *rng.integers(0, 2, 14)] for i in range(12)]
    for row in rows:
        (tmp_path / "images" / "a" / row[0]).write_bytes(b"x")
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    options = ["--labels", tmp_path / "labels.csv", "--images", tmp_path / "images", "--out", tmp_path / "test"]
    for _ in range(2):
        result = CliRunner().invoke(main, ["test", *map(str, options)])
        assert (result.exit_code, "4 test images in" in result.stderr) == (0, True)
    found = find_files([tmp_path / "test" / "images"]).sources
    assert {source.name for source in found} == {"2.png", "5.png", "8.png", "11.png"}
    with (tmp_path / "scores.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", *FINDINGS], *([source.name, *rng.random(14)] for source in found)])
    matched = read_labelled_scores(tmp_path / "scores.csv", tmp_path / "test" / "labels.csv")
    data = read_data(tmp_path / "labels.csv")
    expected = [data.labels[data.names.index(source.name)] for source in found]
    np.testing.assert_array_equal(matched.labels, np.array(expected, bool))
    assert matched.patients == [source.name.removesuffix(".png") for source in found]


def test_missing_images_end_with_one_sentence(tmp_path):
    (tmp_path / "labels.csv").write_text("\n".join([",".join(HEADER), "0.png,0,test" + ",0" * 14]))
    options = ["--labels", tmp_path / "labels.csv", "--images", tmp_path, "--out", tmp_path / "test"]
    result = CliRunner().invoke(main, ["test", *map(str, options)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "1 image missing, the first is 0.png" in result.stderr
