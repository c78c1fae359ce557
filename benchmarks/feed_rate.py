"""How many X-rays per second are read, decoded and preprocessed: what limits any engine.

Beside the project's decoders, with an engine that costs nothing: what a PyTorch user has, PIL (pydicom for DICOM) and
torchvision in a DataLoader; and the decoder library alone, in one thread, without reading, resizing or moving anything.
"""

import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.decoders.base import get_decoder

from benchmarks.study import Result
from benchmarks.tools.contestants import load_pictures
from benchmarks.tools.feed_trials import milliseconds, tried
from benchmarks.tools.pictures import DICOM_SIZE, FORMATS, PNG_SIDE, Format, encode, make_pictures
from cxr_trt.images import decode
from cxr_trt.images.checks import picture_doubts
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.dicom_pixels import DECODER_PLUGINS
from cxr_trt.images.files import find_files
from cxr_trt.images.load import read_file
from cxr_trt.images.preprocess import preprocess
from cxr_trt.markdown import markdown_table

PACKAGES = ("opencv-python-headless", "pydicom", "imagecodecs", "python-gdcm", "torch", "torchvision", "pillow")
WORKERS = (1, 2)
SKIPPED_PICTURES = 4  # as many as are decoded ahead
SIDE = 512  # of the network's input
REPEATS = 9  # of each step alone
MIN_FILES = 24  # so that pictures that come in bursts, one of each process, count less
TARGETS: dict[Format, float] = {"PNG": 0.8, "JPEG": 0.8, "DICOM": 0.5}  # of the library's rate, with one process
STEPS = {
    "read": "read",
    "hash": "SHA-256",
    "library": "library",
    "grey": "to grey",
    "resize": "resize",
    "doubts": "doubts",
}
TEXT = """\
# Feed rate

**{headline}** An engine that is faster than this waits for its files.

Files per second that become the network's input of 512 x 512 pixels: medians of {rounds} rounds in turn. All files
show one radiograph. PNG and JPEG have {size} x {size} pixels of 8 bits, DICOM {height} x {width} pixels of 16 bits:
raw, JPEG 2000 (lossless) and RLE.

{rows}

- **cxr-trt**: the decoding processes of `cxr-trt score`, with all their checks and limits; one process, and two.
- **PIL**: PIL, or pydicom for DICOM, then Resize and ToTensor of torchvision, in a DataLoader with as many workers.
- **times faster**: cxr-trt compared with PIL.
- **library**: the decoder that cxr-trt uses for the format, on bytes in memory, in one thread: without reading,
  hashing, windowing, resizing or checking. For uncompressed DICOM that is next to nothing.
- **part of library**: the rate of one process of cxr-trt as a part of that; above 1 with JPEG 2000, where one process
  has a thread for each processor.

## Where the time goes

What keeps cxr-trt below its decoders is the other work; the faster the decoder, the more it weighs. Milliseconds per
file of each step alone, in one thread, medians of {repeats} repeats:

{parts}

- **to grey**: what `cxr_trt.images.decode` does besides the decoder: headers, checks, and the two look-ups of DICOM.
- **one process**: as in the table above. Request and picture move between processes, which is not in the sum: the
  request while the file before it is resized, so that the process does not wait for it. Where a processor is idle,
  large files are hashed beside decoding and JPEG 2000 is decoded in two threads.
- **reachable**: the library as a part of the sum, so what one thread that does all of this could reach.

## What limits the rest

{limits}

## What was tried and did not pay

Milliseconds per file as it is done, and as it was tried; medians of {repeats} repeats in turn. What brings less than a
twentieth of a file's time was left out.

{tried}

Each step has its reason: the hash lets a second run know a file by its content, the checks find damaged files, and area
averaging reads every pixel once. With JPEG 2000, nearly all of the time is OpenJPEG's for both. With one process, both
decode it on two processors: cxr-trt because a processor is idle, GDCM, which pydicom chooses, always.
[JPEG 2000](jpeg-2000.md) compares the libraries.
"""


@click.command()
@click.option("--seconds", type=float, default=4.0, help="Per measurement.")
@click.option("--rounds", type=click.IntRange(1), default=3, help="In which all take turns.")
def measure(seconds: float, rounds: int) -> Result:
    """Decode files of each format in each way, and time each step alone."""
    found = {}
    for kind in FORMATS:
        with tempfile.TemporaryDirectory() as name:
            found[kind] = rates(kind, Path(name), seconds, rounds)
    steps = {kind: parts(kind) for kind in FORMATS}
    return {"rounds": rounds, "rates": found, "repeats": REPEATS, "parts": steps, "tried": tried(SIDE, REPEATS)}


def rates(kind: Format, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Files per second of a format: median and all rounds, by contestant."""
    data = encode(kind)
    count = max(MIN_FILES, round(seconds / _seconds_of_one(kind, data)))  # so many that one process needs the time
    files = sorted(make_pictures(folder / "files", kind, count).iterdir())
    contestants: dict[str, Callable[[], Iterable[Any]]] = {"library": lambda: _library(kind, data, count)}
    for workers in WORKERS:
        contestants[f"cxr-trt, {workers}"] = partial(decoded_files, files, workers)
        contestants[f"PIL, {workers}"] = partial(_loader, files, workers)
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        order = list(contestants)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            measured[name].append(files_per_second(contestants[name]()))
    return {
        "files": count,
        "bytes": len(data),
        "rates": {name: {"median": statistics.median(values), "all": values} for name, values in measured.items()},
    }


def parts(kind: Format) -> dict[str, float]:
    """Milliseconds of each step that makes the network's input of a file, in this thread."""
    data = encode(kind)
    with tempfile.TemporaryDirectory() as name:
        file = next(make_pictures(Path(name) / "files", kind, 1).iterdir())
        pixels = decode(data).pixels
        picture = preprocess(pixels, SIDE)
        steps: dict[str, Callable[[], object]] = {
            "read": partial(read_file, file),
            "hash": lambda: hashlib.sha256(data).hexdigest(),
            "library": lambda: next(_library(kind, data, 1)),
            "decode": lambda: decode(data),
            "resize": lambda: preprocess(pixels, SIDE),
            "doubts": lambda: picture_doubts(picture),
        }
        measured = {step: statistics.median(milliseconds(act) for _ in range(REPEATS)) for step, act in steps.items()}
    measured["grey"] = max(0.0, measured.pop("decode") - measured["library"])
    return {step: round(value, 2) for step, value in measured.items()}


def files_per_second(pictures: Iterable[Any]) -> float:
    """Pictures per second once the first of them are there: how long processes take to start is not counted."""
    times = []
    for picture in pictures:
        assert picture is not None
        times.append(time.perf_counter())
    return (len(times) - SKIPPED_PICTURES) / (times[-1] - times[SKIPPED_PICTURES - 1])


def _seconds_of_one(kind: Format, data: bytes) -> float:
    start = time.perf_counter()
    next(_library(kind, data, 1))
    return time.perf_counter() - start


def _library(kind: Format, data: bytes, count: int) -> Iterator[npt.NDArray[Any] | None]:
    """Decode in this thread as `cxr_trt.images` does, with OpenCV or one of pydicom's plugins."""
    cv2.setNumThreads(1)
    for _ in range(count):
        if kind in ("PNG", "JPEG"):
            yield cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        else:
            dataset = pydicom.dcmread(io.BytesIO(data))
            syntax = dataset.file_meta.TransferSyntaxUID
            yield get_decoder(syntax).as_array(dataset, decoding_plugin=DECODER_PLUGINS.get(syntax, ""))[0]


def decoded_files(files: list[Path], workers: int) -> Iterator[npt.NDArray[np.uint8] | None]:
    """What `cxr_trt.score.pipeline.score_files` does up to the engine."""
    sources = find_files(files).sources
    with Decoders(workers, SIDE, Limits()) as decoders:
        for _, answer in decoders.map((Request(source) for source in sources), workers + 1):
            yield answer.image


def _loader(files: list[Path], workers: int) -> Iterable[Any]:
    from torchvision import transforms

    transform = transforms.Compose([transforms.Resize((512, 512)), transforms.ToTensor()])
    loader: Iterable[Any] = load_pictures(files, transform, workers)
    return loader


def page(result: Result) -> str:
    """The page of a result."""
    rows = []
    for kind, own in result["rates"].items():
        median = {name: values["median"] for name, values in own["rates"].items()}
        cells = [f"{median['library']:.1f}"]
        for workers in WORKERS:
            ours, theirs = median[f"cxr-trt, {workers}"], median[f"PIL, {workers}"]
            cells += [f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}"]
        rows.append((kind, f"{own['bytes'] / 1e6:.1f} MB", *cells, f"{median['cxr-trt, 1'] / median['library']:.2f}"))
    steps = []
    for kind, own in result["parts"].items():
        total = sum(own.values())
        process = 1000 / result["rates"][kind]["rates"]["cxr-trt, 1"]["median"]
        times = [*(own[step] for step in STEPS), total, process]
        steps.append((kind, *(f"{value:.1f}" for value in times), f"{own['library'] / total:.2f}"))
    columns = ["format", "file size", "library"]
    for workers in WORKERS:
        columns += [f"cxr-trt, {workers}", f"PIL, {workers}", "times faster"]
    most = f"cxr-trt, {WORKERS[-1]}"
    found = (f"{own['rates'][most]['median']:.0f} of {kind}" for kind, own in result["rates"].items())
    return TEXT.format(
        headline=f"Files per second with {WORKERS[-1]} processes: {', '.join(found)}.",
        rounds=result["rounds"],
        size=PNG_SIDE,
        height=DICOM_SIZE[0],
        width=DICOM_SIZE[1],
        rows=markdown_table([*columns, "part of library"], rows),
        repeats=result["repeats"],
        parts=markdown_table(("format", *STEPS.values(), "sum", "one process", "reachable"), steps),
        limits=_limits(result),
        tried=_tried(result),
    )


def _limits(result: Result) -> str:
    """A sentence on each format that stays below its target."""
    sentences = []
    for kind, target in TARGETS.items():
        if kind not in result["rates"]:
            continue
        own, median = result["parts"][kind], {n: v["median"] for n, v in result["rates"][kind]["rates"].items()}
        reached, reachable = median["cxr-trt, 1"] / median["library"], own["library"] / sum(own.values())
        verdict = "reached" if reached >= target else "missed"
        sentence = f"- **{kind}**: {reached:.2f} of the library with one process; aimed at {target:g}, so {verdict}."
        if reached < target and reachable < target:
            alone = own["library"] / (own["library"] + own["hash"])
            sentence += (
                f" One thread that did all steps without moving anything would reach {reachable:.2f}; with the hash as "
                f"the only step beside the library, {alone:.2f}."
            )
        sentences.append(sentence)
    return "\n".join(sentences) + (
        "\n- The hash is SHA-256, which rows and journals promise: a faster one would break what they are for, as "
        "others must be able to compute it."
    )


def _tried(result: Result) -> str:
    rows = []
    for own in result["tried"]:
        whole = 1000 / result["rates"][own["format"]]["rates"]["cxr-trt, 1"]["median"]
        gain = (own["now"] - own["tried"]) / whole
        rows.append((own["format"], own["title"], f"{own['now']:.2f}", f"{own['tried']:.2f}", f"{gain:.1%}"))
    return markdown_table(("format", "tried", "ms now", "ms as tried", "gain, of a file's time"), rows)
