"""The 14 findings of ChestX-ray14, in the order of the paper's table 1, which is also the order of every output."""

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
    """Indices of the findings, the most probable first. Ties keep the order of FINDINGS."""
    return sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)
