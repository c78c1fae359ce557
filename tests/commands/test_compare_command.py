import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle

from cxr_trt.commands.compare import _verdict
from cxr_trt.evaluate.auc import evaluate
from cxr_trt.evaluate.comparison import compare_areas, compare_probabilities, spearman, to_markdown
from cxr_trt.findings import FINDINGS
from cxr_trt.systems import find_system

RNG = np.random.default_rng(0)
A = RNG.random((60, 14))
LABELS = RNG.integers(0, 2, (60, 14)).astype(bool)


def test_spearman_is_scipys_with_ties():
    stats = pytest.importorskip("scipy.stats")
    a, b = RNG.integers(0, 8, 200).astype(float), RNG.integers(0, 8, 200) + RNG.random(200).round(1)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert spearman(a, np.ones(200)) is None


def test_the_image_and_finding_that_differ_most_come_first():
    b = A.copy()
    b[7, 3] += 0.25
    b[9, 13] -= 0.5
    found = compare_probabilities(FINDINGS, A, b, [f"{i}.png" for i in range(60)])
    assert [(item.path, item.finding) for item in found.largest_differences[:2]] == [
        ("9.png", "Hernia"),
        ("7.png", "Infiltration"),
    ]
    assert (found.largest_differences[0].a, found.largest_differences[0].b) == (A[9, 13], A[9, 13] - 0.5)
    assert found.max_abs_diff == pytest.approx(0.5)
    assert found.mean_abs_diff == pytest.approx(0.75 / (60 * 14))
    assert found.rank_correlation["Mass"] == pytest.approx(1)


def test_the_difference_of_areas_is_paired():
    """Scores that rank alike differ by exactly nothing in every resample, however wide each interval is."""
    patients = np.arange(60) // 2
    same = compare_areas(FINDINGS, A, A**3, LABELS, patients, 200, 0)
    assert (same.mean.difference, same.mean.low, same.mean.high, same.patients) == (0, 0, 0, 30)
    b = A + 0.3 * LABELS
    found = compare_areas(FINDINGS, A, b, LABELS, patients, 200, 0)
    ones = [evaluate(FINDINGS, scores, LABELS, patients, resamples=0) for scores in (A, b)]
    assert (found.mean.a, found.mean.b) == tuple(one.mean_auc for one in ones)
    assert found.findings["Edema"].difference == ones[1].findings["Edema"].auc - ones[0].findings["Edema"].auc
    assert 0 < found.mean.low < found.mean.difference < found.mean.high
    assert found.findings["Edema"].positives == LABELS[:, 9].sum()


def test_a_finding_of_one_class_is_undefined_and_not_in_the_mean():
    labels = LABELS.copy()
    labels[:, 2] = False
    found = compare_areas(FINDINGS, A, A + 0.3 * LABELS, labels, np.arange(60), 50, 0)
    assert found.findings["Effusion"].difference is None
    others = [area.difference for name, area in found.findings.items() if name != "Effusion"]
    assert found.mean.difference == pytest.approx(np.mean(others))
    assert compare_areas(FINDINGS, A, A, np.zeros_like(labels), np.arange(60), 5, 0).mean.difference is None


@pytest.fixture(scope="module")
def folder(radiographs, center_bundle, build, center_graph, tmp_path_factory):
    """Two radiographs and a text file that calls itself an image, their labels, and two bundles."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "xrays").mkdir()
    for name in ("RG1_UNCR", "RG3_UNCR"):
        shutil.copy(radiographs / f"{name}.dcm", folder / "xrays")
    (folder / "xrays" / "broken.png").write_text("no image")
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *FINDINGS])
        writer.writerow(["RG1_UNCR", *[1] * 14])
        writer.writerow(["RG3_UNCR", *[0] * 14])
    shutil.copytree(center_bundle, folder / "openvino.cxr")
    shutil.copytree(build(center_graph, "onnxruntime"), folder / "onnxruntime.cxr")
    return folder


@pytest.fixture
def compare(cli, folder):
    return lambda a, b, *options: cli("compare", folder / a, folder / b, folder / "xrays", "--resamples", 10, *options)


def test_two_engines_with_labels(compare, folder):
    options = ("--labels", folder / "labels.csv", "--max-auc-drop", 0, "--json", folder / "result.json")
    result = compare("openvino.cxr", "onnxruntime.cxr", *options)
    assert result.exit_code == 0, result.output
    assert "broken.png: the file is not a DICOM" in result.stderr
    found = json.loads((folder / "result.json").read_text())
    assert (found["images"], found["auc"]["images"]) == (2, 2)
    assert 0 < found["max_abs_diff"] < 1e-4
    assert found["auc"]["difference"] == found["auc"]["b"] - found["auc"]["a"] == 0
    assert set(found["auc"]) >= {"a", "b", "difference", "low", "high", "findings"}
    assert set(found["auc"]["findings"]["Mass"]) == {"a", "b", "difference", "low", "high", "positives"}
    assert "| **mean** |" in result.stdout


def test_an_engine_and_its_checkpoint(compare, folder, network):
    checkpoint = pytest.importorskip("cxr_trt.model.checkpoint", reason="needs pip install 'cxr-trt[export]'")
    checkpoint.save_checkpoint(network, folder / "weights.safetensors", weights="untrained")
    result = compare("weights.safetensors", "openvino.cxr", "--json", folder / "checkpoint.json")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "checkpoint.json").read_text())
    assert 0 < found["max_abs_diff"] < 1e-4
    assert found["auc"] is None


@pytest.mark.parametrize("setting", ["alexnet-lse", pytest.param("chexnet-2017", marks=pytest.mark.slow)])
def test_an_engine_and_its_checkpoint_of_another_system(cli, folder, build, setting, tmp_path):
    checkpoint = pytest.importorskip("cxr_trt.model.checkpoint", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.commands.sources import load_source

    path = tmp_path / "weights.safetensors"
    network = find_system(setting).build(setting)
    checkpoint.save_checkpoint(network, path, weights="untrained", setting=setting, sizes=(128, 96))
    bundle = build(load_source(path, None, None).graph)
    result = cli("compare", path, bundle, folder / "xrays", "--json", tmp_path / "result.json")
    assert result.exit_code == 0, result.output
    assert 0 < json.loads((tmp_path / "result.json").read_text())["max_abs_diff"] < 1e-5


@pytest.mark.slow
def test_an_engine_and_torchxrayvisions_resnet(cli, folder, build, tmp_path):
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    torchvision = pytest.importorskip("torchvision", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.commands.sources import load_source

    torch.manual_seed(7)  # logits up to 1,000: rounding alone moves a probability by more than 1e-5
    network = torchvision.models.resnet50(weights=None, num_classes=18)
    network.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    network.fc.weight.data.mul_(0.01)
    torch.save({f"model.{key}": value for key, value in network.state_dict().items()}, tmp_path / "xrv.pt")
    bundle = build(load_source(tmp_path / "xrv.pt", None, None).graph)
    result = cli("compare", tmp_path / "xrv.pt", bundle, folder / "xrays", "--json", tmp_path / "result.json")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "result.json").read_text())
    assert 0 < found["max_abs_diff"] < 1e-4  # its random weights let rounding grow
    assert len(found["rank_correlation"]) == 18


def test_bundles_of_different_views(cli, cheap_bundle, tmp_path, radiographs):
    other = build_cheap_bundle(tmp_path / "other.cxr", views="ten-crop")
    result = cli("compare", cheap_bundle, other, radiographs / "RG1_UNCR.dcm", "--json", tmp_path / "result.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "result.json").read_text())["max_abs_diff"] == 0


def test_a_fall_of_the_auc_is_exit_code_1():
    areas = compare_areas(FINDINGS, A + 0.3 * LABELS, A, LABELS, np.arange(60), 5, 0)
    comparison = compare_probabilities(FINDINGS, A, A, ["x"] * 60)
    comparison = replace(comparison, auc=areas)
    drop = -areas.mean.difference
    assert [_verdict(comparison, limit) for limit in (None, drop + 1e-9, drop - 1e-9)] == [0, 0, 1]
    assert f"{areas.mean.difference:+.4f}" in to_markdown(comparison)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--max-auc-drop", 0.1], "--max-auc-drop needs --labels"),
        (["--labels", "none.csv"], "none.csv: no such table"),
        (["--views", "ten-crop"], "--views ten-crop: the bundle was built for center"),
        (["--json", "result.txt"], "result.txt: the name must end in .json"),
    ],
)
def test_mistakes_are_one_sentence(compare, options, sentence):
    result = compare("openvino.cxr", "onnxruntime.cxr", *options)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert sentence in result.stderr
