"""The command `cxr-trt report`: a table of scores as one HTML page."""

from collections import Counter
from pathlib import Path

import click

from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import PATH, finish, overwrite_option
from cxr_trt.commands.progress import FileProgress
from cxr_trt.commands.report_inputs import read_cases_or_journal, read_truth
from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_output, replacing
from cxr_trt.processors import processors
from cxr_trt.report.page import build_page, is_report
from cxr_trt.report.pictures import Picture, make_pictures
from cxr_trt.words import quantity


@click.command()
@click.argument("scores", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The page to write, such as report.html.")
@click.option("--images", type=PATH, multiple=True, help="The X-rays that were scored, to show their pictures.")
@click.option("--heatmaps", type=PATH, help="The folder of `score --heatmaps FOLDER --raw-maps`, to show heat maps.")
@click.option(
    "--pictures",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="The most X-rays to show with a picture.",
)
@click.option("--labels", type=PATH, help="Labels as for `evaluate`: false positives and negatives, and AUC.")
@click.option("--boxes", type=PATH, help="Boxes as for `evaluate`, drawn over the pictures.")
@click.option("--title", default="Chest X-ray scores", show_default=True, help="Title of the page.")
@overwrite_option
@message_options
def report(
    scores: Path,
    output: Path,
    images: tuple[Path, ...],
    heatmaps: Path | None,
    pictures: int,
    labels: Path | None,
    boxes: Path | None,
    title: str,
    overwrite: bool,
) -> None:
    """Show SCORES, a table of `cxr-trt score`, as one HTML page that works offline.

    While its run is going on, the page shows the rows that there are so far, and how far the run is. A page of this
    command is replaced without being asked.
    """
    check_output(output, (".html",), overwrite=overwrite or is_report(output))
    if heatmaps and not images:
        raise UsageError("--heatmaps needs --images too, as heat maps are drawn over the pictures")
    if heatmaps and not heatmaps.is_dir():
        raise UsageError(f"{heatmaps}: no such folder; make it with `cxr-trt score --heatmaps {heatmaps} --raw-maps`")
    table, origin = read_cases_or_journal(scores)
    truth = read_truth(table, scores, labels, boxes)
    made: dict[str, Picture] = {}
    if images:
        wanted = sorted(table.cases, key=lambda case: max(case.scores), reverse=True)[:pictures]
        with FileProgress(len(wanted)) as progress:
            boxed = {path: {box[0] for box in boxes} for path, boxes in truth.boxes.items()}
            workers, advance = processors(), lambda: progress.advance(error=False)
            made = make_pictures(table.findings, wanted, images, heatmaps, boxed, workers, advance)
        if len(wanted) < len(table.cases):
            say(f"only {quantity(len(wanted), 'X-ray')}, with the highest scores, have pictures (--pictures)")
    with replacing(output) as partial:
        partial.write_text(build_page(title, table, made, truth, origin.engine, origin.state), encoding="utf-8")
    if origin.state:
        say(origin.state)
    reasons = Counter(picture.reason for picture in made.values() if picture.reason)
    for reason, count in reasons.items():
        say(f"{quantity(count, 'X-ray')}: {reason}")
    megabytes = output.stat().st_size / 1e6
    say(f"{output}: {quantity(len(table.cases), 'X-ray')}, {quantity(len(table.errors), 'error')}, {megabytes:.1f} MB")
    finish(1 if reasons else 0)
