"""The command `cxr-trt score`: the scoring core with a table, progress and heat maps around it."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from cxr_trt.engine.bundle import Engine
from cxr_trt.errors import UsageError
from cxr_trt.progress import FileProgress
from cxr_trt.report.heatmaps import check_heatmaps, save_heatmaps
from cxr_trt.report.terminal import show_rows
from cxr_trt.score.files import Selection, find_files
from cxr_trt.score.pipeline import Result, score
from cxr_trt.score.rows import Row
from cxr_trt.score.tables import Table, standard_output

SHOWN_ROWS = 50
SHOWN_ERRORS = 20


def run(
    paths: tuple[Path, ...],
    bundle: Path | None,
    output: Path | None,
    table: bool,
    heatmaps: Path | None,
    top: int,
    workers: int | None,
    overwrite: bool,
) -> int:
    """Score and return the exit code: 0 if all files were scored, 1 if some were, 2 if none was.

    Raises:
        CxrTrtError: a path, the bundle or an output cannot be used, or the engine failed; rows written before that
            stay in the partial table.
    """
    selection = find_files(paths)
    if heatmaps:
        check_heatmaps(heatmaps, paths, overwrite=overwrite)
    table = table or (output is None and sys.stdout is not None and sys.stdout.isatty())
    rows, errors = Sample(SHOWN_ROWS), Sample(SHOWN_ERRORS)
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(bundle or _only_bundle()))
        if heatmaps and not engine.has_class_maps:
            raise UsageError("--heatmaps needs an engine with class maps; export the checkpoint with --class-maps")
        target = stack.enter_context(Table(output, engine.spec, overwrite=overwrite)) if output else None
        writer = target or (None if table else standard_output())
        _announce(engine, selection)
        progress = stack.enter_context(FileProgress(len(selection.sources)))

        def consume(result: Result) -> None:
            if writer:
                writer.write(result.row)
            if heatmaps:
                save_heatmaps(result, engine.spec, heatmaps, top)
            rows.add(result.row)
            if result.row.error:
                errors.add(result.row)
            progress.advance(error=result.row.error is not None)

        try:
            for result in score(engine, selection.sources, class_maps=heatmaps is not None, workers=workers):
                consume(result)
        except BaseException:
            if target:
                click.echo(f"the first {progress.done} rows are in {target.partial}", err=True)
            raise
        if target and progress.errors == progress.done and target.path.exists():
            target.discard()
            raise UsageError(f"none of the {progress.done} files could be read; {target.path} was left as it is")
        if target:
            target.publish()
    _summarise(progress, errors, output, heatmaps)
    if table:
        show_rows(rows.kept, rows.total - len(rows.kept), engine.warnings)
    if progress.errors == progress.done:
        return 2
    return 1 if progress.errors else 0


class Sample:
    """Keeps the first rows that are added, and counts them all."""

    def __init__(self, size: int) -> None:
        self.size, self.total = size, 0
        self.kept: list[Row] = []

    def add(self, row: Row) -> None:
        self.total += 1
        if len(self.kept) < self.size:
            self.kept.append(row)


def _only_bundle() -> Path:
    bundles = sorted(Path().glob("*.cxr"))
    if len(bundles) != 1:
        raise UsageError(
            f"which engine? There are {len(bundles) or 'no'} .cxr folders here; name one with --engine, "
            "or build one with `cxr-trt build-engine MODEL -o NAME.cxr`"
        )
    return bundles[0]


def _announce(engine: Engine, selection: Selection) -> None:
    manifest = engine.manifest
    skipped = f" ({_files(selection.skipped)} skipped: no images)" if selection.skipped else ""
    click.echo(
        f"scoring {_files(len(selection.sources))}{skipped}: {manifest.backend} {manifest.backend_version}, "
        f"{manifest.precision}, {engine.spec.views}, engine {engine.fingerprint}",
        err=True,
    )
    for warning in engine.warnings:
        click.secho(f"warning: {warning}", err=True, bold=True)


def _summarise(progress: FileProgress, errors: Sample, output: Path | None, heatmaps: Path | None) -> None:
    scored = progress.done - progress.errors
    click.echo(f"scored {scored} of {_files(progress.done)}, {progress.files_per_second:.2f} files/s", err=True)
    for row in errors.kept:
        click.echo(f"error: {row.path}: {row.error}", err=True)
    if errors.total > len(errors.kept):
        click.echo(f"and {errors.total - len(errors.kept)} more errors; the table has them all", err=True)
    if output:
        click.echo(f"table: {output}", err=True)
    if heatmaps:
        click.echo(f"heat maps: {heatmaps}", err=True)


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"
