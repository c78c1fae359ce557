"""Mutated files through everything that reads files from outside.

Images go through the decoding processes of `cxr-trt score`; manifests, graphs and checkpoints through their loaders, in
a process with the same limits (`python -m benchmarks.fuzzing KIND FIRST COUNT SEED`). Allowed is what was meant to be
read, or one of our exceptions. Seeded: a case that fails can be made again by its number.
"""

import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
from cheap_engine import cheap_bundle, cheap_graph
from mutations import changed_checkpoint, changed_graph, changed_json, mutated, repacked, with_checksums
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from seeds import GREY, HTJ2K_RAMP, content, dataset, jpeg, png

from benchmarks.study import ROOT, Result
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import CxrTrtError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.files import Source
from cxr_trt.markdown import markdown_table

PACKAGES = ("opencv-python-headless", "pydicom", "imagecodecs", "onnx", "torch", "safetensors")
LIMITS = Limits(memory=1 << 30, seconds=20)
DECODER_FAILURES = ("the decoder failed", "reading takes longer", "decoding takes too much memory")
IMAGES = ("PNG", "JPEG", "TIFF", "DICOM")
CASES = {"PNG": 4500, "JPEG": 4500, "TIFF": 3000, "DICOM": 7000, "manifest": 1500, "ONNX": 2000, "checkpoint": 500}
TEXT = """\
# Fuzzing

**{headline}**

Seeds of each kind were mutated and given to the code that reads them, with at most {memory} GiB and {seconds:g} s per
file. "refused" is an error of one sentence. "neither" is a crash, a hang, more memory than that, or an exception that
is none of ours. Random seed: {seed}.

{rows}

{bad}
"""


@click.command()
@click.option("--share", type=float, default=1.0, help="Of the cases of a full run.")
@click.option("--seed", type=int, default=0, help="For the mutations.")
def measure(share: float, seed: int) -> Result:
    """Read mutated files of every kind."""
    numbers = {kind: max(1, round(cases * share)) for kind, cases in CASES.items()}
    with ThreadPoolExecutor() as pool, Decoders(2, 64, LIMITS) as decoders:
        loaded = {kind: pool.submit(_fuzz_loader, kind, numbers[kind], seed) for kind in CASES if kind not in IMAGES}
        found = {kind: _fuzz_images(decoders, kind, numbers[kind], seed) for kind in IMAGES}
        found |= {kind: future.result() for kind, future in loaded.items()}
    files = {
        kind: {
            "cases": counts.total(),
            "read": counts["read"],
            "refused": counts["refused"] - len(bad),
            "neither": bad,
        }
        for kind, (counts, bad) in found.items()
    }
    return {"memory_gib": LIMITS.memory >> 30, "seconds": LIMITS.seconds, "seed": seed, "files": files}


def _image_seeds() -> dict[str, list[bytes]]:
    """Files of every kind that is read."""
    colour = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
    compressed = []
    for syntax, plugin in ((RLELossless, "pydicom"), (JPEG2000Lossless, "pylibjpeg")):
        made = dataset()
        made.compress(syntax, encoding_plugin=plugin)
        compressed.append(content(made))
    lut = dataset()
    del lut.WindowCenter, lut.WindowWidth
    item = type(lut)()
    item.LUTDescriptor, item.LUTData = [256, 0, 8], np.arange(256, dtype="<u2").tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    lut.VOILUTSequence = [item]
    rgba = np.dstack([colour, GREY])
    return {
        "PNG": [png(), png(GREY.astype(np.uint16) * 257), png(colour), png(rgba), _bilevel_png()],
        "JPEG": [jpeg(), jpeg(colour), jpeg(GREY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)],
        "TIFF": [tiff(), tiff(GREY.astype(np.uint16) * 257), tiff(colour), tiff(GREY, cv2.IMWRITE_TIFF_COMPRESSION, 1)],
        "DICOM": [
            content(dataset()),
            content(dataset())[132:],
            content(
                dataset(BitsAllocated=16, BitsStored=12, HighBit=15, PixelData=(GREY.astype("<u2") << 4).tobytes())
            ),
            content(dataset(PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=3, RescaleSlope=2)),
            content(dataset("1.2.840.10008.1.2")),
            content(dataset("1.2.840.10008.1.2.1.99")),
            content(dataset(JPEGBaseline8Bit, frame=jpeg())),
            content(dataset(HTJ2KLossless, frame=HTJ2K_RAMP)),
            content(lut),
            *compressed,
        ],
    }


def tiff(picture: npt.NDArray[Any] = GREY, *options: int) -> bytes:
    """A TIFF file, LZW-compressed unless `options` say otherwise."""
    _, data = cv2.imencode(".tif", picture, options)
    return data.tobytes()


def _bilevel_png() -> bytes:
    return cv2.imencode(".png", GREY, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()


def _image_cases(kind: str, count: int, seed: int) -> Iterator[bytes]:
    """Mutations of the seeds of a kind; three of four PNGs with right checksums, so that more of them is read."""
    seeds = _image_seeds()
    everything = [data for group in seeds.values() for data in group]
    for number in range(count):
        rng = random.Random(f"{seed} {kind} {number}")
        data = rng.choice(seeds[kind])
        if kind == "PNG" and number % 4 > 1:
            yield repacked(data, rng)
        else:
            data = mutated(data, everything, rng)
            yield with_checksums(data) if kind == "PNG" and number % 2 else data


def _fuzz_images(decoders: Decoders, kind: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Count images and errors, and name the cases that ended in neither."""
    found: Counter[str] = Counter()
    bad = []
    with tempfile.TemporaryDirectory() as name:

        def requests() -> Iterator[Request]:
            for number, data in enumerate(_image_cases(kind, count, seed)):
                path = Path(name) / str(number)
                path.write_bytes(data)
                yield Request(Source(path, str(number)))

        for request, answer in decoders.map(requests(), 8):
            request.source.path.unlink()
            if answer.error and answer.error.startswith(DECODER_FAILURES):
                bad.append(f"{kind} {request.source.name}: {answer.error}")
            found["read" if answer.error is None else "refused"] += 1
    return found, bad


def _loader(kind: str, folder: Path) -> tuple[list[bytes], Callable[[bytes, random.Random], object]]:
    """The seeds of a kind, and what reads a mutation of one."""
    if kind == "manifest":
        bundle = cheap_bundle(folder / "a.cxr")
        seed = (bundle / "manifest.json").read_bytes()

        def read_json(data: bytes, rng: random.Random) -> object:
            (bundle / "manifest.json").write_bytes(data if rng.random() < 0.5 else changed_json(seed, rng))
            return read_manifest(bundle)

        return [seed], read_json
    if kind == "ONNX":
        seed = cheap_graph().model.SerializeToString()

        def read_graph(data: bytes, rng: random.Random) -> object:
            (folder / "a.onnx").write_bytes(data if rng.random() < 0.5 else changed_graph(seed, rng))
            return ScoringGraph.load(folder / "a.onnx")

        return [seed], read_graph
    import torch
    from safetensors.torch import save

    from cxr_trt.model.checkpoint import load_checkpoint

    weights = {"features.conv0.weight": torch.zeros(4, 3, 2, 2), "classifier.bias": torch.zeros(5)}
    torch.save(weights, folder / "seed.pt")
    header = json.dumps({"settings": {}, "weights": "trained", "sizes": [512, 448]})
    seeds = [save(weights, {"cxr_trt": header}), save(weights), (folder / "seed.pt").read_bytes()]

    def read_checkpoint(data: bytes, rng: random.Random) -> object:
        is_changed = rng.random() < 0.5
        if is_changed:
            data = changed_checkpoint(rng)
        path = folder / ("a.pt" if data[:2] == b"PK" else "a.safetensors")
        path.write_bytes(data)
        return load_checkpoint(path, None if is_changed else "chexnet")

    return seeds, read_checkpoint


def read_all(kind: str, first: int, count: int, seed: int) -> None:
    """In a process of its own: read cases and say of each what became of it."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as name:
        seeds, read = _loader(kind, Path(name))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = LIMITS.memory + pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        for number in range(first, first + count):
            rng = random.Random(f"{seed} {kind} {number}")
            data = mutated(rng.choice(seeds), seeds, rng)
            print(number, end=" ", flush=True)
            signal.setitimer(signal.ITIMER_REAL, LIMITS.seconds)
            try:
                read(data, rng)
                print("read", flush=True)
            except CxrTrtError as error:
                print("refused" if "\n" not in str(error) else "a sentence of several lines", flush=True)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _fuzz_loader(kind: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Count what was read and refused, and name the cases that ended otherwise, such as with the process."""
    found: Counter[str] = Counter()
    bad = []
    done = 0
    while done < count:
        command = [sys.executable, "-m", "benchmarks.fuzzing", kind, str(done), str(count - done), str(seed)]
        process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        lines = process.stdout.splitlines()
        for line in lines:
            number, _, result = line.partition(" ")
            result = result or f"the process ended with {process.returncode}"
            if result not in ("read", "refused"):
                bad.append(f"{kind} {number}: {result}")
            found["read" if result == "read" else "refused"] += 1
        if not lines:
            raise RuntimeError(process.stderr)
        done += len(lines)
    return found, bad


def problems(result: Result) -> list[str]:
    """Files that were neither read nor refused."""
    return [sentence for own in result["files"].values() for sentence in own["neither"]]


def page(result: Result) -> str:
    """The page of a result."""
    counts = {kind: {**own, "neither": len(own["neither"])} for kind, own in result["files"].items()}
    names = ("cases", "read", "refused", "neither")
    total = {name: sum(own[name] for own in counts.values()) for name in names}
    rows = [(kind, *(str(own[name]) for name in names)) for kind, own in {**counts, "all": total}.items()]
    return TEXT.format(
        headline=f"Of {total['cases']:,} mutated files, {total['read']:,} were read, {total['refused']:,} were refused "
        f"with one sentence, and {total['neither']} did anything else.",
        memory=result["memory_gib"],
        seconds=result["seconds"],
        seed=result["seed"],
        rows=markdown_table(("files", *names), rows),
        bad="\n".join(f"- {sentence}" for sentence in problems(result)),
    )


if __name__ == "__main__":
    read_all(sys.argv[1], *map(int, sys.argv[2:]))
