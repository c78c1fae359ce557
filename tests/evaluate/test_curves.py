from itertools import combinations

import cv2
import numpy as np
import pytest

from cxr_trt.evaluate.auc import evaluate
from cxr_trt.evaluate.curves import draw, roc_curve
from cxr_trt.evaluate.reliability import draw as draw_reliability
from cxr_trt.findings import FINDINGS
from cxr_trt.tables.labels import LabelledScores
from cxr_trt.tables.matching import Matching

pytest.importorskip("matplotlib", reason="needs pip install 'cxr-trt[plots]'")
from matplotlib.backends.backend_agg import FigureCanvasAgg


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


@pytest.mark.parametrize("count", [1, 5, 14, 18, 40])
def test_no_text_covers_another_however_many_findings_there_are(count):
    names = [f"Finding_{i}" for i in range(count)]
    names[count // 2] = "Enlarged cardiomediastinal silhouette, on any view of the chest"
    rng = np.random.default_rng(0)
    labels = rng.random((200, count)) < 0.3
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)
    matched = LabelledScores(
        tuple(names), (), scores, labels, None, None, scores**1.3, scores > 0.5, Matching(200, 0, 0), 0, 0, 0
    )
    figures = (
        draw(scores, labels, evaluate(names, scores, labels, np.arange(200), resamples=9)),
        draw_reliability(matched),
    )
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        panels = [panel for panel in figure.axes if panel.axison]
        assert len(panels) == count
        texts = [figure._suptitle, figure._supxlabel, figure._supylabel, *(panel.title for panel in panels)]
        boxes = [text.get_window_extent() for text in texts] + [panel.get_window_extent() for panel in panels]
        assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
        assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


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
