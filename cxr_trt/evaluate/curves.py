"""ROC curves as a picture: a panel per finding, with its area and interval. Needs matplotlib (the extra `plots`)."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.evaluate.auc import Area, Evaluation, Floats
from cxr_trt.outputs import replacing
from cxr_trt.words import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
PANEL_COLUMNS = 5
PANEL_INCHES = 2.4  # side of a panel
MIN_FIGURE_INCHES = 6.0  # width, so that the title of the figure fits
TITLE_CHARACTERS = 30  # in a line above a panel
TITLE_LINE_INCHES = 0.16


def check_plots() -> None:
    """Raise UsageError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError("drawing needs matplotlib: pip install 'cxr-trt[plots]'") from error


def roc_curve(scores: Floats, labels: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); equal scores are one step.

    Args:
        scores: [N].
        labels: [N], with positives and negatives.

    Returns:
        Two rising arrays of the same length.
    """
    order = np.argsort(-scores)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last image of each run of ties
    rates = [np.cumsum(hits)[ends] / hits.sum() for hits in (~labels[order], labels[order])]
    return np.insert(rates[0], 0, 0), np.insert(rates[1], 0, 0)


def save_curves(path: Path, scores: Floats, labels: npt.NDArray[np.bool_], evaluation: Evaluation) -> None:
    """Draw the ROC curves into a file.

    Args:
        path: a .png, .svg or .pdf file.
        scores: [N, F].
        labels: [N, F].
        evaluation: the evaluation of these scores and of F findings.

    Raises:
        UsageError: the file cannot be written.
    """
    with replacing(path) as partial:
        draw(scores, labels, evaluation).savefig(partial, format=path.suffix[1:], dpi=120)


def draw(scores: Floats, labels: npt.NDArray[np.bool_], evaluation: Evaluation) -> "Figure":
    """Draw the figure of `save_curves`."""
    figure, panels = panel_figure(list(evaluation.findings))
    for column, (panel, (name, area)) in enumerate(zip(panels, evaluation.findings.items(), strict=True)):
        if area.auc is not None:
            panel.plot(*roc_curve(scores[:, column], labels[:, column]), color="tab:blue")
        set_panel_title(panel, name, _caption(area))
    mean = "" if evaluation.mean_auc is None else f", mean AUC {evaluation.mean_auc:.4f}"
    figure.suptitle(
        f"{quantity(evaluation.images, 'image')}, {quantity(evaluation.patients, 'patient')}{mean}", fontsize=11
    )
    figure.supxlabel("false positive rate", fontsize=10)
    figure.supylabel("true positive rate", fontsize=10)
    return figure


def panel_figure(findings: Sequence[str]) -> "tuple[Figure, list[Axes]]":
    """A figure with a square panel per finding, in rows of PANEL_COLUMNS or, for many, in as many rows as columns."""
    from matplotlib.figure import Figure

    count, title_lines = len(findings), 1 + max(_title(name).count("\n") + 1 for name in findings)
    columns = min(count, max(PANEL_COLUMNS, math.isqrt(count - 1) + 1))
    rows = -(-count // columns)
    width = max(columns * PANEL_INCHES, MIN_FIGURE_INCHES)
    height = rows * (PANEL_INCHES + title_lines * TITLE_LINE_INCHES) + 5 * TITLE_LINE_INCHES
    figure = Figure((width, height), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels[:count]:
        panel.plot((0, 1), (0, 1), color="0.75", linewidth=1)
        panel.set_aspect("equal")
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, list(panels[:count])


def set_panel_title(panel: "Axes", finding: str, caption: str) -> None:
    """Write a finding and a line with its numbers above its panel; a long name takes several lines."""
    panel.set_title(f"{_title(finding)}\n{caption}", fontsize=9)


def _title(finding: str) -> str:
    return textwrap.fill(finding.replace("_", " "), TITLE_CHARACTERS)


def _caption(area: Area) -> str:
    if area.auc is None:
        return "undefined"
    interval = "" if area.low is None else f" ({area.low:.3f} to {area.high:.3f})"
    return f"AUC {area.auc:.3f}{interval}"
