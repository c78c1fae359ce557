"""One decoding process as its parent sees it: what it is asked, what it answers, and how it dies.

The processes are plain subprocesses that communicate over pipes. So no process with an engine in it is forked, nothing
is pickled, and the caller's main module does not run a second time.
"""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_trt.images.files import Source
from cxr_trt.images.image import MAX_PIXELS, Identity
from cxr_trt.images.preprocess import Fit
from cxr_trt.views import Size

SECRET_NAMES = re.compile(r"^(AWS|AZURE|GOOGLE|CLOUDSDK|RAY)_|SECRET|TOKEN|PASSWORD|CREDENTIAL|_KEY")
ANSWER_HEAD = struct.Struct("<II")  # an answer starts with the lengths of its JSON and its pixels, which follow
READY = b"ready\0\0\0"  # from a process that may be sent a request: at its start, and shortly before each answer
MAX_FACTS_BYTES = 1 << 16  # of an answer's JSON
PIPE_BYTES = 1 << 20  # so that an answer fits, and the process need not wait for its reader
WORKER_CODE = "import sys; sys.path[:] = {path!r}; from cxr_trt.images.worker import main; main()"
"""Runs with the caller's search path: `python -m` would also import from the current folder, which may hold X-rays."""


@dataclass(frozen=True)
class Limits:
    """Limits for one file.

    memory: bytes in addition to what the idle process uses. seconds: counted from when the process starts on the file.
    """

    memory: int = 4 << 30
    seconds: float = 60


@dataclass(frozen=True)
class Answer:
    """What a decoder returns for a file: `image`, uint8 [height, width], `error` or `skipped`; none if it is unchanged.

    skipped: the kind of a DICOM object that is no X-ray, such as "structured reports".
    picture: display grey with the file's aspect ratio, uint8 [H, W], if pictures were requested and there is an image.
    identity: whose X-ray a DICOM file is, if that was requested and there is an image; the values are not checked.
    """

    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    skipped: str | None = None
    image: npt.NDArray[np.uint8] | None = None
    picture: npt.NDArray[np.uint8] | None = None
    identity: Identity | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Request:
    """A file to decode. If its content still has the hash `known_sha256`, it is not decoded again."""

    source: Source
    known_sha256: str | None = None


class Wanted(NamedTuple):
    """What to make of files: see `cxr_trt.images.decoders.Decoders`. A part of each request."""

    size: Size
    fit: Fit
    picture: int
    identities: bool


class DiedBeforeError(Exception):
    """A process failed at an earlier file, before it came to this one."""


class DecoderProcess:
    """One decoding process, see `cxr_trt.images.worker`. It ends when its standard input closes, so soon after us."""

    def __init__(self, limits: Limits, threads: int, *, dicom: bool = False) -> None:
        self.is_ready = False
        self._has_failed = False
        self._reading = threading.Lock()  # held by the thread whose answer is next
        arguments = [str(limits.memory), str(limits.seconds), str(threads), str(int(dicom))]
        self._process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-c", WORKER_CODE.format(path=sys.path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that Ctrl-C only reaches this process
            env={
                **{name: value for name, value in os.environ.items() if not SECRET_NAMES.search(name)},
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "OPJ_NUM_THREADS": str(threads if threads > 1 else 0),  # 0: without a thread pool
            },
        )
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        with suppress(OSError):  # the user has used up what the system grants for pipes
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def ask(self, request: Request, wanted: Wanted, data: bytes | None, on_ready: Callable[[], None]) -> Answer:
        """Send a request, with the content of a file that the process cannot read itself, and wait for the answer.

        `on_ready` is called shortly before: then another thread may ask the process.

        Raises EOFError, OSError, ValueError or TypeError if the process died or its answer is not valid, and
        DiedBeforeError if that happened to the request before.
        """
        with suppress(OSError, ValueError):  # from a process that died, which the missing answer tells
            self._send(request, wanted, data)
        with self._reading:
            if self._has_failed:
                raise DiedBeforeError
            try:
                return self._answer(request, wanted, on_ready)
            except BaseException:
                self._has_failed = True
                raise

    def _send(self, request: Request, wanted: Wanted, data: bytes | None) -> None:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        length = None if data is None else len(data)
        message = {
            "path": str(request.source.path),
            "bytes": length,
            "known": request.known_sha256,
            **wanted._asdict(),
        }
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.write(data or b"")
        self._process.stdin.flush()

    def _answer(self, request: Request, wanted: Wanted, on_ready: Callable[[], None]) -> Answer:
        if not self.is_ready:
            self._read_ready()
            self.is_ready = True
        self._read_ready()
        on_ready()
        size = wanted.size
        facts, pixels = self._read(size.height * size.width + min(wanted.picture**2, MAX_PIXELS))
        height, width = facts.pop("picture", (0, 0))
        image_bytes = size.height * size.width if pixels else 0
        if len(pixels) != image_bytes + height * width:
            raise EOFError
        image = np.frombuffer(pixels[:image_bytes], np.uint8).reshape(size) if pixels else None
        picture = np.frombuffer(pixels[image_bytes:], np.uint8).reshape(height, width) if height else None
        answer = Answer(**{**facts, "warnings": tuple(facts.get("warnings", ()))}, image=image, picture=picture)
        if not isinstance(answer.identity, dict | None):
            raise TypeError
        outcomes = [answer.image is not None, answer.error is not None, answer.skipped is not None]
        is_unchanged = request.known_sha256 is not None and answer.sha256 == request.known_sha256
        if sum(outcomes) != 1 and not (is_unchanged and not any(outcomes)):
            raise EOFError
        return answer

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Kill the process and close its pipes."""
        self.kill()
        with suppress(OSError):  # from flushing a request that the process can no longer read
            self._process.__exit__(None, None, None)

    def _read_ready(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        if self._process.stdout.read(len(READY)) != READY:
            raise EOFError

    def _read(self, max_pixels: int) -> tuple[dict[str, Any], bytes]:
        assert self._process.stdout is not None  # noqa: S101
        head = self._process.stdout.read(ANSWER_HEAD.size)
        if len(head) < ANSWER_HEAD.size:
            raise EOFError
        length, count = ANSWER_HEAD.unpack(head)
        if length > MAX_FACTS_BYTES or count > max_pixels:
            raise EOFError
        text, pixels = self._process.stdout.read(length), self._process.stdout.read(count)
        if len(text) < length or len(pixels) < count:
            raise EOFError
        return json.loads(text), pixels


def cause(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
