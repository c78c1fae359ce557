"""A row of the table of scores, with the same columns in CSV, in Parquet and in Python."""

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_trt.findings import is_reserved

NOTICE = "Research use only; not a medical device"


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula (OWASP, CSV injection)."""


def spreadsheet_safe(text: str) -> str:
    """A text, with an apostrophe before it if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith((*FORMULA_STARTS, "'")) else text


def without_apostrophe(text: str) -> str:
    """The text that `spreadsheet_safe` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith((*FORMULA_STARTS, "'")) else text


def columns(findings: Sequence[str]) -> tuple[str, ...]:
    """The columns of a table with these findings."""
    return ("path", "sha256", "width", "height", "format", *findings, "warnings", "error", "engine")


def findings_of(names: Sequence[str]) -> tuple[str, ...]:
    """The findings of a table with these columns.

    In a table that `cxr-trt score` wrote these are the columns between `format` and `warnings`; in any other table all
    columns whose names are not reserved.
    """
    if "format" in names and "warnings" in names:
        names = names[names.index("format") : names.index("warnings")]
    return tuple(name for name in names if name and not is_reserved(name))


@dataclass(frozen=True)
class Row:
    """The result for one file. Either `probabilities`, in the order of the engine's findings, or `error` is set.

    `width` and `height` are those of the file's image in pixels; `engine` is the engine's fingerprint. `uids` are the
    cells of `cxr_trt.tables.uids.UID_COLUMNS`, and `uid_kind` says what they are; empty if they were not asked for.
    """

    path: str
    sha256: str | None
    width: int | None
    height: int | None
    format: str | None
    probabilities: tuple[float, ...] | None
    warnings: tuple[str, ...]
    error: str | None
    engine: str
    uids: tuple[str | None, ...] = ()
    uid_kind: str = ""

    def values(self, findings: Sequence[str]) -> tuple[str | int | float | None, ...]:
        """The cells of the row in a table with these findings, in the order of `columns`."""
        probabilities = self.probabilities or (None,) * len(findings)
        head = (self.path, self.sha256, self.width, self.height, self.format)
        return (*head, *probabilities, "; ".join(self.warnings) or None, self.error, self.engine)
