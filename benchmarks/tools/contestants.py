"""The contestants of the benchmark: this project's engines, and what else one can do with the same weights.

Each runs in a process of its own, which `benchmarks.tools.contest` starts. The process reads one command per line from
standard input, and answers each with one line of JSON:

    alone               scores the picture: seconds, probabilities
    files OUTPUT        scores the files to a table: seconds
"""

import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.tools.networks import load_network
from cxr_trt.findings import FINDINGS


class Contestant(Protocol):
    """Scores one prepared picture, or files."""

    def prepare(self, picture: npt.NDArray[np.uint8]) -> Any:
        """A picture, uint8 [size, size], as `run` takes it."""
        ...

    def run(self, prepared: Any) -> npt.NDArray[np.floating[Any]]:
        """Probabilities [14]."""
        ...

    def files(self, paths: list[Path], workers: int, output: Path) -> None:
        """Score files to a CSV."""
        ...


class Bundle:
    """An engine of this project, and its scoring core."""

    def __init__(self, path: Path) -> None:
        from cxr_trt.score.engine import Engine

        self._engine = Engine(path)

    def prepare(self, picture: npt.NDArray[np.uint8]) -> Any:
        return picture[None]

    def run(self, prepared: Any) -> npt.NDArray[np.floating[Any]]:
        probabilities: npt.NDArray[np.float32] = self._engine.run(prepared).probabilities[0]
        return probabilities

    def files(self, paths: list[Path], workers: int, output: Path) -> None:
        from cxr_trt.images.files import find_files
        from cxr_trt.score.pipeline import score_files
        from cxr_trt.tables.writing import write_table

        results = score_files(self._engine, find_files(paths).sources, workers=workers)
        write_table(output, ".csv", (result.row for result in results), self._engine.spec)


class Peer:
    """The same network as re-implementations of CheXNet run it: PIL, torchvision's ten crops stacked, a DataLoader."""

    def __init__(self, logits: Callable[[Any], Any]) -> None:
        """`logits`: crops, a float32 tensor [10, 3, 448, 448], to an array or tensor [10, 14]."""
        import torch
        from torchvision import transforms

        self._logits, self._torch = logits, torch
        normalise = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        )
        self._transform = transforms.Compose(
            [
                transforms.Resize((512, 512)),
                transforms.TenCrop(448),
                transforms.Lambda(lambda crops: torch.stack([normalise(crop) for crop in crops])),
            ]
        )

    def prepare(self, picture: npt.NDArray[np.uint8]) -> Any:
        from PIL import Image

        return self._transform(Image.fromarray(picture).convert("RGB"))

    def run(self, prepared: Any) -> npt.NDArray[np.floating[Any]]:
        with self._torch.inference_mode():
            logits = self._torch.as_tensor(self._logits(prepared))
            probabilities: npt.NDArray[np.floating[Any]] = self._torch.sigmoid(logits).mean(0).cpu().numpy()
        return probabilities

    def files(self, paths: list[Path], workers: int, output: Path) -> None:
        loader = load_pictures(paths, self._transform, workers)
        with output.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", *FINDINGS])
            for path, crops in zip(paths, loader, strict=True):
                writer.writerow([path.name, *self.run(crops[0]).tolist()])


class Pictures:
    """A data set of image files, for a DataLoader."""

    def __init__(self, paths: list[Path], transform: Callable[[Any], Any]) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        return self._transform(read_picture(self._paths[index]))


def load_pictures(paths: list[Path], transform: Callable[[Any], Any], workers: int) -> Any:
    """A DataLoader of image files."""
    from torch.utils.data import DataLoader

    return DataLoader(Pictures(paths, transform), num_workers=workers)  # type: ignore[arg-type]


def read_picture(path: Path) -> Any:
    """A PIL image in RGB, of a DICOM file as tutorials do it: stretched between its smallest and largest value."""
    from PIL import Image

    if path.suffix != ".dcm":
        return Image.open(path).convert("RGB")
    import pydicom

    pixels = pydicom.dcmread(path).pixel_array.astype(np.float32)
    low, high = pixels.min(), pixels.max()
    grey = ((pixels - low) / max(high - low, 1) * 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def export_plain(model: Path, output: Path) -> None:
    """What `torch.onnx.export` makes of the network: crops [N, 3, 448, 448] to logits [N, 14]."""
    import torch

    example = torch.zeros(10, 3, 448, 448)
    names: dict[str, Any] = {"input_names": ["crops"], "output_names": ["logits"]}
    axes = {"crops": {0: "N"}, "logits": {0: "N"}}
    torch.onnx.export(load_network(model), (example,), output, **names, dynamic_axes=axes, dynamo=False)


def eager(model: Path, device: str) -> Peer:
    """PyTorch as it is."""
    network = load_network(model).to(device)
    return Peer(lambda crops: network(crops.to(device)))


def eager_bfloat16(model: Path, device: str) -> Peer:
    """PyTorch as it is, in bfloat16 where it takes that for safe."""
    return _in_bfloat16(load_network(model).to(device), device)


def compiled(model: Path, device: str) -> Peer:
    """PyTorch through its compiler."""
    import torch

    network = torch.compile(load_network(model).to(device))
    return Peer(lambda crops: network(crops.to(device)))


def compiled_bfloat16(model: Path, device: str) -> Peer:
    """PyTorch through its compiler, in bfloat16 where it takes that for safe."""
    import torch

    return _in_bfloat16(torch.compile(load_network(model).to(device)), device)


def _in_bfloat16(network: Any, device: str) -> Peer:
    import torch

    def logits(crops: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return network(crops.to(device)).float()

    return Peer(logits)


def plain_onnxruntime(plain: Path, device: str) -> Peer:
    """ONNX Runtime on what `export_plain` wrote."""
    import onnxruntime

    providers = ["CUDAExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(plain, providers=providers)
    if session.get_providers()[0] != providers[0]:  # it falls back to the CPU without an error
        raise SystemExit("ONNX Runtime did not take its CUDA provider; see above")
    return Peer(lambda crops: session.run(None, {"crops": crops.numpy()})[0])


def plain_openvino(plain: Path, device: str, precision: dict[str, str] | None = None) -> Peer:
    """OpenVINO on what `export_plain` wrote, in the precision that it chooses itself: bfloat16 on some processors."""
    import openvino

    properties = {"PERFORMANCE_HINT": "LATENCY", **(precision or {})}
    compiled_model = openvino.Core().compile_model(plain, device.upper(), properties)
    return Peer(lambda crops: compiled_model([crops.numpy()])[0])


def plain_openvino_float32(plain: Path, device: str) -> Peer:
    """OpenVINO on what `export_plain` wrote, in float32 like the others."""
    return plain_openvino(plain, device, {"INFERENCE_PRECISION_HINT": "f32"})


def plain_openvino_throughput(plain: Path, device: str) -> Peer:
    """The same in the precision that it chooses, made for throughput: the crops are divided among its requests."""
    import openvino

    compiled_model = openvino.Core().compile_model(plain, device.upper(), {"PERFORMANCE_HINT": "THROUGHPUT"})
    count = compiled_model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    requests = [compiled_model.create_infer_request() for _ in range(count)]

    def logits(crops: Any) -> Any:
        parts = [part for part in np.array_split(crops.numpy(), count) if len(part)]
        for request, part in zip(requests, parts, strict=False):
            request.start_async([part])
        for request in requests[: len(parts)]:
            request.wait()
        return np.concatenate([request.get_output_tensor(0).data for request in requests[: len(parts)]])

    return Peer(logits)


KINDS: dict[str, Callable[[Path, str], Contestant]] = {
    "bundle": lambda path, device: Bundle(path),
    "eager": eager,
    "eager-bfloat16": eager_bfloat16,
    "compile": compiled,
    "compile-bfloat16": compiled_bfloat16,
    "onnxruntime": plain_onnxruntime,
    "openvino": plain_openvino_float32,
    "openvino-default": plain_openvino,
    "openvino-throughput": plain_openvino_throughput,
}


def main() -> None:
    """Serve. Arguments: kind, file or bundle, device, decoding processes, picture (.npy), folder of files."""
    kind, path, device, workers, picture, folder = sys.argv[1:]
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    contestant = KINDS[kind](Path(path), device)
    prepared = contestant.prepare(np.load(picture))
    paths = sorted(Path(folder).iterdir())
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        start = time.perf_counter()
        answer: dict[str, Any] = {}
        if command == "alone":
            answer["probabilities"] = contestant.run(prepared).tolist()
        elif command == "files":
            contestant.files(paths, int(workers), Path(arguments[0]))
        answer["seconds"] = time.perf_counter() - start
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
