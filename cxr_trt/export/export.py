"""What an export gives."""

from dataclasses import dataclass

from cxr_trt.export.scoring_graph import ScoringGraph


@dataclass(frozen=True)
class Export:
    """A verified scoring graph.

    checked: the number of images on which it agrees with the network that it was made from.
    difference: the largest difference of a probability, small enough to be one of rounding.
    """

    graph: ScoringGraph
    checked: int
    difference: float
