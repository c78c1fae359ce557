"""What Python gets from an engine: scores by the name of the finding, file by file or as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from cxr_trt.errors import BackendError
from cxr_trt.tables.rows import Row, columns

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Score:
    """The result for one file. Either `probabilities`, by finding, or `error` is set; the rest as in a `Row`."""

    path: str
    sha256: str | None
    width: int | None
    height: int | None
    format: str | None
    probabilities: Mapping[str, float] | None
    warnings: tuple[str, ...]
    error: str | None
    engine: str


class Scores(Iterator[Score]):
    """The scores of files, each computed when it is asked for. They can be gone through once."""

    def __init__(self, rows: Iterator[Row], findings: Sequence[str]) -> None:
        self._rows, self._findings = rows, findings

    def __next__(self) -> Score:
        row = next(self._rows)
        probabilities = dict(zip(self._findings, row.probabilities, strict=True)) if row.probabilities else None
        names = (field.name for field in fields(Score))
        return Score(**{**{name: getattr(row, name) for name in names}, "probabilities": probabilities})

    def to_pandas(self) -> "DataFrame":
        """Score all files that are left; a row per file, with the columns of the table of scores.

        Raises:
            BackendError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise BackendError("to_pandas needs pandas; pip install pandas") from error
        cells: list[tuple[Any, ...]] = [row.values(self._findings) for row in self._rows]
        return pd.DataFrame(cells, columns=list(columns(self._findings)))
