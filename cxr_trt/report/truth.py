"""What is known about the cases of a report beside their scores: labels, boxes and areas under the curve."""

from collections.abc import Mapping
from dataclasses import dataclass, field

NamedBox = tuple[int, float, float, float, float]
"""Index of the finding; then y, x, height and width as fractions of the picture."""


@dataclass(frozen=True)
class Truth:
    """By path of the case.

    labels: a value per finding of the table, None where the labels do not have it; cases without labels are missing.
    boxes: what radiologists drew. areas: AUC per finding, None where there is none; empty without labels.
    """

    labels: Mapping[str, tuple[bool | None, ...]] = field(default_factory=dict)
    boxes: Mapping[str, list[NamedBox]] = field(default_factory=dict)
    areas: tuple[float | None, ...] = ()
