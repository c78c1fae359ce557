"""Mutated files through everything that reads files from outside: `make fuzz` writes docs/fuzzing.md.

Images go through the decoding processes of `cxr-trt score`; manifests, graphs and checkpoints through their loaders, in
a process with the same limits. Allowed is what was meant to be read, or one of our exceptions. Seeded: a case that
fails can be made again by its number.
"""

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cheap_engine import cheap_bundle, cheap_model
from mutations import changed_checkpoint, changed_graph, changed_json, mutated, repacked, with_checksums
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from seeds import GREY, content, dataset, jpeg, png
from study import ROOT, header, table

from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import CxrTrtError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.files import Source

LIMITS = Limits(memory=1 << 30, seconds=20)
FAILED = ("the decoder failed", "reading takes longer", "decoding takes too much memory")
CASES = {"PNG": 4500, "JPEG": 4500, "DICOM": 7000, "manifest": 1500, "ONNX": 2000, "checkpoint": 500}


def image_seeds() -> dict[str, list[bytes]]:
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
        "PNG": [png(), png(GREY.astype(np.uint16) * 257), png(colour), png(rgba), bilevel_png()],
        "JPEG": [jpeg(), jpeg(colour), jpeg(GREY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)],
        "DICOM": [
            content(dataset()),
            content(dataset(PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=3, RescaleSlope=2)),
            content(dataset("1.2.840.10008.1.2")),
            content(dataset("1.2.840.10008.1.2.1.99")),
            content(dataset(JPEGBaseline8Bit, frame=jpeg())),
            content(lut),
            *compressed,
        ],
    }


def bilevel_png() -> bytes:
    return cv2.imencode(".png", GREY, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()


def image_cases(kind: str, count: int, seed: int) -> Iterator[bytes]:
    """Mutations of the seeds of a kind; three of four PNGs with right checksums, so that more of them is read."""
    seeds = image_seeds()
    everything = [data for group in seeds.values() for data in group]
    for number in range(count):
        rng = random.Random(f"{seed} {kind} {number}")
        data = rng.choice(seeds[kind])
        if kind == "PNG" and number % 4 > 1:
            yield repacked(data, rng)
        else:
            data = mutated(data, everything, rng)
            yield with_checksums(data) if kind == "PNG" and number % 2 else data


def fuzz_images(kind: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Count images and errors, and name the cases that ended in neither."""
    found: Counter[str] = Counter()
    bad = []
    with tempfile.TemporaryDirectory() as name:

        def requests() -> Iterator[Request]:
            for number, data in enumerate(image_cases(kind, count, seed)):
                path = Path(name) / str(number)
                path.write_bytes(data)
                yield Request(Source(path, str(number)))

        with Decoders(2, 64, LIMITS) as decoders:
            for request, answer in decoders.map(requests(), 8):
                request.source.path.unlink()
                if answer.error and answer.error.startswith(FAILED):
                    bad.append(f"{kind} {request.source.name}: {answer.error}")
                found["read" if answer.error is None else "refused"] += 1
    return found, bad


def loader(kind: str, folder: Path) -> tuple[list[bytes], Callable[[bytes, random.Random], Any]]:
    """The seeds of a kind, and what reads a mutation of one."""
    if kind == "manifest":
        bundle = cheap_bundle(folder / "a.cxr")
        seed = (bundle / "manifest.json").read_bytes()

        def read_json(data: bytes, rng: random.Random) -> object:
            (bundle / "manifest.json").write_bytes(data if rng.random() < 0.5 else changed_json(seed, rng))
            return read_manifest(bundle)

        return [seed], read_json
    if kind == "ONNX":
        seed = cheap_model().SerializeToString()

        def read_graph(data: bytes, rng: random.Random) -> object:
            (folder / "a.onnx").write_bytes(data if rng.random() < 0.5 else changed_graph(seed, rng))
            return read_scoring_graph(folder / "a.onnx")

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
        seeds, read = loader(kind, Path(name))
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


def fuzz_loader(kind: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Count what was read and refused, and name the cases that ended otherwise, such as with the process."""
    found: Counter[str] = Counter()
    bad = []
    done = 0
    while done < count:
        command = [sys.executable, __file__, "--read", kind, str(done), str(count - done), str(seed)]
        process = subprocess.run(command, capture_output=True, text=True)
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


def fuzz(kind: str, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Fuzz one kind of file: what was read and refused, and the cases that ended in neither."""
    return (fuzz_images if kind in ("PNG", "JPEG", "DICOM") else fuzz_loader)(kind, count, seed)


def page(rows: list[tuple[object, ...]], bad: list[str], seed: int) -> str:
    """The page, as far as the kinds have been run."""
    total = ("all", *(sum(int(str(row[i])) for row in rows) for i in range(1, 5)))
    text = (
        f"Mutated files through the readers; seed {seed}, at most {LIMITS.memory >> 30} GiB and "
        f"{LIMITS.seconds:g} s a file. Refused: an error of one sentence. Neither: a crash, a hang, more memory than "
        "that, or an exception that is none of ours."
    )
    head = header("Fuzzing", "make fuzz", text)
    return "\n".join([head + table(("files", "cases", "read", "refused", "neither"), [*rows, total]), *bad])


def main() -> None:
    """Run all kinds and write the table; exit code 1 if a case ended in what is not allowed."""
    if sys.argv[1:2] == ["--read"]:
        return read_all(sys.argv[2], *map(int, sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of a full run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "fuzzing.md")
    options = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    all_bad = []
    for kind, cases in CASES.items():
        found, bad = fuzz(kind, max(1, round(cases * options.share)), options.seed)
        rows.append((kind, found.total(), found["read"], found["refused"] - len(bad), len(bad)))
        all_bad += bad
        print(*rows[-1], *bad, sep=" | ", flush=True)
        options.output.write_text(page(rows, all_bad, options.seed))
    sys.exit(bool(all_bad))


if __name__ == "__main__":
    main()
