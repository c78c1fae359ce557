"""Decoding in separate processes, so that a file that crashes, hangs or exhausts its decoder only costs one error row.

The processes (`cxr_trt.images.decoder_process`) are started when they are needed.
"""

import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice

from cxr_trt.closing import Closing
from cxr_trt.errors import BackendError, ImageError
from cxr_trt.images.decoder_process import Answer, DecoderProcess, DiedBeforeError, Limits, Request, Wanted, cause
from cxr_trt.images.preprocess import Fit
from cxr_trt.nvtx_range import nvtx_range
from cxr_trt.processors import processors
from cxr_trt.views import Size

__all__ = ["Answer", "Decoders", "Limits", "Request", "Spares"]

READING_THREADS = 16  # for object storage: requests take long, but little of a processor
MAX_THREADS = 8  # of one process: each takes address space of its limit


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
        self._wanted = Wanted(Size.of(size), fit, picture, identities)
        self._limits, self._threads_each, self._spares = limits, _threads_each(workers), spares
        self._threads = ThreadPoolExecutor(2 * workers, thread_name_prefix="decode")  # half of them send, half read
        self._readers = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="read")
        self._changed = threading.Condition()  # for the three below
        self._free: deque[DecoderProcess] = deque()  # may be sent a request
        self._all: set[DecoderProcess] = set()
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
            except DiedBeforeError:
                continue
            except (EOFError, OSError, ValueError, TypeError):
                failures += 1
                self._end(process)
                if process.exit_code == -signal.SIGALRM:
                    break
        if not process.is_ready:
            raise BackendError(f"no decoding process can be started ({cause(process.exit_code)}); see above")
        if process.exit_code == -signal.SIGALRM:
            return Answer(error=f"reading takes longer than {self._limits.seconds:g} s; copy or export the file again")
        return Answer(error=f"the decoder failed ({cause(process.exit_code)}); export the image again")

    def _take(self) -> DecoderProcess:
        """A process that may be sent a request: a free one, or else a new one, or else the next that becomes free."""
        with self._changed:
            while not self._closed:
                if self._free:
                    return self._free.popleft()
                if len(self._all) < self.workers:
                    process = self._spares.take() if self._spares else None
                    process = process or DecoderProcess(self._limits, self._threads_each)
                    self._all.add(process)
                    return process
                self._changed.wait()
            raise EOFError

    def _release(self, process: DecoderProcess) -> None:
        with self._changed:
            self._free.append(process)
            self._changed.notify()

    def _end(self, process: DecoderProcess) -> None:
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
        self._processes = [DecoderProcess(limits, _threads_each(workers), dicom=dicom) for _ in range(count)]

    def take(self) -> DecoderProcess | None:
        """One that was not taken before, which the caller ends."""
        return self._processes.pop() if self._processes else None

    def close(self) -> None:
        """End those that were not taken."""
        while process := self.take():
            process.end()


def _threads_each(workers: int) -> int:
    """Threads of each of so many processes."""
    return max(1, min(processors() // workers, MAX_THREADS))
