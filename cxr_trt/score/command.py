"""The command `cxr-trt score`: the scoring core with a table, progress and heat maps around it."""

import sys
from pathlib import Path

import click

from cxr_trt.engine.bundle import Engine
from cxr_trt.errors import CxrTrtError, UsageError
from cxr_trt.outputs import check_folder
from cxr_trt.progress import FileProgress
from cxr_trt.report.heatmaps import save_heatmaps
from cxr_trt.report.terminal import show_rows
from cxr_trt.score.files import Selection, find_files
from cxr_trt.score.pipeline import score
from cxr_trt.score.rows import Row
from cxr_trt.score.tables import CsvWriter, Table

SHOWN_ROWS = 50


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
        check_folder(heatmaps)
    with Engine(bundle or _only_bundle()) as engine:
        if heatmaps and not engine.has_class_maps:
            raise UsageError("--heatmaps needs an engine with class maps; export the checkpoint with --class-maps")
        _announce(engine, selection)
        writer: Table | CsvWriter | None = None
        if output:
            writer = Table(output, engine.spec, overwrite=overwrite)
        elif sys.stdout.isatty():
            table = True
        elif not table:
            writer = CsvWriter(sys.stdout)
        shown: list[Row] = []
        with FileProgress(len(selection.sources)) as progress:
            try:
                for result in score(engine, selection.sources, class_maps=heatmaps is not None, workers=workers):
                    if writer:
                        writer.write(result.row)
                    if heatmaps:
                        save_heatmaps(result, engine.spec, heatmaps, top)
                    if len(shown) < SHOWN_ROWS:
                        shown.append(result.row)
                    progress.advance(error=result.row.error is not None)
            except (KeyboardInterrupt, CxrTrtError):
                if isinstance(writer, Table):
                    writer.close()
                    click.echo(f"the first {progress.done} rows are in {writer.partial}", err=True)
                raise
    if table:
        show_rows(shown, progress.done - len(shown), engine.warnings)
    if isinstance(writer, Table):
        writer.close()
        if progress.errors == progress.done and writer.path.exists():
            writer.partial.unlink()
            raise UsageError(f"none of the {progress.done} files could be read; {writer.path} was left as it is")
        writer.publish()
    _summarise(progress, shown, output, heatmaps)
    if progress.errors == progress.done:
        return 2
    return 1 if progress.errors else 0


def _only_bundle() -> Path:
    bundles = sorted(Path().glob("*.cxr"))
    if len(bundles) != 1:
        raise UsageError(
            f"which engine? There are {len(bundles) or 'no'} .cxr folders here; name one with --engine, "
            "or build one with `cxr-trt build-engine MODEL -o NAME.cxr`"
        )
    return bundles[0]


def _announce(engine: Engine, selection: Selection) -> None:
    manifest, files = engine.manifest, len(selection.sources)
    skipped = f" ({selection.skipped} other files skipped)" if selection.skipped else ""
    click.echo(
        f"scoring {files} file{'s' * (files != 1)}{skipped}: {manifest.backend} {manifest.backend_version}, "
        f"{manifest.precision}, {engine.spec.views}, engine {engine.fingerprint}",
        err=True,
    )
    for warning in engine.warnings:
        click.secho(f"warning: {warning}", err=True, bold=True)


def _summarise(progress: FileProgress, shown: list[Row], output: Path | None, heatmaps: Path | None) -> None:
    scored = progress.done - progress.errors
    click.echo(f"scored {scored} of {progress.done} files, {progress.files_per_second:.2f} files/s", err=True)
    for row in (row for row in shown if row.error):
        click.echo(f"error: {row.path}: {row.error}", err=True)
    if output:
        click.echo(f"table: {output}", err=True)
    if heatmaps:
        click.echo(f"heat maps: {heatmaps}", err=True)
