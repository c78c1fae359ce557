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


def problem_with_findings(names: Sequence[str]) -> str | None:
    """What is wrong with names of findings; None if nothing is."""
    if not names or not all(isinstance(name, str) and name.strip() == name and name for name in names):
        return "a finding has no name"
    return None
