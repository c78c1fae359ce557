"""Changes to how files become the network's input that were tried: each step as it is done, and as it was tried."""

import fcntl
import hashlib
import math
import mmap
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.tools.pictures import DICOM_SIZE, Format, encode
from cxr_trt.images.decoder_process import PIPE_BYTES
from cxr_trt.images.preprocess import BANDS, preprocess

HASHED_ASIDE = "hash in a second thread, on an idle processor"


def tried(side: int, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds per file of steps as they are done, and as they were tried; medians of repeats in turn."""
    png, jpeg = encode("PNG"), encode("JPEG")
    pixels = np.random.default_rng(0).integers(0, 1 << 12, DICOM_SIZE).astype(np.uint16)
    greys = np.linspace(0, 255, 1 << 16, dtype=np.float32)
    image = np.zeros((side, side), np.uint8)
    shared = np.frombuffer(mmap.mmap(-1, image.nbytes), np.uint8)
    threads = ThreadPoolExecutor(1)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def hashed_first(data: bytes) -> None:
        hashlib.sha256(data).hexdigest()
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)

    def hashed_aside(data: bytes) -> None:
        hashing = threads.submit(lambda: hashlib.sha256(data).hexdigest())
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        hashing.result()

    def piped() -> None:
        os.write(writing, image.tobytes())
        left = image.nbytes
        while left:
            left -= len(os.read(reading, left))

    def copied() -> None:
        np.copyto(shared, image.reshape(-1))
        shared.tobytes()

    ways: list[tuple[Format, str, Callable[[], object], Callable[[], object]]] = [
        ("PNG", HASHED_ASIDE, lambda: hashed_first(png), lambda: hashed_aside(png)),
        (
            "JPEG",
            "hash in a second thread, on an idle processor",
            lambda: hashed_first(jpeg),
            lambda: hashed_aside(jpeg),
        ),
        ("JPEG", "picture through shared memory, not a pipe", piped, copied),
        (
            "DICOM",
            "greys looked up and resized in parts that fit into the cache",
            lambda: preprocess(cv2.LUT(pixels, greys).reshape(DICOM_SIZE), side),  # type: ignore[arg-type]
            lambda: _in_parts(pixels, greys, side),
        ),
    ]
    found = []
    for kind, title, now, instead in ways:
        times = [(milliseconds(now), milliseconds(instead)) for _ in range(1 + repeats)][1:]
        medians = [round(statistics.median(own), 3) for own in zip(*times, strict=True)]
        found.append({"format": kind, "title": title, "now": medians[0], "tried": medians[1]})
    threads.shutdown()
    os.close(reading)
    os.close(writing)
    return found


def _in_parts(pixels: npt.NDArray[np.uint16], greys: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """The look-up and the resize of `cxr_trt.images`, bands as channels, a part of the rows after the other."""
    bands = cv2.merge(np.split(pixels, BANDS))
    rows = math.gcd(len(bands), side // BANDS)  # so many parts end between pixels of both pictures
    parts = [
        cv2.resize(
            cv2.LUT(part.reshape(len(part), -1), greys).reshape(part.shape),
            (side, side // BANDS // rows),
            interpolation=cv2.INTER_AREA,
        )
        for part in np.split(bands, rows)
    ]
    resized: npt.NDArray[np.float32] = np.concatenate(cv2.split(np.concatenate(parts)))
    return resized


def milliseconds(act: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - start)
