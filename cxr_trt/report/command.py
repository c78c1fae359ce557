"""The command `cxr-trt report`: a table of scores as one HTML page."""

import os
from collections import Counter
from pathlib import Path

import click

from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_output, replacing
from cxr_trt.progress import FileProgress
from cxr_trt.report.cases import read_cases
from cxr_trt.report.page import build_page
from cxr_trt.report.pictures import Picture, make_pictures


def run(
    scores: Path,
    output: Path,
    images: tuple[Path, ...],
    heatmaps: Path | None,
    pictures: int,
    title: str,
    overwrite: bool,
) -> int:
    """Write the page and return the exit code: 0, or 1 if some of the wanted pictures could not be made.

    Raises:
        CxrTrtError: a table, folder or output cannot be used.
    """
    check_output(output, (".html",), overwrite=overwrite)
    if heatmaps and not images:
        raise UsageError("--heatmaps needs --images too: what was scored, for the pictures under the maps")
    if heatmaps and not heatmaps.is_dir():
        raise UsageError(f"{heatmaps}: no such folder; `cxr-trt score --heatmaps {heatmaps} --raw-maps` makes it")
    table = read_cases(scores)
    made: dict[str, Picture] = {}
    if images:
        wanted = sorted(table.cases, key=lambda case: max(case.scores), reverse=True)[:pictures]
        with FileProgress(len(wanted)) as progress:
            made = make_pictures(wanted, images, heatmaps, os.cpu_count() or 1, lambda: progress.advance(error=False))
        if len(wanted) < len(table.cases):
            click.echo(
                f"pictures of the {len(wanted)} X-rays with the highest scores; --pictures says how many", err=True
            )
    with replacing(output) as partial:
        partial.write_text(build_page(title, table, made), encoding="utf-8")
    reasons = Counter(picture.reason for picture in made.values() if picture.reason)
    for reason, count in reasons.items():
        click.echo(f"{count} X-rays: {reason}", err=True)
    size = output.stat().st_size / 1e6
    click.echo(f"{output}: {len(table.cases)} X-rays, {len(table.errors)} errors, {size:.1f} MB", err=True)
    return 1 if reasons else 0
