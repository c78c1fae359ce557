"""What was aimed at with the shipped demonstrations, and what their evaluations reached."""

from benchmarks.study import Result
from cxr_trt.evaluate.localization import Accuracy, shown
from cxr_trt.markdown import markdown_table

MEAN_AUCS = {"edge": 0.70, "paper": 0.68}
LOWER_BOUNDS = {"edge": 0.67}
MAP_MEASURES = {
    "pointing": "boxes with the highest point of `edge`'s map in them",
    "IoU 0.1": "boxes that its map agrees with, IoU 0.1",
}
CENTRE = "image centre"


def targets_table(evaluations: dict[str, Result], maps: dict[str, Result], times_faster: float, least: float) -> str:
    """Every target, and whether it was reached.

    Args:
        evaluations: of `cxr-trt evaluate --json`, by network.
        maps: the study of localization's results, by method.
        times_faster: edge beside paper.
        least: what was aimed at for that.
    """
    rows = []
    for name, target in MEAN_AUCS.items():
        found = evaluations[name]["mean_auc"]
        rows.append((f"mean AUC of `{name}`", f"{target:.2f}", f"{found:.3f}", found >= target))
    for name, target in LOWER_BOUNDS.items():
        found = evaluations[name]["mean_low"]
        rows.append((f"lower bound of `{name}`", f"above {target:.2f}", f"{found:.3f}", found > target))
    for measure, text in MAP_MEASURES.items():
        own, centre = (Accuracy(**maps[method]["mean"][measure]) for method in ("edge, ten crops", CENTRE))
        is_above = own.low is not None and centre.high is not None and own.low > centre.high
        rows.append((text, f"above the {CENTRE}'s {shown(centre)}", shown(own), is_above))
    rows.append(("`edge` beside `paper`", f"{least:g} times as fast", f"{times_faster:.1f}", times_faster >= least))
    return markdown_table(
        ("", "aimed at", "found", ""), [(*cells, "reached" if is_reached else "missed") for *cells, is_reached in rows]
    )
