"""The UIDs of DICOM files as columns of a table, as they are or as pseudonyms. Only if they are asked for."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cxr_trt.errors import UsageError
from cxr_trt.tables.rows import Row

UID_COLUMNS = ("study_uid", "series_uid", "instance_uid")
KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 section 6.2, VR UI
UUID_ROOT = "2.25."  # of UIDs that are made from a UUID, PS3.5 section B.2
MIN_KEY_BYTES, MAX_KEY_BYTES = 16, 4096
PURPOSE = b"cxr-trt pseudonyms"


@dataclass(frozen=True)
class UidColumns:
    """What stands in the columns of UIDs.

    key: makes pseudonyms; None for the UIDs themselves.
    """

    key: bytes | None = None

    @classmethod
    def with_key_file(cls, path: Path) -> "UidColumns":
        """Pseudonyms with the key in a file.

        Raises UsageError: it cannot be read, or is too short to be a secret.
        """
        try:
            with path.open("rb") as stream:
                key = stream.read(MAX_KEY_BYTES + 1).strip()
        except OSError as error:
            raise UsageError(f"{path}: the key cannot be read ({error.strerror}); make one: {_make(path)}") from error
        if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
            raise UsageError(
                f"{path}: has {len(key)} bytes, but a key has {MIN_KEY_BYTES} to {MAX_KEY_BYTES}; make one: "
                + _make(path)
            )
        return cls(key)

    @property
    def kind(self) -> str:
        """Tells whether rows of an earlier run have the same in these columns; says nothing of the key."""
        return f"pseudonyms {self._digest(PURPOSE).hex()[:16]}" if self.key else "uids"

    def added_to(self, row: Row, identity: Mapping[str, str | None] | None) -> Row:
        """The row of a file with these attributes, or of one that is no DICOM file, with its cells.

        A pseudonym is a UID too, the same for equal UIDs: half of the HMAC-SHA256 (RFC 2104), written as if it were a
        UUID.
        """
        uids = [(identity or {}).get(keyword) for keyword in KEYWORDS]
        shown = tuple(self._shown(uid) if uid and UID.fullmatch(uid) else None for uid in uids)
        return replace(row, uids=shown, uid_kind=self.kind)

    def kept_in(self, row: Row) -> Row:
        """A row of an earlier run, without the cells of another kind."""
        return row if row.uid_kind == self.kind else replace(row, uids=(), uid_kind="")

    def _shown(self, uid: str) -> str:
        if self.key is None:
            return uid
        digest = self._digest(uid.encode("ascii"))
        return f"{UUID_ROOT}{int.from_bytes(digest[:16], 'big')}"

    def _digest(self, text: bytes) -> bytes:
        return hmac.new(self.key or b"", text, hashlib.sha256).digest()


def _make(path: Path) -> str:
    return f"openssl rand -hex 32 > {path.name}"
