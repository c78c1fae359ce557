"""The command `cxr-trt score`: files to a table of scores, with a journal, progress and result files."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from cxr_trt.commands.chosen_engine import engine_option, open_engine
from cxr_trt.commands.heatmap_options import heatmap_options
from cxr_trt.commands.kept_rows import (
    beside_known_rows,
    check_one_engine,
    check_table_options,
    open_journal,
    reporting_kept_rows,
    write_kept_rows,
)
from cxr_trt.commands.list_options import (
    ListOptions,
    check_options_of_a_list,
    is_list,
    list_options,
    refuse_options_of_a_list,
)
from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import LOCATION, PATH, finish, overwrite_option, workers_option
from cxr_trt.commands.progress import FileProgress
from cxr_trt.commands.result_files import (
    announce_heatmaps,
    check_heatmap_options,
    check_result_folders,
    check_result_options,
    result_writers,
)
from cxr_trt.commands.run import Run
from cxr_trt.commands.selection import choose_files, selection_options
from cxr_trt.commands.terminal import show_rows
from cxr_trt.errors import UsageError
from cxr_trt.images.decoders import Limits, Spares
from cxr_trt.images.files import Selection, Source, counted
from cxr_trt.outputs import check_output, replacing
from cxr_trt.results.heatmaps import HeatmapLook, HeatmapWriter
from cxr_trt.results.writer import ResultWriter, write_results
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import default_workers, score_files
from cxr_trt.score.studies import find_studies, read_pairs, score_studies, selection_of
from cxr_trt.storage import Location
from cxr_trt.tables.boxes import PlacedBoxes, place_boxes
from cxr_trt.tables.rows import Row
from cxr_trt.tables.uids import UidColumns
from cxr_trt.tables.writing import standard_output
from cxr_trt.words import quantity

DICOM_SUFFIXES = (".dcm", ".dicom", "")


@click.command()
@click.argument("paths", nargs=-1, type=LOCATION)
@selection_options
@click.option(
    "--pairs",
    type=PATH,
    help="For a network that sees two X-rays: a CSV with the columns `frontal` and `lateral`, in place of PATHS. "
    "Without it, DICOM files are paired by their study.",
)
@engine_option
@click.option(
    "-o",
    "--output",
    type=LOCATION,
    help="The table to write: .csv, .parquet, .jsonl or .xlsx. Default: CSV to standard output.",
)
@click.option("--table", is_flag=True, help="Print a readable table (the default on a terminal without -o).")
@click.option("--append", is_flag=True, help="Keep the rows of the table whose files are not named now.")
@click.option("--bom", is_flag=True, help="Start a CSV with a byte-order mark, so that Excel shows all letters right.")
@click.option(
    "--uids",
    is_flag=True,
    help="Add columns with the UIDs of DICOM files: study, series and instance. They IDENTIFY the study.",
)
@click.option("--pseudonyms", type=PATH, metavar="KEYFILE", help="Add the UIDs as pseudonyms, made with a secret key.")
@click.option("--dry-run", is_flag=True, help="Only list the files that would be scored.")
@click.option("--heatmaps", type=PATH, help="Folder for heat maps: one picture per finding.")
@heatmap_options
@click.option(
    "--dicom-results",
    type=PATH,
    help="Folder for DICOM results of DICOM files: a structured report and heat maps. They carry the PATIENT'S "
    "IDENTIFIERS (name, ID, study and others); no other output but --uids does. Needs pip install "
    "'cxr-trt[dicom-results]'.",
)
@list_options
@workers_option
@click.option("--fresh", is_flag=True, help="Start over: forget what an earlier run has scored.")
@click.option(
    "--json", "json_path", type=PATH, help="Also write a summary of the run: counts by kind, seconds, engine."
)
@overwrite_option
@message_options
def score(
    paths: tuple[Location, ...],
    files_from: Path | None,
    exclude: tuple[str, ...],
    limit: int | None,
    pairs: Path | None,
    bundles: tuple[Path, ...],
    output: Location | None,
    table: bool,
    append: bool,
    bom: bool,
    uids: bool,
    pseudonyms: Path | None,
    dry_run: bool,
    heatmaps: Path | None,
    look: HeatmapLook,
    boxes: Path | None,
    dicom_results: Path | None,
    raw_maps: bool,
    full_size: bool,
    of_list: ListOptions,
    workers: int | None,
    fresh: bool,
    json_path: Path | None,
    overwrite: bool,
) -> None:
    """Score the X-rays in PATHS: files, and folders with everything below them. DICOM, PNG, JPEG and TIFF.

    PATHS and -o may be places in object storage: s3://, gs:// or abfss://.

    Scored rows are kept in a journal beside the table: the same command again scores only what is new or changed.
    """
    if is_list(paths):
        from cxr_trt.commands.score_list import score_list  # here: a folder's rows need no Parquet, slow to import

        check_options_of_a_list(click.get_current_context(), of_list)
        score_list(paths[0], bundles, output, of_list, workers, overwrite=overwrite)
        return
    refuse_options_of_a_list(of_list)
    check_table_options(output, append=append, bom=bom)
    check_heatmap_options(heatmaps, look, boxes, raw_maps=raw_maps)
    check_result_options(heatmaps, dicom_results, full_size=full_size)
    uid_columns = _uid_columns(uids=uids, key_file=pseudonyms)
    if json_path:
        check_output(json_path, (".json",), overwrite=True)
    if pairs:
        if paths or files_from or exclude or limit:
            raise UsageError("--pairs names the files itself; leave out PATHS, --files-from, --exclude and --limit")
        studies = read_pairs(pairs)
        selection = selection_of(studies, str(pairs.parent.resolve()))
    else:
        studies, selection = [], choose_files(paths, files_from, exclude, limit)
    if dry_run:
        _list(selection)
        return
    table = table or (output is None and sys.stdout is not None and sys.stdout.isatty())
    with ExitStack() as stack:
        journal = stack.enter_context(open_journal(output, fresh=fresh, overwrite=overwrite)) if output else None
        if journal and output:
            selection = beside_known_rows(journal, selection, output, append=append, overwrite=overwrite)
        check_result_folders([heatmaps, dicom_results], paths, journal, overwrite=overwrite)
        workers = workers or default_workers(selection.sources)
        spares = stack.enter_context(_started_decoders(selection.sources, workers))
        engine = stack.enter_context(open_engine(bundles))
        if journal and append:
            check_one_engine(journal, engine)
        if engine.spec.planes > 1:
            _check_options_for_studies(append, uid_columns, dicom_results, heatmaps)
            if not pairs:
                say(f"pairing {quantity(len(selection.sources), 'file')} by their headers")
                studies, skipped = find_studies(selection.sources, workers=workers)
                selection = selection_of(studies, selection.root, Counter(selection.skipped) + Counter(skipped))
        placed = _placed_boxes(boxes, selection, engine) if boxes else None
        writers = result_writers(engine, heatmaps, dicom_results, look, placed, raw_maps=raw_maps, full_size=full_size)
        findings, calibration = engine.spec.findings, engine.calibration
        stream = None if output or table else standard_output(findings, calibration, uids=uid_columns is not None)
        _announce(engine, selection, writers)
        run = Run(engine, journal, writers, selection, uid_columns)
        if not run.known_row(selection.sources[0].name):
            engine.prepare(len(selection.sources))  # while the decoders start
        stack.enter_context(reporting_kept_rows(journal))
        progress = stack.enter_context(FileProgress(len(selection.sources)))
        results = (
            score_studies(engine, studies, workers=workers, known=run.known_row)
            if studies
            else score_files(
                engine,
                selection.sources,
                class_maps=bool(writers) and engine.has_class_maps,
                max_picture_side=max((writer.max_picture_side for writer in writers), default=0),
                identities=uid_columns is not None or any(writer.needs_identity for writer in writers),
                workers=workers,
                spares=spares,
                known=run.known_row,
            )
        )
        for result in map(run.with_uids, write_results(results, writers)):
            run.add(result)
            if stream and not result.skipped:
                stream.write(result.row)
            _say_row(result.row)
            progress.advance(
                error=result.row.error is not None, known=result.is_known, skipped=result.skipped is not None
            )
            run.note_progress(progress)
        run.note_progress(progress, has_ended=True)
        would_lose_scores = output is not None and output.exists() and not progress.scored
        if output and journal and not would_lose_scores:
            write_kept_rows(journal, run, engine, output, append=append, bom=bom)
    if would_lose_scores:
        raise UsageError(f"none of the {quantity(progress.done, 'file')} could be scored; {output} was left as it is")
    _summarise(progress, run, output, writers)
    if json_path:
        with replacing(json_path) as partial:
            partial.write_text(json.dumps(run.summary(progress), indent=2) + "\n", encoding="utf-8")
    if table:
        show_rows(run.rows.kept, engine.spec.findings, run.rows.total - len(run.rows.kept), engine.warnings)
    is_incomplete = progress.errors or any(writer.refused for writer in writers)
    finish(2 if not progress.scored else 1 if is_incomplete else 0)


def _uid_columns(*, uids: bool, key_file: Path | None) -> UidColumns | None:
    if uids and key_file:
        raise UsageError("--uids and --pseudonyms exclude each other: columns hold the UIDs or their pseudonyms")
    return UidColumns.with_key_file(key_file) if key_file else UidColumns() if uids else None


def _check_options_for_studies(append: bool, uids: UidColumns | None, *folders: Path | None) -> None:
    """Raise UsageError for what rows of studies have not."""
    if append or uids or any(folders):
        raise UsageError(
            "the engine's network sees two X-rays of a study at once; leave out --append, --uids, --pseudonyms, "
            "--heatmaps and --dicom-results"
        )


def _started_decoders(sources: Sequence[Source], workers: int) -> Spares:
    """As many as `score_files` will need."""
    first = sources[:workers]
    dicom = any(source.path.suffix.lower() in DICOM_SUFFIXES for source in first)
    return Spares(len(first), workers, Limits(), dicom=dicom)


def _placed_boxes(boxes: Path, selection: Selection, engine: Engine) -> PlacedBoxes:
    names = [source.name for source in selection.sources]
    return place_boxes(boxes, names, "the X-rays", engine.spec.findings)


def _list(selection: Selection) -> None:
    for source in selection.sources:
        click.echo(source.name)
    say(f"would score {quantity(len(selection.sources), 'file')} of {selection.root}")
    if selection.skipped:
        say(f"would skip: {counted(selection.skipped)}")


def _say_row(row: Row) -> None:
    say(f"{row.path}: {row.error or 'scored'}" + "".join(f"; {warning}" for warning in row.warnings), "detail")


def _announce(engine: Engine, selection: Selection, writers: Sequence[ResultWriter]) -> None:
    say(
        f"scoring {quantity(len(selection.sources), 'file')}: {engine.manifest.describe()}, engine {engine.fingerprint}"
        + (f", calibration {engine.calibration.fingerprint}" if engine.calibration else "")
    )
    for warning in engine.warnings:
        say(warning, "warning")
    for writer in writers:
        if isinstance(writer, HeatmapWriter):
            announce_heatmaps(writer, len(selection.sources))


def _summarise(progress: FileProgress, run: Run, output: Location | None, writers: Sequence[ResultWriter]) -> None:
    errors = run.errors
    earlier = f" ({progress.known} of them in an earlier run)" if progress.known else ""
    speed = f", {progress.files_per_second:.2f} files/s" if progress.done > progress.known else ""
    say(f"scored {progress.scored} of {quantity(progress.done, 'file')}{earlier}{speed}")
    if run.skipped:
        say(f"skipped, not X-rays: {counted(run.skipped)}")
    for sentence in run.warnings():
        say(sentence, "warning")
    for row in errors.kept:
        say(f"{row.path}: {row.error}", "error")
    if errors.total > len(errors.kept):
        say(f"and {errors.total - len(errors.kept)} more errors, all listed in the table")
    if output:
        say(f"table: {output}")
    for writer in writers:
        for sentence in writer.summary():
            say(sentence)
