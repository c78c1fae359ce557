"""How many X-rays a second are read, decoded and preprocessed: what bounds any engine; docs/feed-rate.md.

    make feed-rate     twenty minutes on two idle processors

Beside the project's decoders, with an engine that costs nothing: what a PyTorch user has, PIL (pydicom for DICOM) and
torchvision in a DataLoader; and the decoder library alone, in one thread, without reading, resizing or moving anything.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels.decoders.base import get_decoder

from benchmarks.contestants import Pictures
from benchmarks.pictures import FORMATS, LARGE, SIZE, Format, encode, make_pictures
from benchmarks.result import ROOT, made_by, provenance, table, write
from cxr_trt.images.dicom import DECODER_PLUGINS
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.files import find_files

WORKERS = (1, 2)
SKIPPED = 4  # pictures, as many as are decoded ahead
FEWEST = 24  # so that pictures that come in bursts, one of each process, count less
PACKAGES = ("opencv-python-headless", "pydicom", "pylibjpeg-openjpeg", "python-gdcm", "torch", "torchvision", "pillow")
COMMAND = "make feed-rate"
TEXT = """\
# Feed rate

Files a second that become the network's input, 512 x 512, medians of {rounds} rounds in turn. PNG and JPEG are {size} x
{size} pixels, 8 bits; DICOM is {height} x {width}, 16 bits: raw, JPEG 2000 (lossless) and RLE; all show one radiograph.
An engine that is faster than this waits for its files.

- **cxr-trt**: the decoding processes of `cxr-trt score`, with all their checks and limits.
- **PIL**: PIL, or pydicom for DICOM, then torchvision's Resize and ToTensor, in a DataLoader with as many workers.
- **library**: the decoder that cxr-trt uses for the format, on bytes in memory, in one thread: no reading, hashing,
  windowing, resizing, checking or passing on. For uncompressed DICOM that is next to nothing. The last column is
  cxr-trt with one process over it.

{rows}
What keeps cxr-trt below its decoders is what it does besides: hashing, windowing, resizing, and the checks of
the picture, which weigh the more the faster the decoder is. In JPEG 2000 nearly all of the time is OpenJPEG's for both;
with one worker, pydicom's choice of decoder (GDCM) takes two processors for it, and cxr-trt one.
"""


@click.command()
@click.option("--seconds", type=float, default=4.0, show_default=True, help="For a measurement.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/feed-rate.json"
)
@click.option("--page", type=click.Path(path_type=Path), default=ROOT / "docs" / "feed-rate.md")
def main(seconds: float, rounds: int, json_path: Path, page: Path) -> None:
    """Measure, and write both files."""
    result = {**provenance(PACKAGES), "rounds": rounds, "rates": {}}
    for kind in FORMATS:
        with tempfile.TemporaryDirectory() as name:
            result["rates"][kind] = rates(kind, Path(name), seconds, rounds)
    write(result, json_path, to_markdown(result), page)
    click.echo(page.read_text(encoding="utf-8"))


def rates(kind: Format, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Files a second of a format: median and all rounds, by contestant."""
    data = encode(kind)
    count = max(FEWEST, round(seconds / _seconds_of_one(kind, data)))  # so many that one process needs the time
    files = sorted(make_pictures(folder / "files", kind, count).iterdir())
    contestants: dict[str, Callable[[], Iterable[Any]]] = {"library": lambda: _library(kind, data, count)}
    for workers in WORKERS:
        contestants[f"cxr-trt, {workers}"] = lambda workers=workers: _ours(files, workers)
        contestants[f"PIL, {workers}"] = lambda workers=workers: _loader(files, workers)
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        order = list(contestants)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            measured[name].append(_rate(contestants[name]()))
    return {
        "files": count,
        "bytes": len(data),
        "rates": {name: {"median": statistics.median(values), "all": values} for name, values in measured.items()},
    }


def _rate(pictures: Iterable[Any]) -> float:
    """Pictures a second, from when the first of them are there: how long processes take to start is not counted."""
    times = []
    for picture in pictures:
        assert picture is not None
        times.append(time.perf_counter())
    return (len(times) - SKIPPED) / (times[-1] - times[SKIPPED - 1])


def _seconds_of_one(kind: Format, data: bytes) -> float:
    start = time.perf_counter()
    next(_library(kind, data, 1))
    return time.perf_counter() - start


def _library(kind: Format, data: bytes, count: int) -> Iterator[npt.NDArray[Any]]:
    """Decode in this thread as `cxr_trt.images` does, with OpenCV or one of pydicom's plugins."""
    cv2.setNumThreads(1)
    for _ in range(count):
        if kind in ("PNG", "JPEG"):
            yield cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        else:
            dataset = pydicom.dcmread(io.BytesIO(data))
            syntax = dataset.file_meta.TransferSyntaxUID
            yield get_decoder(syntax).as_array(dataset, decoding_plugin=DECODER_PLUGINS.get(syntax, ""))[0]


def _ours(files: list[Path], workers: int) -> Iterator[npt.NDArray[np.uint8] | None]:
    """What `cxr_trt.score.pipeline.score` does up to the engine."""
    sources = find_files(files).sources
    with Decoders(workers, 512, Limits()) as decoders:
        for _, answer in decoders.map((Request(source) for source in sources), workers + 1):
            yield answer.image


def _loader(files: list[Path], workers: int) -> Iterable[Any]:
    from torch.utils.data import DataLoader
    from torchvision import transforms

    transform = transforms.Compose([transforms.Resize((512, 512)), transforms.ToTensor()])
    return DataLoader(Pictures(files, transform), num_workers=workers)


def to_markdown(result: dict[str, Any]) -> str:
    """The page of a result."""
    rows = []
    for kind, own in result["rates"].items():
        median = {name: values["median"] for name, values in own["rates"].items()}
        cells = [f"{median['library']:.1f}"]
        for workers in WORKERS:
            ours, theirs = median[f"cxr-trt, {workers}"], median[f"PIL, {workers}"]
            cells += [f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}"]
        rows.append((kind, f"{own['bytes'] / 1e6:.1f} MB", *cells, f"{median['cxr-trt, 1'] / median['library']:.2f}"))
    columns = ["format", "a file", "library"]
    for workers in WORKERS:
        columns += [f"cxr-trt, {workers}", f"PIL, {workers}", "times"]
    text = TEXT.format(
        rounds=result["rounds"],
        size=SIZE,
        height=LARGE[0],
        width=LARGE[1],
        rows=table([*columns, "of the library's"], rows),
    )
    return f"{text}\n{made_by(COMMAND, result)}"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.feed")
