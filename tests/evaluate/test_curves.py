import cv2
import numpy as np
import pytest

from cxr_trt.evaluate.auc import evaluate
from cxr_trt.evaluate.curves import draw, roc_curve
from cxr_trt.findings import FINDINGS

pytest.importorskip("matplotlib", reason="needs pip install 'cxr-trt[plots]'")


def test_the_curve_is_scikit_learns_with_ties():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 20, 300) / 20, rng.integers(0, 2, 300).astype(bool)
    expected = metrics.roc_curve(labels, scores, drop_intermediate=False)[:2]
    np.testing.assert_allclose(roc_curve(scores, labels), expected, atol=1e-12)


def test_each_panel_names_its_finding_and_area():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((50, 14)), rng.integers(0, 2, (50, 14)).astype(bool)
    labels[:, 3] = False
    evaluation = evaluate(FINDINGS, scores, labels, np.arange(50), resamples=20)
    panels = draw(scores, labels, evaluation).axes
    assert [panel.get_title().split("\n")[0].replace(" ", "_") for panel in panels[:14]] == list(FINDINGS)
    assert f"AUC {evaluation.findings['Mass'].auc:.3f}" in panels[4].get_title()
    assert panels[3].get_title().endswith("undefined")
    assert [len(panel.lines) for panel in panels[2:5]] == [2, 1, 2]
    drawn = panels[4].lines[1].get_xydata().T
    np.testing.assert_array_equal(drawn, roc_curve(scores[:, 4], labels[:, 4]))


def write(path, key):
    rng = np.random.default_rng(0)
    rows = [[f"{i}.png", *map(str, rng.integers(0, 2, 14))] for i in range(20)]
    path.write_text("\n".join(map(",".join, [[key, *FINDINGS], *rows])))
    return path


def test_the_command_writes_the_picture(cli, tmp_path):
    arguments = ["evaluate", write(tmp_path / "s.csv", "path"), write(tmp_path / "l.csv", "image"), "--curves"]
    result = cli(*arguments, tmp_path / "roc.png")
    assert result.exit_code == 0
    assert cv2.imread(str(tmp_path / "roc.png")).std() > 10
    result = cli(*arguments, tmp_path / "roc.bmp")
    assert (result.exit_code, "must end in .png or .svg or .pdf" in result.stderr) == (2, True)
