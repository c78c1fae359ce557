import json

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

import torch

from cxr_trt.evaluate.auc import evaluate, to_json
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.model.checkpoint import save_checkpoint
from cxr_trt.systems.edge import EDGE
from train import card, publish


def training(crop, hours):
    recipe = {"setting": "edge", "crop_size": crop, "image_size": crop + 64}
    facts = {"epoch": 3, "val_loss": 0.2, "val_mean_auc": 0.61, "hours": hours, "threads": 2, "recipe": recipe}
    return {**facts, "images": {"train": 1868, "val": 319}}


def test_the_card_states_the_measured_areas_and_the_hours(network, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, 14))
    result = to_json(evaluate(FINDINGS, rng.random((60, 14)), labels, np.arange(60), resamples=50))
    (tmp_path / "auc.json").write_text(json.dumps(result))
    for crop, hours in ((128, 1.5), (448, 4.25)):
        save_checkpoint(network, tmp_path / f"{crop}.safetensors", weights="trained", training=training(crop, hours))
    paths = [tmp_path / name for name in ("auc.json", "128.safetensors", "448.safetensors")]
    arguments = ["edge.onnx", *map(str, paths), "--start", "weights of a friend"]
    text = CliRunner().invoke(card.main, arguments, catch_exceptions=False).stdout
    assert text.startswith("# Model card: edge.onnx\n")
    assert "| network | EfficientNet-Lite, head of Yan et al. 2018: EfficientNet-Lite0, 12 maps per finding" in text
    assert "stretched to 512 x 512, grey; ten crops of 448" in text
    assert "trained from weights of a friend" in text
    assert "`make train-edge`" in text
    assert "Research use only; not a medical device" in text
    assert f"Mean AUC **{result['mean_auc']:.3f}** ({result['mean_low']:.3f} to {result['mean_high']:.3f})" in text
    assert "1,868 images" in text
    assert "5.8 hours on 2 threads of a CPU, in 2 runs" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "to" in line]
    areas = {row[0].removeprefix("| "): row[2] for row in rows if row[0].removeprefix("| ") in FINDINGS}
    assert areas == {name: f"{area['auc']:.3f}" for name, area in result["findings"].items()}
    assert "| 448 of 512 | 3 | 4.2 | 0.2000 | 0.610 |" in text


@pytest.mark.slow
def test_a_published_network_of_another_system_keeps_its_sizes(tmp_path):
    pytest.importorskip("timm", reason="needs pip install timm")
    torch.manual_seed(0)
    sizes = 192, 160
    checkpoint = tmp_path / "best.safetensors"
    save_checkpoint(EDGE.build("edge"), checkpoint, weights="trained", setting="edge", sizes=sizes)
    arguments = [str(checkpoint), str(tmp_path / "edge.onnx")]
    CliRunner().invoke(publish.main, arguments, catch_exceptions=False)
    assert (tmp_path / "edge.onnx").stat().st_size < 8e6
    graph = ScoringGraph.load(tmp_path / "edge.onnx")
    assert (graph.info.weights, graph.spec.views) == ("demonstration", "ten-crop")
    assert (graph.spec.image_size.height, graph.spec.crop_size.height) == sizes


@pytest.mark.slow
def test_the_published_model_has_the_weights_of_the_checkpoint_rounded(network, tmp_path):
    save_checkpoint(network, tmp_path / "last.safetensors", weights="trained", sizes=(160, 96))
    arguments = [str(tmp_path / name) for name in ("last.safetensors", "paper.onnx")]
    result = CliRunner().invoke(publish.main, arguments, catch_exceptions=False)
    assert "agreed with PyTorch" in result.output
    assert (tmp_path / "paper.onnx").stat().st_size < 18e6
    graph = ScoringGraph.load(tmp_path / "paper.onnx")
    assert (graph.info.weights, graph.spec.views) == ("demonstration", "ten-crop")
    (stored,) = (tensor for tensor in graph.model.graph.initializer if tensor.name == "transfer.conv.weight")
    expected = network.transfer.conv.weight.detach().to(torch.float16).float().numpy()
    np.testing.assert_array_equal(np.frombuffer(stored.raw_data, np.float32).reshape(expected.shape), expected)
