"""The 14 findings of ChestX-ray14, in the paper's order, which is the order of every output (paper, table 1)."""

from collections.abc import Sequence

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)


def ranked_findings(probabilities: Sequence[float]) -> list[int]:
    """The findings by index, the most probable first; of equal ones the first in FINDINGS' order."""
    return sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)
