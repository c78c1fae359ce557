"""How well calibrated probabilities hold on other images: fitted on validation images, evaluated on test images."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click

from benchmarks.study import ROOT, Result, cxr14_option
from cxr_trt.commands.sources import DEFAULT_NETWORK
from cxr_trt.findings import FINDINGS
from cxr_trt.markdown import markdown_table
from cxr_trt.tables.labels import read_labels
from train.data import read_data
from train.split import write_split

PACKAGES = ("openvino",)
FOLDER = ROOT / "build" / "reliability"
DIAGRAM = FOLDER / "diagram.png"
TEXT = """\
# How well calibration holds

**{headline}**

The shipped network `edge`, a demonstration, calibrated by `cxr-trt calibrate` on {validation} validation images and
evaluated on {test} test images of a subset of ChestX-ray14. Calibrated probabilities hold where a finding is
as frequent as in the images that they were fitted on. The test images of this subset hold most findings far more often
(effusion: {effusion_test} instead of {effusion_validation}), so that the fit helps little or harms: calibrate on images
like those that you score.

{table}

- **calibration error**: the expected calibration error in ten bins of equal width, before and after the fit.
- **sensitivity, specificity**: of the yes and no at the fitted threshold, on the test images.
- Findings without an "after" were not fitted: too few positives, or scores that do not rise with the finding.

![share of positives by mean probability, for each finding](reliability.png)
"""


@click.command()
@cxr14_option
def measure(data: Path) -> Result:
    """Score both sides, calibrate on the one and evaluate on the other."""
    rows = read_data(data / "labels.csv", None)
    bundle, frequencies = FOLDER / f"{DEFAULT_NETWORK}.cxr", {}
    _run("build-engine", DEFAULT_NETWORK, "--output", bundle, "--overwrite")
    for split in ("val", "test"):
        folder, table = FOLDER / split, FOLDER / f"{split}.csv"
        write_split(rows, split, data / "images", folder)
        labels = read_labels(folder / "labels.csv", FINDINGS).values
        frequencies[split] = dict(zip(FINDINGS, labels.mean(0).tolist(), strict=True))
        _run("score", folder / "images", "--engine", bundle, "--output", table, "--overwrite")
        if split == "val":
            fitted = len(labels)
            _run("calibrate", table, folder / "labels.csv", "--engine", bundle)
    found = FOLDER / "test.json"
    arguments = ["--reliability", DIAGRAM, "--json", found, "--overwrite"]
    _run("evaluate", FOLDER / "test.csv", FOLDER / "test" / "labels.csv", *arguments)
    result: Result = json.loads(found.read_text(encoding="utf-8"))
    return {"validation_images": fitted, "frequencies": frequencies, **result}


def _run(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "cxr_trt", *map(str, arguments)], check=True, cwd=ROOT)


def page(result: Result) -> str:
    """The page of a result."""
    calibration, frequencies = result["calibration"], result["frequencies"]
    rows = [
        (
            finding,
            f"{frequencies['val'][finding]:.1%}",
            f"{frequencies['test'][finding]:.1%}",
            *(_number(own[key]) for key in ("before", "after", "sensitivity", "specificity")),
        )
        for finding, own in calibration["findings"].items()
    ]
    columns = ("finding", "validation images with it", "test images with it", "calibration error before", "after")
    return TEXT.format(
        headline=f"On other images the mean calibration error of the {calibration['fitted']} fitted findings goes "
        f"from {calibration['mean_before']:.3f} to {calibration['mean_after']:.3f}.",
        validation=result["validation_images"],
        test=result["n"],
        effusion_test=f"{frequencies['test']['Effusion']:.1%}",
        effusion_validation=f"{frequencies['val']['Effusion']:.1%}",
        table=markdown_table((*columns, "sensitivity", "specificity"), rows),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def draw(result: Result, path: Path) -> None:
    """Take the diagram that `measure` had drawn from the scores, of which the result holds less."""
    if DIAGRAM.exists():
        shutil.move(DIAGRAM, path)
