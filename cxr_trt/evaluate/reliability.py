"""How far probabilities are from frequencies: the expected calibration error and the reliability diagram.

The probabilities of a finding are put into ten bins of equal width. The error is the mean distance between a bin's mean
probability and its share of positives, weighted by the number of images (Naeini, Cooper and Hauskrecht 2015, AAAI). The
diagram plots one against the other (DeGroot and Fienberg 1983).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_trt.evaluate.auc import Floats
from cxr_trt.evaluate.curves import panel_figure, set_panel_title
from cxr_trt.markdown import markdown_table
from cxr_trt.outputs import replacing
from cxr_trt.tables.labels import LabelledScores
from cxr_trt.words import quantity

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

RELIABILITY_BINS = 10


@dataclass(frozen=True)
class FindingReliability:
    """The calibration of one finding.

    positives: number of images with the finding.
    before, after: calibration error of the scores and of the calibrated probabilities; `after` is None if the finding
        was not fitted.
    sensitivity, specificity: of the yes and no in the table; None also without positives or without negatives.
    """

    positives: int
    before: float
    after: float | None
    sensitivity: float | None
    specificity: float | None


def reliability(probabilities: Floats, labels: "npt.NDArray[np.bool_]") -> tuple[Floats, Floats, Floats]:
    """Mean probability, share of positives and number of images of each bin that is not empty, [B] each.

    Args:
        probabilities: [N], 0 to 1.
        labels: [N].
    """
    places = np.minimum((probabilities * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    counts, sums, hits = (np.bincount(places, weights, RELIABILITY_BINS) for weights in (None, probabilities, labels))
    filled = counts > 0
    return sums[filled] / counts[filled], hits[filled] / counts[filled], counts[filled].astype(np.float64)


def calibration_error(probabilities: Floats, labels: "npt.NDArray[np.bool_]") -> float:
    """Expected calibration error of probabilities [N], N > 0."""
    means, shares, counts = reliability(probabilities, labels)
    return float(np.sum(np.abs(means - shares) * counts) / np.sum(counts))


def evaluate_calibration(matched: LabelledScores) -> dict[str, FindingReliability]:
    """Evaluate every finding before calibration and, if it was fitted, after."""
    results = {}
    for i, name in enumerate(matched.findings):
        truth = matched.labels[:, i]
        after, sensitivity, specificity = None, None, None
        if matched.calibrated is not None and matched.positive is not None and _is_fitted(matched, i):
            after = calibration_error(matched.calibrated[:, i], truth)
            sensitivity = _share(matched.positive[truth, i])
            specificity = _share(~matched.positive[~truth, i])
        before = calibration_error(matched.scores[:, i], truth)
        results[name] = FindingReliability(int(truth.sum()), before, after, sensitivity, specificity)
    return results


def means(results: dict[str, FindingReliability]) -> tuple[int, float | None, float | None]:
    """The number of fitted findings, and their mean error before and after."""
    fitted = [result for result in results.values() if result.after is not None]
    if not fitted:
        return 0, None, None
    before, after = ([getattr(result, name) for result in fitted] for name in ("before", "after"))
    return len(fitted), float(np.mean(before)), float(np.mean(after))


def to_json(results: dict[str, FindingReliability]) -> dict[str, Any]:
    """Plain values for a JSON file."""
    fitted, before, after = means(results)
    findings = {name: asdict(result) for name, result in results.items()}
    return {
        "bins": RELIABILITY_BINS,
        "fitted": fitted,
        "mean_before": before,
        "mean_after": after,
        "findings": findings,
    }


def to_markdown(results: dict[str, FindingReliability]) -> str:
    """A table with a row per finding, and the means over the fitted findings."""
    rows = [
        (
            name,
            str(result.positives),
            _shown(result.before),
            _shown(result.after, "not fitted"),
            _shown(result.sensitivity),
            _shown(result.specificity),
        )
        for name, result in results.items()
    ]
    fitted, before, after = means(results)
    if fitted:
        rows.append((f"**mean of the {fitted} fitted**", "", _shown(before), _shown(after), "", ""))
    columns = ("finding", "positives", "calibration error", "after calibration", "sensitivity", "specificity")
    return markdown_table(columns, rows)


def save_reliability(path: Path, matched: LabelledScores) -> None:
    """Draw the diagram into a .png, .svg or .pdf file. Raises UsageError if it cannot be written."""
    with replacing(path) as partial:
        draw(matched).savefig(partial, format=path.suffix[1:], dpi=120)


def draw(matched: LabelledScores) -> "Figure":
    """Draw the figure of `save_reliability`: a panel per finding, with larger points for more images."""
    results = evaluate_calibration(matched)
    figure, panels = panel_figure(list(results))
    handles = {}
    for i, (panel, (name, result)) in enumerate(zip(panels, results.items(), strict=True)):
        series = [("before calibration", matched.scores[:, i], "tab:blue", "o")]
        if matched.calibrated is not None and _is_fitted(matched, i):
            series.append(("after calibration", matched.calibrated[:, i], "tab:orange", "s"))
        for label, probabilities, colour, marker in series:
            x, y, counts = reliability(probabilities, matched.labels[:, i])
            panel.plot(x, y, color=colour, linewidth=1)
            handles[label] = panel.scatter(x, y, 5 + 60 * counts / counts.sum(), color=colour, marker=marker)
        after = "" if result.after is None else f" → {result.after:.3f}"
        set_panel_title(panel, name, f"error {result.before:.3f}{after}")
    panels[0].legend(handles.values(), handles, loc="upper left", fontsize=7, frameon=False)
    fitted, mean_before, mean_after = means(results)
    findings = quantity(fitted, "finding")
    change = f", mean calibration error of {findings} {mean_before:.3f} → {mean_after:.3f}" if fitted else ""
    figure.suptitle(f"{quantity(len(matched.scores), 'image')}{change}", fontsize=11)
    figure.supxlabel("mean probability", fontsize=10)
    figure.supylabel("share of positives", fontsize=10)
    return figure


def _is_fitted(matched: LabelledScores, finding: int) -> bool:
    return matched.calibrated is not None and bool(np.isfinite(matched.calibrated[:, finding]).all())


def _share(hits: "npt.NDArray[np.bool_]") -> float | None:
    return float(hits.mean()) if len(hits) else None


def _shown(value: float | None, otherwise: str = "") -> str:
    return otherwise if value is None else f"{value:.4f}"
