"""Matching the images of two tables by their names.

A row of SCORES belongs to the row of LABELS whose `image` equals its `path`. If there is none, it belongs to the row
with the same file name without folder and image suffix (`a/00000001_000.dcm` and `00000001_000.png`); both tables must
then have only one such name.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cxr_trt.errors import UsageError
from cxr_trt.images.files import file_stem


class Matching(NamedTuple):
    """How many images were found in a table of labels by their path, by their file name alone, and not at all."""

    by_path: int
    by_name: int
    unmatched: int

    def __str__(self) -> str:
        return (
            f"images matched by path: {self.by_path}, by file name alone: {self.by_name}, not at all: {self.unmatched}"
        )


def match(paths: list[str], images: list[str], scores: str | Path, labels: Path) -> list[int | None]:
    """Find the index of each path's image, or None if it has none.

    Args:
        paths: paths of images in one table.
        images: names of images in another table.
        scores: the first table, for messages.
        labels: the second table, for messages.

    Raises:
        UsageError: a name could belong to several images.
    """
    exact = {image: row for row, image in enumerate(images)}
    by_stem = {file_stem(image): row for row, image in enumerate(images)}
    counts = {scores: _stem_counts(paths), labels: _stem_counts(images)}
    partners: list[int | None] = []
    for path in paths:
        stem = file_stem(path)
        if path in exact or stem not in by_stem:
            partners.append(exact.get(path))
            continue
        for table, count in counts.items():
            if count[stem] > 1:
                raise UsageError(
                    f"{table}: {count[stem]} images have the name {stem!r}, so it is unclear which of them "
                    f"{path!r} is; write the same paths in both tables"
                )
        partners.append(by_stem[stem])
    return partners


def _stem_counts(names: Iterable[str]) -> Counter[str]:
    return Counter(map(file_stem, names))
