"""The contestants of the study of other networks, each in a process of its own: one picture, the network alone.

Each line on standard input is a number of runs; the answer on standard output is a JSON list of their seconds.

python -m benchmarks.tools.network_contestants KIND FILE PICTURE [NAME OUTPUTS]
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MEAN, STD = 0.5, 0.25  # of all channels, as on the study's card
CHANNELS = 3

Floats = npt.NDArray[np.float32]


def crop_of(picture: npt.NDArray[np.uint8]) -> Floats:
    """What a network gets of a picture, uint8 [h, w]: float32 [1, 3, h, w]."""
    grey = (picture.astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(np.broadcast_to(grey, (1, CHANNELS, *picture.shape)).astype(np.float32))


def bundle(path: Path, picture: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    """An engine of this project, from the picture's bytes to probabilities."""
    from cxr_trt.score.engine import Engine

    engine = Engine(path)
    return lambda: engine.run(picture[None]).probabilities


def eager(path: Path, picture: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    """PyTorch as it is, float32."""
    import timm
    import torch

    name, outputs = sys.argv[4:6]
    network = timm.create_model(name, num_classes=int(outputs))
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    crops = torch.from_numpy(crop_of(picture))

    def run() -> Any:
        with torch.inference_mode():
            return torch.sigmoid(network(crops)).numpy()

    return run


def onnxruntime(path: Path, picture: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    """ONNX Runtime on PyTorch's own export, with its defaults."""
    import onnxruntime as runtime

    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: crop_of(picture)}
    return lambda: session.run(None, feed)


def openvino(path: Path, picture: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    """OpenVINO on PyTorch's own export, in the precision that it chooses: bfloat16 on processors that have it."""
    return _openvino(path, picture, {})


def openvino_float32(path: Path, picture: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    """The same in float32."""
    return _openvino(path, picture, {"INFERENCE_PRECISION_HINT": "f32"})


def _openvino(path: Path, picture: npt.NDArray[np.uint8], precision: dict[str, str]) -> Callable[[], Any]:
    import openvino as runtime

    core = runtime.Core()
    model = core.read_model(path)
    crops = crop_of(picture)
    model.reshape(crops.shape)
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **precision})
    return lambda: compiled(crops)


KINDS = {
    "bundle": bundle,
    "eager": eager,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "openvino-float32": openvino_float32,
}


def main() -> None:
    """Serve until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    run = KINDS[sys.argv[1]](Path(sys.argv[2]), np.load(sys.argv[3]))
    run()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), file=answers, flush=True)


if __name__ == "__main__":
    main()
