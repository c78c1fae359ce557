"""A teacher's scores of the training images: the targets of distillation (Hinton et al. 2015, arXiv 1503.02531).

A teacher is any engine, of whatever network and with all its views: what counts is its table of scores. Several
teachers are averaged, which makes an ensemble of them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.tables.matching import match
from cxr_trt.tables.reading import matrix, names_of, read_table


def read_teachers(tables: Sequence[Path], names: Sequence[str], source: Path) -> npt.NDArray[np.float32]:
    """The mean of the probabilities in tables of scores, float32 [N, 14], of the images with these names.

    Args:
        tables: of `cxr-trt score`, CSV or Parquet.
        names: file names [N] in the label file.
        source: the label file, for messages.

    Raises:
        UsageError: a table cannot be read, lacks an image, or has a score that is no probability.
    """
    mean: npt.NDArray[np.float32] = np.mean([_read(table, names, source) for table in tables], 0, dtype=np.float32)
    return mean


def _read(path: Path, names: Sequence[str], source: Path) -> npt.NDArray[np.float32]:
    table = read_table(path, ("path", *FINDINGS), optional=(), text=("path",))
    scored = names_of(table, "path", path)
    partners = match(list(names), scored, source, path)
    rows = [row for row in partners if row is not None]
    if len(rows) < len(names):
        raise UsageError(
            f"{path}: has no row of {len(names) - len(rows)} of the {len(names)} training images, such as "
            f"{names[partners.index(None)]}; score them all with the teacher"
        )
    values = matrix(table, FINDINGS)[rows].astype(np.float32)
    wrong = ~((values >= 0) & (values <= 1)).all(1)
    if wrong.any():
        raise UsageError(f"{path}: the scores of {names[int(wrong.argmax())]} are not probabilities from 0 to 1")
    return values
