"""Result writers: what writes files beside the table of scores, for one X-ray after another."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Protocol

from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_folder
from cxr_trt.score.pipeline import Result
from cxr_trt.tables.rows import Row

MAX_WAITING_RESULTS = 2


class ResultWriter(Protocol):
    """Writes the files that belong to a scored X-ray, below a folder of its own.

    folder: where the files go.
    artifacts_key: which files were asked for, and where, for the journal: a later run with the same key takes them as
        done.
    max_picture_side: the longest side, in pixels, of the pictures that it needs with the results.
    needs_identity: whether it needs to know whose X-ray a DICOM file is.
    refused: how many X-rays were scored, but have no files because something was wrong with them.
    """

    folder: Path
    artifacts_key: str
    max_picture_side: int
    needs_identity: bool
    refused: int

    def has_written(self, row: Row) -> bool:
        """Whether the files for a scored row are there."""
        ...

    def write(self, result: Result) -> None:
        """Write the files for one result in place of those of an earlier run; nothing for an error row or a known row.

        Raises:
            UsageError: the folder cannot be written.
        """
        ...

    def summary(self) -> list[str]:
        """What to tell the user at the end of a run, a sentence each."""
        ...


def result_path(folder: Path, name: str) -> Path:
    """Where below a folder the results of an X-ray belong, whose name in the table may be a whole path."""
    path = PurePath(name)
    return folder / path.relative_to(path.anchor)


def check_result_folder(folder: Path, scored: Iterable[Path], *, overwrite: bool) -> None:
    """Check before the work that results may be written to a folder.

    Args:
        folder: for the results.
        scored: the files and folders to score.
        overwrite: whether the folder may already hold something.

    Raises:
        UsageError: it cannot be written, is not empty, or lies in a folder that is scored.
    """
    for path in scored:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise UsageError(
                f"{folder} lies in {path}, where its files would be scored next time; choose another folder"
            )
    check_folder(folder)
    if any(folder.iterdir()) and not overwrite:
        raise UsageError(f"{folder} is not empty; add --overwrite to replace results there, or choose another folder")


def write_results(results: Iterable[Result], writers: Sequence[ResultWriter]) -> Iterator[Result]:
    """Pass results on in order, each after its files were written.

    A thread writes them, so that the engine can work on the next X-rays meanwhile.
    """
    if not writers:
        yield from results
        return

    def write(result: Result) -> None:
        for writer in writers:
            writer.write(result)

    waiting: deque[tuple[Result, Future[None]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="write") as thread:
        for result in results:
            waiting.append((result, thread.submit(write, result)))
            if len(waiting) > MAX_WAITING_RESULTS:
                done, written = waiting.popleft()
                written.result()
                yield done
        for done, written in waiting:
            written.result()
            yield done
