"""How far probabilities are from frequencies: expected calibration error and the reliability diagram.

Probabilities fall into ten bins of equal width; the error is the mean distance of a bin's mean probability from its
share of positives, weighted by images (Naeini, Cooper and Hauskrecht 2015, AAAI), for each finding on its own. The
diagram shows the two against each other (DeGroot and Fienberg 1983).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_trt.evaluate.auc import Floats
from cxr_trt.evaluate.curves import PANEL_COLUMNS, PANEL_INCHES
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import replacing
from cxr_trt.tables.reading import LabelledScores

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

RELIABILITY_BINS = 10


@dataclass(frozen=True)
class Calibrated:
    """One finding. Errors are 0 to 1; `after`, `sensitivity` and `specificity` are None where nothing was fitted.

    sensitivity, specificity: of the yes and no in the table; None also without positives or without negatives.
    """

    positives: int
    before: float
    after: float | None
    sensitivity: float | None
    specificity: float | None


def reliability(probabilities: Floats, labels: "npt.NDArray[np.bool_]") -> tuple[Floats, Floats, Floats]:
    """Mean probability, share of positives and number of images [B] of the bins that are not empty.

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


def evaluate_calibration(matched: LabelledScores) -> dict[str, Calibrated]:
    """Every finding before and, where its column is filled, after calibration."""
    results = {}
    for i, name in enumerate(FINDINGS):
        truth = matched.labels[:, i]
        after, sensitivity, specificity = None, None, None
        if matched.calibrated is not None and matched.positive is not None and _is_fitted(matched, i):
            after = calibration_error(matched.calibrated[:, i], truth)
            sensitivity = _share(matched.positive[truth, i])
            specificity = _share(~matched.positive[~truth, i])
        before = calibration_error(matched.scores[:, i], truth)
        results[name] = Calibrated(int(truth.sum()), before, after, sensitivity, specificity)
    return results


def means(results: dict[str, Calibrated]) -> tuple[int, float | None, float | None]:
    """Of the fitted findings: their number, and the mean error before and after."""
    fitted = [result for result in results.values() if result.after is not None]
    if not fitted:
        return 0, None, None
    before, after = ([getattr(result, name) for result in fitted] for name in ("before", "after"))
    return len(fitted), float(np.mean(before)), float(np.mean(after))


def to_json(results: dict[str, Calibrated]) -> dict[str, Any]:
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


def to_markdown(results: dict[str, Calibrated]) -> str:
    """A row a finding, and the means over the fitted findings."""
    head = ("finding", "positives", "calibration error", "calibrated", "sensitivity", "specificity")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, result in results.items():
        errors = f"{result.before:.4f} | {_shown(result.after, 'not fitted')}"
        rates = f"{_shown(result.sensitivity)} | {_shown(result.specificity)}"
        lines.append(f"| {name} | {result.positives} | {errors} | {rates} |")
    fitted, before, after = means(results)
    if fitted:
        lines.append(f"| **mean of the {fitted} fitted** |  | {_shown(before)} | {_shown(after)} |  |  |")
    return "\n".join(lines)


def save_reliability(path: Path, matched: LabelledScores) -> None:
    """Write the diagram, in the format of its suffix: .png, .svg or .pdf. Raises UsageError if it cannot be written."""
    with replacing(path) as partial:
        draw(matched).savefig(partial, format=path.suffix[1:], dpi=120)


def draw(matched: LabelledScores) -> "Figure":
    """The figure of `save_reliability`: a panel a finding; the area of a point grows with its images."""
    from matplotlib.figure import Figure

    results = evaluate_calibration(matched)
    rows = -(-len(FINDINGS) // PANEL_COLUMNS)
    figure = Figure((PANEL_COLUMNS * PANEL_INCHES, rows * (PANEL_INCHES + 0.35)), layout="constrained")
    panels = figure.subplots(rows, PANEL_COLUMNS, sharex=True, sharey=True).ravel()
    handles = {}
    for i, (panel, name) in enumerate(zip(panels, FINDINGS, strict=False)):
        panel.plot((0, 1), (0, 1), color="0.75", linewidth=1)
        series = [("as scored", matched.scores[:, i], "tab:blue", "o")]
        if matched.calibrated is not None and _is_fitted(matched, i):
            series.append(("calibrated", matched.calibrated[:, i], "tab:orange", "s"))
        for label, probabilities, colour, marker in series:
            x, y, counts = reliability(probabilities, matched.labels[:, i])
            panel.plot(x, y, color=colour, linewidth=1)
            handles[label] = panel.scatter(x, y, 5 + 60 * counts / counts.sum(), color=colour, marker=marker)
        result = results[name]
        after = "" if result.after is None else f" → {result.after:.3f}"
        panel.set_title(f"{name.replace('_', ' ')}\nerror {result.before:.3f}{after}", fontsize=9)
        panel.set_aspect("equal")
    for panel in panels[len(FINDINGS) :]:
        panel.set_axis_off()
    panels[len(FINDINGS)].legend(handles.values(), handles, loc="center", fontsize=9, frameon=False)
    fitted, mean_before, mean_after = means(results)
    change = f", mean calibration error of {fitted} findings {mean_before:.3f} → {mean_after:.3f}" if fitted else ""
    figure.suptitle(f"{len(matched.scores)} images{change}", fontsize=11)
    figure.supxlabel("mean probability", fontsize=10)
    figure.supylabel("share of positives", fontsize=10)
    return figure


def _is_fitted(matched: LabelledScores, finding: int) -> bool:
    return matched.calibrated is not None and bool(np.isfinite(matched.calibrated[:, finding]).all())


def _share(hits: "npt.NDArray[np.bool_]") -> float | None:
    return float(hits.mean()) if len(hits) else None


def _shown(value: float | None, otherwise: str = "") -> str:
    return otherwise if value is None else f"{value:.4f}"
