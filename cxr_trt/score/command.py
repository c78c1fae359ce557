"""The command `cxr-trt score`: the scoring core with a journal, a table, progress and heat maps around it."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from cxr_trt.dicom_results.writer import DicomResults, check_installed
from cxr_trt.engine.bundle import Engine
from cxr_trt.engine.manifest import hash_file
from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_output, locked, replacing
from cxr_trt.progress import FileProgress
from cxr_trt.report.heatmaps import Heatmaps, check_heatmaps, drawn
from cxr_trt.report.terminal import show_rows
from cxr_trt.score.files import Selection, find_files
from cxr_trt.score.journal import Journal
from cxr_trt.score.pipeline import Result, score
from cxr_trt.score.rows import Row
from cxr_trt.score.tables import SUFFIXES, standard_output, write_table

SHOWN_ROWS = 50
SHOWN_ERRORS = 20


def run(
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
    overwrite: bool,
    fresh: bool,
) -> int:
    """Score and return the exit code: 0 if all files were scored, 1 if some were, 2 if none was.

    It is 1, too, if a DICOM result was asked for that cannot be made of a DICOM file.

    Raises:
        CxrTrtError: a path, the bundle or an output cannot be used, or the engine failed; rows made before that stay in
            the journal.
    """
    if (raw_maps and not heatmaps) or (full_size and not (heatmaps or dicom_results)):
        raise UsageError("--raw-maps and --full-size say what to write with --heatmaps; name its folder")
    if heatmaps and dicom_results and _overlap(heatmaps, dicom_results):
        raise UsageError(
            f"{dicom_results} and {heatmaps} overlap, but only DICOM results carry patients' identifiers; "
            "choose another --dicom-results"
        )
    if dicom_results:
        check_installed()
    selection = find_files(paths)
    table = table or (output is None and sys.stdout is not None and sys.stdout.isatty())
    rows, errors = Sample(SHOWN_ROWS), Sample(SHOWN_ERRORS)
    with ExitStack() as stack:
        journal = _open_journal(output, stack, overwrite=overwrite, fresh=fresh) if output else None
        for folder, what in ((heatmaps, "heat maps"), (dicom_results, "DICOM results")):
            if folder:
                is_ours = journal is not None and journal.has_made(str(folder.resolve()))
                check_heatmaps(folder, paths, overwrite=overwrite or is_ours, what=what)
        engine = stack.enter_context(Engine(bundle or _only_bundle()))
        if (heatmaps or dicom_results) and not engine.has_class_maps:
            option = "--heatmaps" if heatmaps else "--dicom-results"
            raise UsageError(f"{option} needs an engine with class maps; export the checkpoint with --class-maps")
        writer = None if output or table else standard_output(engine.calibration)
        _announce(engine, selection)
        maps = Heatmaps(heatmaps, engine.spec, top, raw_maps=raw_maps, full_size=full_size) if heatmaps else None
        dicom = DicomResults(dicom_results, engine.spec, top, full_size=full_size) if dicom_results else None
        makers = [maker for maker in (maps, dicom) if maker]
        keeper = _Keeper(engine, journal, makers)
        progress = stack.enter_context(FileProgress(len(selection.sources)))
        try:
            results = score(
                engine,
                selection.sources,
                class_maps=bool(makers),
                pictures=max((maker.largest for maker in makers), default=0),
                identities=dicom is not None,
                workers=workers,
                known=keeper.known,
            )
            for result in drawn(results, keeper.save) if makers else results:
                keeper.keep(result)
                if writer:
                    writer.write(result.row)
                rows.add(result.row)
                if result.row.error:
                    errors.add(result.row)
                progress.advance(error=result.row.error is not None, known=result.is_known)
            has_scores = progress.errors < progress.done
            is_left = output is not None and output.exists() and not has_scores
            if output and journal and not is_left:
                _publish(journal, selection, engine, output)
        except BaseException:
            if journal:
                kept = f"the rows of {_files(journal.count())} are kept in {journal.path}"
                click.echo(f"{kept}; the same command again goes on from there", err=True)
            raise
        if is_left:
            raise UsageError(f"none of the {progress.done} files could be read; {output} was left as it is")
    _summarise(progress, errors, output, heatmaps, dicom)
    if table:
        show_rows(rows.kept, rows.total - len(rows.kept), engine.warnings)
    if not has_scores:
        return 2
    return 1 if progress.errors or (dicom and dicom.refused) else 0


def _open_journal(output: Path, stack: ExitStack, *, overwrite: bool, fresh: bool) -> Journal:
    """The journal of a table, which no other process uses. A table that this command made may be replaced."""
    check_output(output, SUFFIXES, overwrite=True)
    stack.enter_context(locked(output.with_name(f".{output.name}.lock"), output))
    journal = stack.enter_context(Journal(output.with_name(f"{output.name}.journal"), fresh=fresh))
    if output.exists() and not journal.has_made(hash_file(output)):
        check_output(output, SUFFIXES, overwrite=overwrite)
    return journal


class _Keeper:
    """What stays of a result: its files, and its row in the journal, which says that they are there too."""

    def __init__(self, engine: Engine, journal: Journal | None, makers: list[Heatmaps | DicomResults]) -> None:
        self._engine, self._journal, self._makers = engine, journal, makers
        self._place = "; ".join(maker.place for maker in makers) or None
        if journal:
            for maker in makers:
                journal.note(str(maker.folder.resolve()))

    def known(self, name: str) -> Row | None:
        """The row of an earlier run, if all that is wanted of it is still there."""
        row = self._journal.row(name, self._engine.fingerprint, self._place) if self._journal else None
        return row if row and all(maker.are_there(row) for maker in self._makers) else None

    def save(self, result: Result) -> None:
        for maker in self._makers:
            maker.save(result)

    def keep(self, result: Result) -> None:
        if self._journal and not result.is_known:
            self._journal.add(result.row, self._place)


def _publish(journal: Journal, selection: Selection, engine: Engine, output: Path) -> None:
    """Write the table from the journal, in the order of the files; it appears whole or not at all."""
    with replacing(output, output.with_name(f".{output.name}.partial")) as partial:
        rows = journal.rows(source.name for source in selection.sources)
        write_table(partial, output.suffix, rows, engine.spec, engine.calibration)
        journal.note(hash_file(partial))


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
        f"{manifest.precision}, {engine.spec.views}, engine {engine.fingerprint}"
        + (f", calibration {engine.calibration.fingerprint}" if engine.calibration else ""),
        err=True,
    )
    for warning in engine.warnings:
        click.secho(f"warning: {warning}", err=True, bold=True)


def _summarise(
    progress: FileProgress, errors: Sample, output: Path | None, heatmaps: Path | None, dicom: DicomResults | None
) -> None:
    scored = progress.done - progress.errors
    earlier = f" ({progress.known} of them in an earlier run)" if progress.known else ""
    speed = f"{progress.files_per_second:.2f} files/s"
    click.echo(f"scored {scored} of {_files(progress.done)}{earlier}, {speed}", err=True)
    for row in errors.kept:
        click.echo(f"error: {row.path}: {row.error}", err=True)
    if errors.total > len(errors.kept):
        click.echo(f"and {errors.total - len(errors.kept)} more errors; the table has them all", err=True)
    if output:
        click.echo(f"table: {output}", err=True)
    if heatmaps:
        click.echo(f"heat maps: {heatmaps}", err=True)
    if dicom:
        for sentence in dicom.sentences:
            click.echo(sentence, err=True)
        if dicom.refused > len(dicom.sentences):
            click.echo(f"and {dicom.refused - len(dicom.sentences)} more DICOM files have no DICOM result", err=True)
        if dicom.others:
            click.echo(f"no DICOM result for {_files(dicom.others)} in PNG or JPEG", err=True)
        click.echo(f"DICOM results, with patients' identifiers: {dicom.folder}", err=True)


def _overlap(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"
