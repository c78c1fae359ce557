"""The frontier of view sets: what lies on it, and the whole measurement on a few images."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import views
from benchmarks.__main__ import main
from cxr_trt.findings import FINDINGS


def measured(**times_faster_and_auc):
    return {name: {"times_faster": times, "mean_auc": auc} for name, (times, auc) in times_faster_and_auc.items()}


def test_on_the_frontier_nothing_else_is_both_faster_and_better():
    sets = measured(ten=(1.0, 0.70), five=(2.0, 0.70), dense=(3.0, 0.69), mirror=(3.0, 0.68), center=(9.0, 0.60))
    assert views.frontier(sets) == ["five", "dense", "center"]
    assert views.frontier(measured(a=(1.0, 0.7), b=(1.0, 0.7))) == ["a", "b"]  # neither beats the other


def test_differences_are_to_ten_crops_image_by_image():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (60, len(FINDINGS))).astype(bool)
    good = labels + rng.normal(size=labels.shape)
    scores = {"ten-crop": good, "center": good + 2 * rng.normal(size=labels.shape)}
    seconds = {"ten-crop": [2.0, 4.0, 6.0], "center": [1.0, 1.0, 2.0]}
    patients, names = [str(i // 2) for i in range(60)], [str(i) for i in range(60)]
    own = views.summary("center", scores, seconds, labels, patients, names, 50)
    assert own["times_faster"] == 3.0
    assert own["difference"]["difference"] == pytest.approx(own["difference"]["b"] - own["difference"]["a"])
    assert own["difference"]["b"] == pytest.approx(own["mean_auc"])
    assert own["difference"]["low"] < own["difference"]["difference"] < own["difference"]["high"] < 0
    assert own["rank_correlation"]["least"] <= own["rank_correlation"]["mean"] < 1


@pytest.mark.slow
@pytest.mark.long
def test_a_few_images_from_files_to_page(cxr14, tmp_path):
    arguments = [
        "views",
        "--network",
        "edge",
        "--views",
        "center",
        "--data",
        cxr14,
        "--limit",
        12,
        "--resamples",
        20,
        "--output",
        tmp_path,
    ]
    done = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "views.json").read_text())
    assert (result["images"], set(result["views"])) == (12, {"ten-crop", "center"})
    assert result["views"]["ten-crop"]["rank_correlation"]["least"] == pytest.approx(1)
    page = (tmp_path / "views.md").read_text()
    assert all(f"| `{view_set}` |" in page for view_set in result["views"])
