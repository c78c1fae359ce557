"""Figures in running text are those of the committed results."""

import csv
import importlib
import inspect
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


RESULTS = ROOT / "benchmarks" / "results"


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


@pytest.mark.parametrize(
    ("page", "result", "module"),
    [
        ("benchmark", "peers", "benchmarks.peers_page"),
        ("benchmark-gpu", "peers-gpu", "benchmarks.peers_page"),
        ("benchmark-avx2", "peers-avx2", "benchmarks.peers_page"),
        ("feed-rate", "feed-rate", "benchmarks.feed"),
        ("growth", "growth", "benchmarks.growth"),
        ("views", "views", "benchmarks.frontier"),
        ("dense-gap", "dense-gap", "benchmarks.dense_gap"),
        ("views-dense", "views-dense", "benchmarks.frontier"),
        ("parity-gpu", "parity-gpu", "benchmarks.parity_gpu"),
        ("pooling-on-gpu", "max_min_pool", "gpu_benchmark"),
    ],
)
def test_pages_are_made_of_the_committed_results(page, result, module):
    pytest.importorskip("torch")
    to_markdown = importlib.import_module(module).to_markdown
    arguments = [f"{page}.png"] if "picture" in inspect.signature(to_markdown).parameters else []
    assert (ROOT / "docs" / f"{page}.md").read_text() == to_markdown(read(result), *arguments)


FASTEST = (
    "PyTorch eager",
    "torch.compile",
    "ONNX Runtime, plain export",
    "OpenVINO, plain export",
    "cxr-trt openvino, ten-crop",
    "cxr-trt openvino, ten-crop, int8",
    "cxr-trt openvino, dense",
    "cxr-trt openvino, dense, int8",
    "cxr-trt openvino, center",
)
"""The rows of the README's table, in its order."""
HELD_TO_AVX2 = (
    "cxr-trt openvino, ten-crop",
    "cxr-trt openvino, ten-crop, int8",
    "cxr-trt openvino, dense, int8",
)


def test_how_fast():
    text = (ROOT / "README.md").read_text().split("## How fast")[1].split("\n## ")[0]
    peers, start = read("peers"), read("start")
    found = [line.split("|")[2:4] for line in text.splitlines() if line.startswith("|")][2:]
    expected = [
        (f" {own['median'] / peers['files']:.2f} ", f" {own['times faster']:.2f} ")
        for own in (peers["rows"][name]["files"] for name in FASTEST)
    ]
    assert [tuple(cells) for cells in found] == expected
    flowing = " ".join(text.split())
    assert f"{peers['date'][:10]}, commit {peers['commit']}, {peers['machine']}" in flowing
    beyond, day = start["seconds"]["beyond"], start["date"][:10]
    assert f"takes {beyond:.1f} s beyond the inference (`make bench-start`, {day}, the same machine)" in flowing
    assert start["machine"] == peers["machine"]
    times = [read("peers-avx2")["rows"][name]["files"]["times faster"] for name in HELD_TO_AVX2]
    assert (
        "With PyTorch and OpenVINO held to AVX2, ten crops were {:.2f} times as fast as PyTorch, {:.2f} in int8, and "
        "dense views in int8 {:.2f}"
    ).format(*times) in flowing


def test_what_training_on_crops_of_varying_size_does():
    text = " ".join((ROOT / "README.md").read_text().split())
    shipped, trained = (read(name)["views"] for name in ("views", "views-dense"))
    lost = [-views["dense"]["difference"]["difference"] for views in (shipped, trained)]
    assert f"dense views lose {lost[0]:.4f} of ten crops' mean AUC" in text
    assert f"on crops of varying size they lose {lost[1]:.4f}" in text
    dense, ten = ([views[name]["mean_auc"] for views in (shipped, trained)] for name in ("dense", "ten-crop"))
    assert (
        f"its dense views score {dense[1]:.4f}, little more than the shipped model's {dense[0]:.4f}, "
        f"and its ten crops {ten[1]:.4f} for {ten[0]:.4f}"
    ) in text


def test_what_a_gpu_has_run():
    text = " ".join((ROOT / "docs" / "gpu.md").read_text().split())
    times = [
        own["pytorch"]["microseconds"] / own["kernel"]["microseconds"]
        for own in read("max_min_pool")["measured"].values()
    ]
    assert f"{min(times):.0f} to {max(times):.0f} times as fast as PyTorch" in text
    engines = read("parity-gpu")["engines"]
    for precision, bound in (("fp16", 0.0001), ("int8", 0.0005)):
        assert abs(engines[f"onnxruntime {precision}"]["auc"]["mean"]["difference"]) < bound
    assert "float16 within 0.0001 of PyTorch's mean, int8 within 0.0005" in text


def test_what_heat_maps_cost():
    result = read("heatmaps")["RG1_UNCR.dcm"]
    added = {way: values["added, %"] for way, values in result["seconds an X-ray"].items()}
    text = " ".join((ROOT / "docs" / "reading-the-numbers.md").read_text().split())
    assert f"took {added['three highest']} % of the time" in text
    assert f"{added['three highest, full size']} % in full size" in text
    assert f"on {result['date'][:10]} at commit {result['commit']}" in text


def test_what_the_reliability_diagram_shows(cxr14):
    result = read("reliability")
    text = " ".join((ROOT / "docs" / "reading-the-numbers.md").read_text().split())
    calibration = result["calibration"]
    assert f"mean calibration error of its {calibration['fitted']} findings" in text
    assert f"from {calibration['mean_before']:.3f} to {calibration['mean_after']:.3f}" in text
    with (cxr14 / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    count, effusions = {}, {}
    for split in ("val", "test"):
        own = [row["Effusion"] == "1" for row in rows if row["split"] == split]
        count[split], effusions[split] = len(own), 100 * sum(own) / len(own)
    assert f"{count['val']} validation images" in text
    assert f"{count['test']} test images" in text
    assert f"(effusion: {effusions['test']:.1f} % and {effusions['val']:.1f} %)" in text
