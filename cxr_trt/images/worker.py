"""The process in which files from outside are decoded: whatever a decoder does, it does it here.

It reads paths from standard input and answers on standard output until its input ends. Address space and time are
limited; it writes no files, leaves no core dumps and prints nothing, as decoders may print what is in a file.
`cxr_trt.images.decoders` starts and replaces it.
"""

import hashlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

import cv2
import numpy as np
import numpy.typing as npt

import cxr_trt.images.raster  # noqa: F401 - now, and not within the limits of the first file; pydicom is slow to import
from cxr_trt.errors import ImageError
from cxr_trt.images import decode
from cxr_trt.images.checks import picture_doubts
from cxr_trt.images.decoders import ANSWER_HEAD
from cxr_trt.images.load import read_file
from cxr_trt.images.preprocess import Fit, preprocess
from cxr_trt.memory import keep_freed_memory

KEPT_BYTES = 256 << 20  # of freed memory: several times what a large radiograph takes


def main() -> None:
    """Serve until standard input ends.

    Arguments: side of the images in pixels, fit; bytes and seconds for a file; longest side of pictures, 0 for none;
    1 to say whose X-ray a DICOM file is, else 0.
    """
    size, fit, memory, seconds = int(sys.argv[1]), cast(Fit, sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    picture, identities = int(sys.argv[5]), sys.argv[6] == "1"
    cv2.setNumThreads(1)
    keep_freed_memory(KEPT_BYTES)
    try:
        _serve(os.fdopen(os.dup(1), "wb"), size, fit, memory, seconds, picture, identities)
    except BrokenPipeError:
        os._exit(0)  # whoever asked is gone; closing the stream would only say so again


def _serve(answers: BinaryIO, size: int, fit: Fit, memory: int, seconds: float, picture: int, identities: bool) -> None:
    _send(answers, {}, b"")  # ready: all that is needed could be imported
    _withdraw(memory)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # its SIGALRM ends the process, also inside a C library
        facts, pixels = answer(Path(request["path"]), request["known"], size, fit, picture, identities)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, facts, pixels)


def answer(
    path: Path, known: str | None, size: int, fit: Fit = "stretch", picture: int = 0, identities: bool = False
) -> tuple[dict[str, Any], bytes]:
    """Read and decode a file.

    Args:
        path: of the file.
        known: sha256 of a content that need not be decoded.
        size: side of the image in pixels.
        fit: see `cxr_trt.images.preprocess.preprocess`.
        picture: longest side in pixels of the picture, which is never enlarged; 0 for none.
        identities: whether to say whose X-ray a DICOM file is.

    Returns:
        What is known of the file, by the names of `cxr_trt.images.decoders.Answer`, and the pixels: of the image, uint8
        [size, size], then of the picture, uint8 with its shape as `picture` in the facts. There are none in case of an
        error, or if the content is the known one.
    """
    facts: dict[str, Any] = {}
    try:
        data = read_file(path)
        facts["sha256"] = hashlib.sha256(data).hexdigest()
        if facts["sha256"] == known:
            return facts, b""
        decoded = decode(data)
        image = preprocess(decoded.pixels, size, fit)
        height, width = decoded.pixels.shape
        warnings = [*decoded.warnings, *picture_doubts(image)]
        shown = _shrunk(decoded.pixels, picture) if picture else None
    except ImageError as error:
        return {**facts, "error": str(error)}, b""
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        return {**facts, "error": "decoding takes too much memory; export the image smaller"}, b""
    facts |= {"width": width, "height": height, "format": decoded.format, "warnings": warnings}
    if identities and decoded.format == "DICOM":
        from cxr_trt.images.identity import read_identity

        facts["identity"] = dict(read_identity(data))
    if shown is None:
        return facts, image.tobytes()
    return {**facts, "picture": shown.shape}, image.tobytes() + shown.tobytes()


def _shrunk(pixels: npt.NDArray[np.float32], longest: int) -> npt.NDArray[np.uint8]:
    """Display grey [H, W], by area averaging no larger than `longest` pixels a side."""
    height, width = pixels.shape
    scale = min(1, longest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(shrunk), 0, 255).astype(np.uint8)


def _withdraw(memory: int) -> None:
    """Give up what a decoder does not need: more memory than `memory` bytes from now on, files to write, a voice."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory += pages * resource.getpagesize()
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _send(stream: BinaryIO, facts: dict[str, Any], pixels: bytes) -> None:
    text = json.dumps(facts).encode()
    stream.write(ANSWER_HEAD.pack(len(text), len(pixels)) + text + pixels)
    stream.flush()
