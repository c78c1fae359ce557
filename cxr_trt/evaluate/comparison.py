"""How far apart two sets of scores of the same images are: probabilities, ranks and, with labels, AUC."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.evaluate.auc import Floats, bootstrap, interval, roc_auc
from cxr_trt.markdown import markdown_table
from cxr_trt.words import quantity

MAX_NAMED_IMAGES = 5


@dataclass(frozen=True)
class LargestDifference:
    """The finding of an image whose two probabilities differ most."""

    path: str
    finding: str
    a: float
    b: float


@dataclass(frozen=True)
class AreaDifference:
    """AUC of A and of B, and B minus A with its 95 % interval over the same resampled patients; None if undefined."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    positives: int | None = None


@dataclass(frozen=True)
class AreaDifferences:
    """The mean difference, over the findings with positives and negatives, and that of each finding."""

    mean: AreaDifference
    findings: dict[str, AreaDifference]
    images: int
    patients: int
    resamples: int


@dataclass(frozen=True)
class Comparison:
    """How far the scores of two engines are apart.

    max_abs_diff, mean_abs_diff: of the probabilities.
    rank_correlation: Spearman's correlation per finding; None if the scores are constant.
    largest_differences: the images with the largest differences, the largest first.
    auc: if there are labels.
    """

    images: int
    max_abs_diff: float
    mean_abs_diff: float
    rank_correlation: dict[str, float | None]
    largest_differences: list[LargestDifference]
    auc: AreaDifferences | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; `auc` has the fields of the mean, and `findings`."""
        content = asdict(self)
        if self.auc:
            content["auc"] = {**asdict(self.auc.mean), **{k: v for k, v in content["auc"].items() if k != "mean"}}
            del content["auc"]["positives"]
        return content


def compare_probabilities(findings: Sequence[str], a: Floats, b: Floats, paths: list[str]) -> Comparison:
    """Compare two sets of probabilities [N, F] of the images `paths` and of F findings."""
    distance = np.abs(a - b)
    largest = distance.argmax(1)
    order = np.argsort(-distance.max(1), kind="stable")[:MAX_NAMED_IMAGES]
    named = [
        LargestDifference(paths[i], findings[largest[i]], float(a[i, largest[i]]), float(b[i, largest[i]]))
        for i in order
    ]
    ranks = {name: spearman(a[:, column], b[:, column]) for column, name in enumerate(findings)}
    return Comparison(len(a), float(distance.max()), float(distance.mean()), ranks, named)


def compare_areas(
    findings: Sequence[str],
    a: Floats,
    b: Floats,
    labels: npt.NDArray[np.bool_],
    patients: npt.ArrayLike,
    resamples: int,
    seed: int,
) -> AreaDifferences:
    """Compare the AUC of two sets of scores [N, F] of F findings; the images of a patient are drawn together."""
    once = np.ones((len(labels), 1), np.int64)
    exact = np.stack([[roc_auc(s[:, i], labels[:, i], once)[0] for i in range(len(findings))] for s in (a, b)])
    drawn = np.subtract(*(bootstrap(scores, labels, patients, resamples, seed) for scores in (b, a)))
    by_finding = {
        name: _difference(exact[:, i], drawn[:, i], int(labels[:, i].sum())) for i, name in enumerate(findings)
    }
    defined = np.isfinite(exact[0])
    if defined.any():
        mean = _difference(exact[:, defined].mean(1), drawn[:, defined].mean(1), None)
    else:
        mean = AreaDifference(None, None, None, None, None)
    return AreaDifferences(mean, by_finding, len(labels), len(np.unique(np.asarray(patients))), resamples)


def _difference(exact: Floats, drawn: Floats, positives: int | None) -> AreaDifference:
    a, b = exact.tolist()
    if np.isnan(a):
        return AreaDifference(None, None, None, None, None, positives)
    return AreaDifference(a, b, b - a, *interval(drawn), positives)


def spearman(a: Floats, b: Floats) -> float | None:
    """Rank correlation of two arrays [N], with tied values at their mean rank; None if an array is constant."""
    ranks = [_ranks(values) for values in (a, b)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Floats) -> Floats:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: Floats = (last - (counts - 1) / 2)[places]
    return means


def to_markdown(comparison: Comparison) -> str:
    """Two tables: the largest differences of the probabilities, and a row per finding."""
    summary = (
        f"{quantity(comparison.images, 'image')}, probabilities differ by {comparison.max_abs_diff:.2e} at most and "
        f"{comparison.mean_abs_diff:.2e} on average. They differ most in:"
    )
    largest = markdown_table(
        ("image", "finding", "A", "B"),
        [(item.path, item.finding, f"{item.a:.6f}", f"{item.b:.6f}") for item in comparison.largest_differences],
    )
    return "\n\n".join((summary, largest, _findings_table(comparison)))


def _findings_table(comparison: Comparison) -> str:
    correlations = {name: _shown(value) for name, value in comparison.rank_correlation.items()}
    if not comparison.auc:
        return markdown_table(("finding", "rank correlation"), correlations.items())
    areas = comparison.auc.findings
    rows = [
        (name, str(areas[name].positives), correlation, *_cells(areas[name]))
        if name in areas
        else (name, "no labels", correlation, "", "", "", "")
        for name, correlation in correlations.items()
    ]
    columns = ("finding", "positives", "rank correlation", "AUC A", "AUC B", "B - A", "95 % interval")
    return markdown_table(columns, [*rows, ("**mean**", "", "", *_cells(comparison.auc.mean))])


def _cells(area: AreaDifference) -> tuple[str, str, str, str]:
    if area.difference is None:
        return "undefined", "undefined", "", ""
    interval = "" if area.low is None else f"{area.low:+.4f} to {area.high:+.4f}"
    return f"{area.a:.4f}", f"{area.b:.4f}", f"{area.difference:+.4f}", interval


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.5f}"
