"""Write the model card of a shipped model, from the headers of its checkpoints and from its evaluation.

python -m train.card edge.onnx edge-evaluation.json best.safetensors > edge-card.md
"""

import datetime
import json
from pathlib import Path
from typing import Any

import click
from safetensors import safe_open

from cxr_trt.markdown import markdown_table
from cxr_trt.model.weights_file import HEADER_KEY
from cxr_trt.systems import find_system
from cxr_trt.words import quantity

CARD_TEMPLATE = """\
# Model card: {model}

**A demonstration. Research use only; not a medical device.** This model shows that training, export, engines and heat
maps work together on real X-rays. Do not use it for diagnosis, for triage, to label data, or as a baseline.

| | |
|---|---|
| network | {network} |
| input | a frontal chest X-ray, stretched to {image} x {image}, grey; ten crops of {crop}, probabilities averaged |
| output | probabilities of the 14 findings of ChestX-ray14, not calibrated; class maps |
| weights | trained from {start}, {date}; kernels and matrices stored as float16 |
| training data | {train:,} images of ChestX-ray14 (NIH Clinical Center; Wang et al., CVPR 2017), \
{val} for validation: a subset of the official training side, enriched for findings, \
from three re-distributions as 512-pixel JPEG |
| labels | extracted from reports by NIH's software, so noisy; view, sex and age were auxiliary targets in training |
| training | {hours:.1f} hours on {threads} of a CPU, in {stretches} (below) |
| made by | `make {target}` |

## How good it is

Mean AUC **{mean:.3f}** ({low:.3f} to {high:.3f}) on the {images}-image subset of the official test side that the
evaluation had at hand ({patients} patients, ten crops). That subset is small and enriched for findings, so the number
cannot be compared with an AUC on the whole official test set, where the paper's network reaches 0.830 after training on
76,524 images.

{table}

95 % intervals from {resamples} resamples of patients. A finding with few positives says next to nothing.

## Limits

- One fortieth of the paper's training images: [what more of them would bring](../../docs/studies/learning-curve.md).
- In these data many findings go along with the view position, which the network sees easily, and with the source of
  the image. A good part of the AUC can come from that rather than from pathology.
- The images are from one hospital and mostly of adults; nothing is known about others.
- The class maps learn where a finding is from labels that do not say it: [how often they are
  right](../../docs/studies/localization.md), beside the image's centre.

## Training

{recipes}
"""


@click.command()
@click.argument("model")
@click.argument("evaluation", type=click.Path(path_type=Path))
@click.argument("checkpoints", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--start", default="random initialisation", help="What weights the first of CHECKPOINTS started from.")
def main(model: str, evaluation: Path, checkpoints: tuple[Path, ...], start: str) -> None:
    """Print the card of MODEL, which the last of CHECKPOINTS became, given `cxr-trt evaluate --json`."""
    result = json.loads(evaluation.read_text(encoding="utf-8"))
    stretches = [_training(path) for path in checkpoints]
    recipe = stretches[-1]["recipe"]
    system = find_system(recipe["setting"])
    text = CARD_TEMPLATE.format(
        model=model,
        network=f"{system.title}: {system.settings[recipe['setting']]}",
        image=recipe["image_size"],
        crop=recipe["crop_size"],
        start=start,
        target=f"train-{Path(model).stem}",
        date=datetime.date.fromtimestamp(checkpoints[-1].stat().st_mtime),
        train=stretches[-1]["images"]["train"],
        val=stretches[-1]["images"]["val"],
        hours=sum(stretch["hours"] for stretch in stretches),
        threads=quantity(stretches[-1]["threads"], "thread"),
        stretches=quantity(len(stretches), "run"),
        mean=result["mean_auc"],
        low=result["mean_low"],
        high=result["mean_high"],
        images=result["n"],
        patients=result["patients"],
        resamples=result["resamples"],
        table=_table(result["findings"]),
        recipes=_recipes(stretches),
    )
    click.echo(text, nl=False)


def _training(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        training: dict[str, Any] = json.loads(file.metadata()[HEADER_KEY])["training"]
    return training


def _table(findings: dict[str, dict[str, Any]]) -> str:
    rows = [
        (name, str(area["positives"]), f"{area['auc']:.3f}", f"{area['low']:.3f} to {area['high']:.3f}")
        for name, area in findings.items()
    ]
    return markdown_table(("finding", "positives", "AUC", "95 % interval"), rows)


def _recipes(stretches: list[dict[str, Any]]) -> str:
    rows = []
    for stretch in stretches:
        recipe = stretch["recipe"]
        sizes = f"{recipe['crop_size']} of {recipe['image_size']}"
        results = f"{stretch['val_loss']:.4f}", f"{stretch['val_mean_auc']:.3f}"
        rows.append((sizes, str(stretch["epoch"]), f"{stretch['hours']:.1f}", *results))
    columns = (
        "crop of image, pixels",
        "epochs in the weights",
        "hours of them",
        "validation loss",
        "validation AUC, centre crop",
    )
    return markdown_table(columns, rows)


if __name__ == "__main__":
    main(prog_name="python -m train.card")
