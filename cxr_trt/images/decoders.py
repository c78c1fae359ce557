"""Decoding in separate processes, so that a file that crashes, hangs or exhausts its decoder only costs one error row.

The processes are plain subprocesses that communicate over pipes, and are started when they are needed. So no process
with an engine in it is forked, nothing is pickled, and the caller's main module does not run a second time.
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
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_trt.closing import Closing
from cxr_trt.errors import BackendError, ImageError
from cxr_trt.images.files import Source
from cxr_trt.images.image import MAX_PIXELS, Identity
from cxr_trt.images.preprocess import Fit
from cxr_trt.nvtx_range import nvtx_range
from cxr_trt.processors import processors
from cxr_trt.views import Size

READING_THREADS = 16  # for object storage: requests take long, but little of a processor
SECRET_NAMES = re.compile(r"^(AWS|AZURE|GOOGLE|CLOUDSDK|RAY)_|SECRET|TOKEN|PASSWORD|CREDENTIAL|_KEY")
ANSWER_HEAD = struct.Struct("<II")  # an answer starts with the lengths of its JSON and its pixels, which follow
READY = b"ready\0\0\0"  # from a process that may be sent a request: at its start, and shortly before each answer
MAX_FACTS_BYTES = 1 << 16  # of an answer's JSON
PIPE_BYTES = 1 << 20  # so that an answer fits, and the process need not wait for its reader
MAX_THREADS = 8  # of one process: each takes address space of its limit
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


class Decoders(Closing):
    """A pool of at most `workers` decoding processes, with threads that wait for them; a context manager.

    A process gets its next request shortly before it answers the last one, so that it never waits. If it dies, only the
    file that it was at is blamed; the next one goes to another process.

    `size` is that of the images; a number stands for a square. `picture` is the longest side of an answer's picture in
    pixels; 0 means no picture. `identities` is whether answers say whose X-ray a DICOM file is. `spares` are processes
    that were started for as many workers and the same limits.

    Files in object storage are read here, some ahead of their turn: the processes get their content, no credentials.

    Processors that would be idle, as there are fewer processes, work in further threads of these: they hash large
    files and decode JPEG 2000.
    """

    def __init__(
        self,
        workers: int,
        size: Size | int,
        limits: Limits,
        fit: Fit = "stretch",
        picture: int = 0,
        identities: bool = False,
        spares: "Spares | None" = None,
    ) -> None:
        self.workers = workers
        self._wanted = _Wanted(Size.of(size), fit, picture, identities)
        self._limits, self._threads_each, self._spares = limits, _threads_each(workers), spares
        self._threads = ThreadPoolExecutor(2 * workers, thread_name_prefix="decode")  # half of them send, half read
        self._readers = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="read")
        self._changed = threading.Condition()  # for the three below
        self._free: deque[_Process] = deque()  # may be sent a request
        self._all: set[_Process] = set()
        self._closed = False

    def map(self, requests: Iterable[Request], depth: int) -> Iterator[tuple[Request, Answer]]:
        """Answer requests in order; at most `depth` files are decoded ahead of the consumer."""
        submitted = (
            (request, self._threads.submit(self._answer, request, content))
            for request, content in self._with_content(requests)
        )
        pending: deque[tuple[Request, Future[Answer]]] = deque(islice(submitted, depth))
        while pending:
            request, answer = pending.popleft()
            decoded = answer.result()
            pending.extend(islice(submitted, 1))
            yield request, decoded

    def _with_content(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Future[bytes] | None]]:
        """Start to read files in object storage ahead of their turn; others need no content."""
        ahead: deque[tuple[Request, Future[bytes] | None]] = deque()
        for request in requests:
            read = request.source.read
            ahead.append((request, self._readers.submit(read) if read else None))
            while ahead and (ahead[0][1] is None or len(ahead) > READING_THREADS):
                yield ahead.popleft()
        yield from ahead

    def close(self) -> None:
        """Stop at once, even while files are being decoded."""
        with self._changed:
            self._closed = True
            for process in self._all:
                process.kill()
            self._changed.notify_all()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._changed:  # a thread that Ctrl-C hit while it was being started may still be at work
            processes = tuple(self._all)
        for process in processes:
            process.end()

    def _answer(self, request: Request, content: Future[bytes] | None) -> Answer:
        """Ask a process. If it dies, try the file once more in a new process: the file may not have been the cause."""
        try:
            data = content.result() if content else None
        except ImageError as error:
            return Answer(error=str(error))
        failures = 0
        while failures < 2:
            process = self._take()
            try:
                with nvtx_range("decode"):
                    return process.ask(request, self._wanted, data, partial(self._release, process))
            except _DiedBeforeError:
                continue
            except (EOFError, OSError, ValueError, TypeError):
                failures += 1
                self._end(process)
                if process.exit_code == -signal.SIGALRM:
                    break
        if not process.is_ready:
            raise BackendError(f"no decoding process can be started ({_cause(process.exit_code)}); see above")
        if process.exit_code == -signal.SIGALRM:
            return Answer(error=f"reading takes longer than {self._limits.seconds:g} s; copy or export the file again")
        return Answer(error=f"the decoder failed ({_cause(process.exit_code)}); export the image again")

    def _take(self) -> "_Process":
        """A process that may be sent a request: a free one, or else a new one, or else the next that becomes free."""
        with self._changed:
            while not self._closed:
                if self._free:
                    return self._free.popleft()
                if len(self._all) < self.workers:
                    process = self._spares.take() if self._spares else None
                    process = process or _Process(self._limits, self._threads_each)
                    self._all.add(process)
                    return process
                self._changed.wait()
            raise EOFError

    def _release(self, process: "_Process") -> None:
        with self._changed:
            self._free.append(process)
            self._changed.notify()

    def _end(self, process: "_Process") -> None:
        process.end()
        with self._changed:
            self._all.discard(process)
            with suppress(ValueError):
                self._free.remove(process)
            self._changed.notify()


class Spares(Closing):
    """Processes for `Decoders` that start before it is known what to make of the files; a context manager.

    They start while the engine is opened, which takes about as long.

    Args:
        count: how many.
        workers: of the `Decoders`.
        limits: of the `Decoders`.
        dicom: whether a DICOM file is among the first.
    """

    def __init__(self, count: int, workers: int, limits: Limits, *, dicom: bool) -> None:
        self._processes = [_Process(limits, _threads_each(workers), dicom=dicom) for _ in range(count)]

    def take(self) -> "_Process | None":
        """One that was not taken before, which the caller ends."""
        return self._processes.pop() if self._processes else None

    def close(self) -> None:
        """End those that were not taken."""
        while process := self.take():
            process.end()


class _Wanted(NamedTuple):
    """What to make of files: see `Decoders`. A part of each request."""

    size: Size
    fit: Fit
    picture: int
    identities: bool


class _DiedBeforeError(Exception):
    """A process failed at an earlier file, before it came to this one."""


class _Process:
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

    def ask(self, request: Request, wanted: _Wanted, data: bytes | None, on_ready: Callable[[], None]) -> Answer:
        """Send a request, with the content of a file that the process cannot read itself, and wait for the answer.

        `on_ready` is called shortly before: then another thread may ask the process.

        Raises EOFError, OSError, ValueError or TypeError if the process died or its answer is not valid, and
        _DiedBeforeError if that happened to the request before.
        """
        with suppress(OSError, ValueError):  # from a process that died, which the missing answer tells
            self._send(request, wanted, data)
        with self._reading:
            if self._has_failed:
                raise _DiedBeforeError
            try:
                return self._answer(request, wanted, on_ready)
            except BaseException:
                self._has_failed = True
                raise

    def _send(self, request: Request, wanted: _Wanted, data: bytes | None) -> None:
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

    def _answer(self, request: Request, wanted: _Wanted, on_ready: Callable[[], None]) -> Answer:
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


def _threads_each(workers: int) -> int:
    """Threads of each of so many processes."""
    return max(1, min(processors() // workers, MAX_THREADS))


def _cause(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
