"""The process in which files from outside are decoded, so that whatever a decoder does, it does only here.

It reads paths from standard input, or files that its parent has read from object storage, and answers on standard
output until its input ends. Its memory and time are limited.
It writes no files and no core dumps, and prints nothing, because decoders may print what is in a file.
`cxr_trt.images.decoders` starts and replaces it.
"""

import hashlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

import cxr_trt.images.raster  # noqa: F401 - imported before the limits apply; pydicom waits, as it is slow to import
from cxr_trt.errors import ImageError, NoImageError
from cxr_trt.images import decode
from cxr_trt.images.checks import picture_doubts
from cxr_trt.images.decoder_process import ANSWER_HEAD, READY
from cxr_trt.images.load import read_file
from cxr_trt.images.preprocess import Fit, preprocess
from cxr_trt.memory import keep_freed_memory
from cxr_trt.views import Size

TOO_MUCH_MEMORY = "decoding takes too much memory; export the image smaller"
MIN_BYTES_HASHED_ASIDE = 1 << 20  # smaller files are hashed before a thread wakes up
KEPT_BYTES = 256 << 20  # of freed memory: several times what a large radiograph needs


def main() -> None:
    """Answer requests until standard input ends.

    Command-line arguments: limits of bytes and of seconds per file; threads; 1 to import pydicom at once, otherwise 0.
    """
    memory, seconds, threads, dicom = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
    cv2.setNumThreads(1)
    keep_freed_memory(KEPT_BYTES)
    if dicom:
        import cxr_trt.images.dicom  # noqa: F401
    hasher = ThreadPoolExecutor(1) if threads > 1 else None
    try:
        _serve(os.fdopen(os.dup(1), "wb"), memory, seconds, hasher)
    except BrokenPipeError:
        os._exit(0)  # the parent is gone, and closing the stream would raise the same error again


def _serve(answers: BinaryIO, memory: int, seconds: float, hasher: Executor | None) -> None:
    if hasher:
        hasher.submit(int).result()  # starts its thread before the limits apply
    _say_ready(answers)  # so all imports succeeded
    _restrict(memory)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        known, size = request["known"], Size(*request["size"])
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its SIGALRM ends the process, even inside a C library
        length = request["bytes"]
        file = Path(request["path"]) if length is None else sys.stdin.buffer.read(length)
        say_ready = _Once(partial(_say_ready, answers))
        made = request["fit"], request["picture"], request["identities"]
        facts, pixels = answer(file, known, size, *made, hasher, say_ready)
        signal.setitimer(signal.ITIMER_REAL, 0)
        say_ready()
        _send(answers, facts, pixels)


class _Once:
    """A call that only has an effect the first time."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def __call__(self) -> None:
        act, self._act = self._act, None
        if act:
            act()


def answer(
    file: Path | bytes,
    known: str | None,
    size: Size | int,
    fit: Fit = "stretch",
    picture: int = 0,
    identities: bool = False,
    hasher: Executor | None = None,
    on_decoded: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], bytes]:
    """Read and decode a file.

    Args:
        file: its path, or its content.
        known: if the file's content has this sha256, it is not decoded.
        size: size of the image in pixels; a number stands for a square.
        fit: see `cxr_trt.images.preprocess.preprocess`.
        picture: longest side of the picture in pixels, which is never enlarged; 0 for no picture.
        identities: whether to say whose X-ray a DICOM file is.
        hasher: a thread that hashes a large file while it is decoded; without it, it is hashed first.
        on_decoded: called when what remains takes little time.

    Returns:
        Facts about the file, named as in `cxr_trt.images.decoder_process.Answer`, and pixels: first of the image, uint8
        [height, width], then of the picture, uint8 with the shape that the fact `picture` gives. There are no pixels if
        there is an error or the content is known.
    """
    try:
        data = file if isinstance(file, bytes) else read_file(file)
    except ImageError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"error": TOO_MUCH_MEMORY}, b""
    if hasher and not known and len(data) >= MIN_BYTES_HASHED_ASIDE:
        hashing = hasher.submit(_sha256, data)
        facts, pixels = _decoded(data, size, fit, picture, identities, on_decoded)
        return {"sha256": hashing.result(), **facts}, pixels
    sha256 = _sha256(data)
    facts, pixels = ({}, b"") if sha256 == known else _decoded(data, size, fit, picture, identities, on_decoded)
    return {"sha256": sha256, **facts}, pixels


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _decoded(
    data: bytes, size: Size | int, fit: Fit, picture: int, identities: bool, on_decoded: Callable[[], None]
) -> tuple[dict[str, Any], bytes]:
    """What `answer` returns, but for the hash."""
    try:
        decoded = decode(data)
        on_decoded()
        image = preprocess(decoded.pixels, size, fit)
        height, width = decoded.pixels.shape
        warnings = [*decoded.warnings, *picture_doubts(image)]
        shown = _downscaled(decoded.pixels, picture) if picture else None
    except NoImageError as error:
        return {"skipped": str(error)}, b""
    except ImageError as error:
        return {"error": str(error)}, b""
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        return {"error": TOO_MUCH_MEMORY}, b""
    facts: dict[str, Any] = {"width": width, "height": height, "format": decoded.format, "warnings": warnings}
    if identities and decoded.format == "DICOM":
        from cxr_trt.images.identity import read_identity

        facts["identity"] = dict(read_identity(data))
    if shown is None:
        return facts, image.tobytes()
    return {**facts, "picture": shown.shape}, image.tobytes() + shown.tobytes()


def _downscaled(pixels: npt.NDArray[np.float32], longest: int) -> npt.NDArray[np.uint8]:
    """Display grey [H, W], downscaled by area averaging so that no side is longer than `longest` pixels."""
    height, width = pixels.shape
    scale = min(1, longest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _restrict(memory: int) -> None:
    """Allow this process `memory` bytes more than it has now; forbid it to write files, dump core or print anything."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory += pages * resource.getpagesize()
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    null_device = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_device, 1)
    os.dup2(null_device, 2)


def _say_ready(stream: BinaryIO) -> None:
    stream.write(READY)
    stream.flush()


def _send(stream: BinaryIO, facts: dict[str, Any], pixels: bytes) -> None:
    text = json.dumps(facts).encode()
    stream.write(ANSWER_HEAD.pack(len(text), len(pixels)) + text + pixels)
    stream.flush()
