"""The command `cxr-trt score`: files to a table of scores, with a journal, progress and result files."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from cxr_trt.commands.options import PATH, finish, overwrite_option, workers_option
from cxr_trt.commands.progress import FileProgress
from cxr_trt.commands.run import Run
from cxr_trt.commands.terminal import show_rows
from cxr_trt.errors import UsageError
from cxr_trt.hashing import hash_file
from cxr_trt.images.decoders import Limits, Spares
from cxr_trt.images.files import Selection, Source, counted, find_files
from cxr_trt.outputs import check_output, locked, replacing
from cxr_trt.results.dicom.writer import DicomResultWriter, check_highdicom
from cxr_trt.results.heatmaps import HeatmapWriter
from cxr_trt.results.writer import ResultWriter, check_result_folder, write_results
from cxr_trt.score.engine import Engine
from cxr_trt.score.journal import Journal
from cxr_trt.score.pipeline import default_workers, score_files
from cxr_trt.tables.writing import TABLE_SUFFIXES, standard_output, write_table

DICOM_SUFFIXES = (".dcm", ".dicom", "")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option(
    "-e",
    "--engine",
    "bundle",
    type=PATH,
    envvar="CXR_TRT_ENGINE",
    show_envvar=True,
    help="The engine bundle. Default: the only .cxr folder in the current folder.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="The table to write: scores.csv or scores.parquet. Default: CSV to standard output.",
)
@click.option("--table", is_flag=True, help="Print a readable table (the default on a terminal without -o).")
@click.option("--heatmaps", type=PATH, help="Folder for heat maps: one PNG per finding.")
@click.option(
    "--dicom-results",
    type=PATH,
    help="Folder for DICOM results of DICOM files: a structured report and heat maps. They carry the PATIENT'S "
    "IDENTIFIERS (name, ID, study and others); no other output does. Needs pip install 'cxr-trt[dicom-results]'.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How many findings per X-ray get a heat map.",
)
@click.option("--raw-maps", is_flag=True, help="With --heatmaps: also save the class maps of all findings in maps.npz.")
@click.option(
    "--full-size",
    is_flag=True,
    help="Draw heat maps in the X-ray's own size. Default: at most 768 pixels on the longer side.",
)
@workers_option
@click.option("--fresh", is_flag=True, help="Start over: forget what an earlier run has scored.")
@click.option(
    "--json", "json_path", type=PATH, help="Also write a summary of the run: counts by kind, seconds, engine."
)
@overwrite_option
def score(
    paths: tuple[Path, ...],
    bundle: Path | None,
    output: Path | None,
    table: bool,
    heatmaps: Path | None,
    dicom_results: Path | None,
    top: int,
    raw_maps: bool,
    full_size: bool,
    workers: int | None,
    fresh: bool,
    json_path: Path | None,
    overwrite: bool,
) -> None:
    """Score the X-rays in PATHS: files, and folders with everything below them. DICOM, PNG, JPEG and TIFF.

    Scored rows are kept in a journal beside the table: the same command again scores only what is new or changed.
    """
    _check_result_options(heatmaps, dicom_results, raw_maps=raw_maps, full_size=full_size)
    if json_path:
        check_output(json_path, (".json",), overwrite=True)
    selection = find_files(paths)
    workers = workers or default_workers(selection.sources)
    table = table or (output is None and sys.stdout is not None and sys.stdout.isatty())
    with ExitStack() as stack:
        journal = stack.enter_context(_open_journal(output, fresh=fresh, overwrite=overwrite)) if output else None
        _check_result_folders([heatmaps, dicom_results], paths, journal, overwrite=overwrite)
        spares = stack.enter_context(_started_decoders(selection.sources, workers))
        engine = stack.enter_context(Engine(bundle or _only_bundle()))
        writers = _result_writers(engine, heatmaps, dicom_results, top, raw_maps=raw_maps, full_size=full_size)
        stream = None if output or table else standard_output(engine.spec.findings, engine.calibration)
        _announce(engine, selection)
        run = Run(engine, journal, writers, selection)
        if not run.known_row(selection.sources[0].name):
            engine.prepare(len(selection.sources))  # while the decoders start
        stack.enter_context(_reporting_kept_rows(journal))
        progress = stack.enter_context(FileProgress(len(selection.sources)))
        results = score_files(
            engine,
            selection.sources,
            class_maps=bool(writers) and engine.has_class_maps,
            max_picture_side=max((writer.max_picture_side for writer in writers), default=0),
            identities=any(writer.needs_identity for writer in writers),
            workers=workers,
            spares=spares,
            known=run.known_row,
        )
        for result in write_results(results, writers):
            run.add(result)
            if stream and not result.skipped:
                stream.write(result.row)
            progress.advance(
                error=result.row.error is not None, known=result.is_known, skipped=result.skipped is not None
            )
        would_lose_scores = output is not None and output.exists() and not progress.scored
        if output and journal and not would_lose_scores:
            _write_table(journal, run, engine, output)
    if would_lose_scores:
        raise UsageError(f"none of the {progress.done} files could be scored; {output} was left as it is")
    _summarise(progress, run, output, writers)
    if json_path:
        with replacing(json_path) as partial:
            partial.write_text(json.dumps(run.summary(progress), indent=2) + "\n", encoding="utf-8")
    if table:
        show_rows(run.rows.kept, engine.spec.findings, run.rows.total - len(run.rows.kept), engine.warnings)
    is_incomplete = progress.errors or any(writer.refused for writer in writers)
    finish(2 if not progress.scored else 1 if is_incomplete else 0)


def _check_result_options(
    heatmaps: Path | None, dicom_results: Path | None, *, raw_maps: bool, full_size: bool
) -> None:
    if raw_maps and not heatmaps:
        raise UsageError("--raw-maps saves class maps beside heat maps; add --heatmaps FOLDER")
    if full_size and not (heatmaps or dicom_results):
        raise UsageError("--full-size is about heat maps; add --heatmaps FOLDER")
    if heatmaps and dicom_results and _overlap(heatmaps, dicom_results):
        raise UsageError(
            f"{dicom_results} and {heatmaps} overlap, but only DICOM results may carry patients' identifiers; "
            "choose another --dicom-results"
        )
    if dicom_results:
        check_highdicom()


@contextmanager
def _open_journal(output: Path, *, fresh: bool, overwrite: bool) -> Iterator[Journal]:
    """Open the journal of a table, for this process alone. A table that this command made may be replaced."""
    check_output(output, TABLE_SUFFIXES, overwrite=True)
    journal_file = output.with_name(f"{output.name}.journal")
    with locked(output.with_name(f".{output.name}.lock"), output), Journal(journal_file, fresh=fresh) as journal:
        if output.exists() and not journal.has_made(hash_file(output)):
            check_output(output, TABLE_SUFFIXES, overwrite=overwrite)
        yield journal


def _check_result_folders(
    folders: Iterable[Path | None], scored: Sequence[Path], journal: Journal | None, *, overwrite: bool
) -> None:
    for folder in filter(None, folders):
        is_ours = journal is not None and journal.has_made(str(folder.resolve()))
        check_result_folder(folder, scored, overwrite=overwrite or is_ours)


def _started_decoders(sources: Sequence[Source], workers: int) -> Spares:
    """As many as `score_files` will need."""
    first = sources[:workers]
    dicom = any(source.path.suffix.lower() in DICOM_SUFFIXES for source in first)
    return Spares(len(first), workers, Limits(), dicom=dicom)


def _result_writers(
    engine: Engine, heatmaps: Path | None, dicom_results: Path | None, top: int, *, raw_maps: bool, full_size: bool
) -> list[ResultWriter]:
    if heatmaps and not engine.has_class_maps:
        raise UsageError(
            "--heatmaps: this engine gives no class maps, which heat maps are made of; leave the option out"
        )
    writers: list[ResultWriter] = []
    if heatmaps:
        writers.append(HeatmapWriter(heatmaps, engine.spec, top, raw_maps=raw_maps, full_size=full_size))
    if dicom_results:
        writers.append(
            DicomResultWriter(dicom_results, engine.spec, top, full_size=full_size, class_maps=engine.has_class_maps)
        )
    return writers


@contextmanager
def _reporting_kept_rows(journal: Journal | None) -> Iterator[None]:
    """If the run ends early, say that nothing is lost."""
    try:
        yield
    except BaseException:
        if journal:
            kept = f"the rows of {_files(journal.count())} are kept in {journal.path}"
            click.echo(f"{kept}; the same command again continues from there", err=True)
        raise


def _write_table(journal: Journal, run: Run, engine: Engine, output: Path) -> None:
    """Write the table from the journal, in the order of the files; it appears whole or not at all."""
    with replacing(output, output.with_name(f".{output.name}.partial")) as partial:
        rows = journal.rows(run.paths)
        write_table(partial, output.suffix, rows, engine.spec, engine.calibration)
        journal.note_made(hash_file(partial))


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
    click.echo(
        f"scoring {_files(len(selection.sources))}: {manifest.backend} {manifest.backend_version}, "
        f"{manifest.precision}, {engine.spec.views}, engine {engine.fingerprint}"
        + (f", calibration {engine.calibration.fingerprint}" if engine.calibration else ""),
        err=True,
    )
    for warning in engine.warnings:
        click.secho(f"warning: {warning}", err=True, bold=True)


def _summarise(progress: FileProgress, run: Run, output: Path | None, writers: Sequence[ResultWriter]) -> None:
    errors = run.errors
    earlier = f" ({progress.known} of them in an earlier run)" if progress.known else ""
    speed = f"{progress.files_per_second:.2f} files/s"
    click.echo(f"scored {progress.scored} of {_files(progress.done)}{earlier}, {speed}", err=True)
    if run.skipped:
        click.echo(f"skipped, not X-rays: {counted(run.skipped)}", err=True)
    for row in errors.kept:
        click.echo(f"error: {row.path}: {row.error}", err=True)
    if errors.total > len(errors.kept):
        click.echo(f"and {errors.total - len(errors.kept)} more errors, all listed in the table", err=True)
    if output:
        click.echo(f"table: {output}", err=True)
    for writer in writers:
        for sentence in writer.summary():
            click.echo(sentence, err=True)


def _overlap(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"
