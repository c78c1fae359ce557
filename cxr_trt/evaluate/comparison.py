"""How far two sets of scores of the same images lie apart: probabilities, ranks and, with labels, AUC."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.evaluate.auc import Floats, bootstrap, interval, roc_auc
from cxr_trt.findings import FINDINGS

MAX_NAMED_IMAGES = 5


@dataclass(frozen=True)
class Furthest:
    """The finding of an image for which the two probabilities differ most."""

    path: str
    finding: str
    a: float
    b: float


@dataclass(frozen=True)
class Difference:
    """AUC of A and of B, and B minus A with its 95 % interval over the same resampled patients; None if undefined."""

    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    positives: int | None = None


@dataclass(frozen=True)
class AreaDifferences:
    """`mean` is over the findings that have both classes."""

    mean: Difference
    findings: dict[str, Difference]
    images: int
    patients: int
    resamples: int


@dataclass(frozen=True)
class Comparison:
    """Probabilities: largest and mean distance. Ranks: Spearman's correlation a finding, None for constant scores."""

    images: int
    max_abs_diff: float
    mean_abs_diff: float
    rank_correlation: dict[str, float | None]
    furthest: list[Furthest]
    auc: AreaDifferences | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; `auc` has `a`, `b`, `difference`, `low`, `high` of the mean, and `findings`."""
        content = asdict(self)
        if self.auc:
            content["auc"] = {**asdict(self.auc.mean), **{k: v for k, v in content["auc"].items() if k != "mean"}}
            del content["auc"]["positives"]
        return content


def compare_probabilities(a: Floats, b: Floats, paths: list[str]) -> Comparison:
    """Compare probabilities [N, 14] of the images `paths`."""
    distance = np.abs(a - b)
    largest = distance.argmax(1)
    order = np.argsort(-distance.max(1), kind="stable")[:MAX_NAMED_IMAGES]
    furthest = [
        Furthest(paths[i], FINDINGS[largest[i]], float(a[i, largest[i]]), float(b[i, largest[i]])) for i in order
    ]
    ranks = {name: spearman(a[:, column], b[:, column]) for column, name in enumerate(FINDINGS)}
    return Comparison(len(a), float(distance.max()), float(distance.mean()), ranks, furthest)


def compare_areas(
    a: Floats, b: Floats, labels: npt.NDArray[np.bool_], patients: npt.ArrayLike, resamples: int, seed: int
) -> AreaDifferences:
    """Compare the AUC of scores [N, 14] on labels [N, 14]; the images of a patient are drawn together."""
    once = np.ones((len(labels), 1), np.int64)
    exact = np.stack([[roc_auc(s[:, i], labels[:, i], once)[0] for i in range(len(FINDINGS))] for s in (a, b)])
    drawn = np.subtract(*(bootstrap(scores, labels, patients, resamples, seed) for scores in (b, a)))
    findings = {name: _difference(exact[:, i], drawn[:, i], int(labels[:, i].sum())) for i, name in enumerate(FINDINGS)}
    defined = np.isfinite(exact[0])
    if defined.any():
        mean = _difference(exact[:, defined].mean(1), drawn[:, defined].mean(1), None)
    else:
        mean = Difference(None, None, None, None, None)
    return AreaDifferences(mean, findings, len(labels), len(np.unique(np.asarray(patients))), resamples)


def _difference(exact: Floats, drawn: Floats, positives: int | None) -> Difference:
    a, b = exact.tolist()
    if np.isnan(a):
        return Difference(None, None, None, None, None, positives)
    return Difference(a, b, b - a, *interval(drawn), positives)


def spearman(a: Floats, b: Floats) -> float | None:
    """Rank correlation of two arrays [N], ties at their mean rank; None if one of them is constant."""
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
    """Two tables: the distance of the probabilities, and a row a finding."""
    lines = [
        f"{comparison.images} images, probabilities differ by {comparison.max_abs_diff:.2e} at most and "
        f"{comparison.mean_abs_diff:.2e} on average. They differ most in:",
        "",
        "| image | finding | A | B |",
        "|---|---|---|---|",
        *(f"| {item.path} | {item.finding} | {item.a:.6f} | {item.b:.6f} |" for item in comparison.furthest),
        "",
    ]
    areas = comparison.auc
    if not areas:
        lines += ["| finding | rank correlation |", "|---|---|"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in comparison.rank_correlation.items()]
        return "\n".join(lines)
    lines += ["| finding | positives | rank correlation | AUC A | AUC B | B - A | 95 % interval |", "|---" * 7 + "|"]
    for name, area in areas.findings.items():
        correlation = _shown(comparison.rank_correlation[name])
        lines.append(f"| {name} | {area.positives} | {correlation} | {_area(area)} |")
    lines.append(f"| **mean** | | | {_area(areas.mean)} |")
    return "\n".join(lines)


def _area(area: Difference) -> str:
    if area.difference is None:
        return "undefined | undefined | | "
    interval = "" if area.low is None else f"{area.low:+.4f} to {area.high:+.4f}"
    return f"{area.a:.4f} | {area.b:.4f} | {area.difference:+.4f} | {interval}"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.5f}"
