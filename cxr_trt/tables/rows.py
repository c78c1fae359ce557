"""A row of the table of scores, with the same columns in CSV, in Parquet and in Python."""

from dataclasses import dataclass

from cxr_trt.findings import FINDINGS

NOTICE = "Research use only; not a medical device"
COLUMNS = ("path", "sha256", "width", "height", "format", *FINDINGS, "warnings", "error", "engine")


@dataclass(frozen=True)
class Row:
    """The result for one file. Either `probabilities` (in the order of FINDINGS) or `error` is set.

    `width` and `height` are those of the file's image in pixels; `engine` is the engine's fingerprint.
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

    def values(self) -> tuple[str | int | float | None, ...]:
        """The cells of the row, in the order of COLUMNS."""
        probabilities = self.probabilities or (None,) * len(FINDINGS)
        head = (self.path, self.sha256, self.width, self.height, self.format)
        return (*head, *probabilities, "; ".join(self.warnings) or None, self.error, self.engine)
