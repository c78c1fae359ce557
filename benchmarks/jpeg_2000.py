"""How fast JPEG 2000 is decoded, beside the libraries on PyPI that can: in one process, and in one per processor."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

import click
import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000

from benchmarks.feed_rate import MIN_FILES, decoded_files, files_per_second
from benchmarks.study import ROOT, Result
from benchmarks.tools.jpeg2000_libraries import LIBRARIES, with_imagecodecs
from cxr_trt.markdown import markdown_table
from cxr_trt.processors import processors

PACKAGES = ("imagecodecs", "pillow", "python-gdcm", "pylibjpeg-openjpeg", "pydicom")
LOSSY_PSNR = 45  # dB, of the file of 8 bits
EIGHT_BITS_SHIFT = 7  # the radiograph has 15
OURS = "cxr-trt"
TEXT = """\
# JPEG 2000

**{headline}**

Radiographs per second: medians of {rounds} rounds in which all take turns, with one process and with one for each of
the {processors} processors. "times as fast" is the median of the ratios within a round. All show one radiograph of
{height} x {width} pixels.

{rows}

- **cxr-trt**: the whole way from DICOM file to the network's input, as in [feed rate](feed-rate.md). It decodes with
  imagecodecs, and sets OPJ_NUM_THREADS to the number of processors for each process.
- **the libraries**: the codestream in memory to samples, and nothing else, with the same OPJ_NUM_THREADS. All call
  OpenJPEG. imagecodecs and Pillow contain a build that has threads; python-gdcm asks for two, however many
  processes there are; pylibjpeg-openjpeg has none. Pillow returns samples shifted to 16 bits.

Not measured: Grok, which PyPI has under the AGPL and as a codec of Blosc2 only; glymur, which calls the system's
OpenJPEG; decoders for GPUs.
"""


@click.command()
@click.option("--seconds", type=float, default=2.0, help="Per measurement.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="In which all take turns.")
def measure(seconds: float, rounds: int) -> Result:
    """Decode each kind of stream with each library."""
    count = processors()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, stream in streams().items():
            folder = Path(name, kind.replace(" ", "-"))
            files = write_files(folder, stream, count=max(MIN_FILES, round(seconds / _seconds_of_one(stream))))
            measured: dict[str, list[float]] = {}
            contestants: dict[str, Callable[[], float]] = {}
            for processes in sorted({1, count}):
                contestants[f"{OURS}, {processes}"] = partial(_ours, files, processes)
                for library in LIBRARIES:
                    contestants[f"{library}, {processes}"] = partial(
                        _alone, library, folder / "stream.j2k", processes, count // processes, seconds
                    )
            for number in range(rounds):
                order = list(contestants)
                for title in order[number % len(order) :] + order[: number % len(order)]:
                    measured.setdefault(title, []).append(contestants[title]())
            found[kind] = {
                "bytes": len(stream),
                "rates": {
                    title: {"median": statistics.median(rates), "all": rates} for title, rates in measured.items()
                },
            }
    height, width = with_imagecodecs(stream).shape
    return {"rounds": rounds, "processors": count, "height": height, "width": width, "streams": found}


def streams() -> dict[str, bytes]:
    """Codestreams of a radiograph of pydicom-data (RG1) by kind: two as they are there, two made of them in 8 bits."""
    lossless, lossy = (
        next(generate_frames(pydicom.dcmread(_radiograph(name)).PixelData, number_of_frames=1))
        for name in ("RG1_J2KR", "RG1_J2KI")
    )
    eight_bits = (with_imagecodecs(lossless) >> EIGHT_BITS_SHIFT).astype(np.uint8)
    return {
        "15 bits lossless": lossless,
        "15 bits lossy": lossy,
        "8 bits lossless": bytes(imagecodecs.jpeg2k_encode(eight_bits, codecformat="J2K")),
        "8 bits lossy": bytes(imagecodecs.jpeg2k_encode(eight_bits, level=LOSSY_PSNR, codecformat="J2K")),
    }


def _radiograph(name: str) -> Path:
    return Path(str(distribution("pydicom-data").locate_file(f"data_store/data/{name}.dcm")))


def write_files(folder: Path, stream: bytes, count: int) -> list[Path]:
    """The stream alone, and as `count` DICOM files of one content, which are returned."""
    folder.mkdir()
    (folder / "stream.j2k").write_bytes(stream)
    dataset = pydicom.dcmread(_radiograph("RG1_UNCR"))
    bits = 8 * with_imagecodecs(stream).itemsize
    dataset.BitsAllocated = bits
    dataset.BitsStored = min(dataset.BitsStored, bits)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    dataset.PixelData = encapsulate([stream])
    files = [folder / f"{number}.dcm" for number in range(count)]
    dataset.save_as(files[0], enforce_file_format=True)
    for file in files[1:]:
        os.link(files[0], file)
    return files


def _seconds_of_one(stream: bytes) -> float:
    start = time.perf_counter()
    with_imagecodecs(stream)
    return time.perf_counter() - start


def _ours(files: list[Path], processes: int) -> float:
    return files_per_second(decoded_files(files, processes))


def _alone(library: str, stream: Path, processes: int, threads: int, seconds: float) -> float:
    """Frames per second of a library in that many processes at the same time."""
    command = [sys.executable, "-m", "benchmarks.tools.jpeg2000_libraries", library, str(stream), str(seconds)]
    environment = {**os.environ, "OPJ_NUM_THREADS": str(threads if threads > 1 else 0)}
    running = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", library
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def page(result: Result) -> str:
    """The page of a result."""
    rows = []
    for kind, own in result["streams"].items():
        for processes in sorted({1, result["processors"]}):
            rates = [own["rates"][f"{name}, {processes}"]["median"] for name in (OURS, *LIBRARIES)]
            rows.append((f"{kind}, {own['bytes'] / 1e3:,.0f} kB", f"{processes}", *(f"{rate:.1f}" for rate in rates)))
    return TEXT.format(
        headline=_headline(result),
        rounds=result["rounds"],
        processors=result["processors"],
        height=result["height"],
        width=result["width"],
        rows=markdown_table(["stream", "processes", OURS, *LIBRARIES], rows),
    )


def times_as_fast(result: Result, processes: int) -> dict[tuple[str, str], float]:
    """By stream and library: how much faster imagecodecs is, as the median of the ratios within a round."""
    found = {}
    for kind, own in result["streams"].items():
        ours = own["rates"][f"imagecodecs, {processes}"]["all"]
        for library in LIBRARIES.keys() - {"imagecodecs"}:
            theirs = own["rates"][f"{library}, {processes}"]["all"]
            found[kind, library] = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return found


def _headline(result: Result) -> str:
    one, all_processors = (times_as_fast(result, processes) for processes in (1, result["processors"]))
    return (
        f"The decoder of cxr-trt, imagecodecs, is at least {min(one.values()):.2f} times as fast as any other library "
        f"with one process, and {min(all_processors.values()):.2f} times with one per processor."
    )


def problems(result: Result) -> list[str]:
    """Libraries that are faster than imagecodecs, beyond a noise of 5 %."""
    return [
        f"{kind}, {processes}: {library} is faster than imagecodecs ({ratio:.2f})"
        for processes in sorted({1, result["processors"]})
        for (kind, library), ratio in times_as_fast(result, processes).items()
        if not ratio >= 0.95
    ]
