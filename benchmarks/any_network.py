"""How fast other projects' networks run as engines of this one, beside what runs them otherwise."""

import json
import statistics
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.study import ROOT, Result, cxr14_option
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.pictures import check_pictures
from cxr_trt.findings import FINDINGS
from cxr_trt.markdown import markdown_table

PACKAGES = ("numpy", "onnxruntime", "openvino", "timm", "torch")
NETWORKS = ("densenet121", "convnext_tiny")  # names in timm; random weights, which take the same time
SIZE = 224  # pixels
RUNS = 5  # in a round, of each
PEERS = {
    "PyTorch eager": ("eager", "fp32"),
    "ONNX Runtime, plain export": ("onnxruntime", "fp32"),
    "OpenVINO, plain export, float32": ("openvino-float32", "fp32"),
    "OpenVINO, plain export, own precision": ("openvino", "own"),
}
TEXT = """\
# Other projects' networks

**{headline}**

timm's networks for {size} x {size} pixels and {findings} findings, with random weights: milliseconds for one X-ray that
is already resized, medians of {rounds} rounds of {runs} in which all take turns, each in a process of its own. Ours
include the normalisation and what surrounds the network.

{rows}

- **plain export**: what PyTorch's own exporter writes, opened with the runtime's defaults. OpenVINO takes bfloat16 by
  itself on processors that have it.
- **cxr-trt**: `export --timm`, then `build-engine`, which tunes; int8 is calibrated on {calibration} X-rays.
"""


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=20, help="In which all take turns.")
@click.option("--calibration-images", type=click.IntRange(16), default=32, help="For int8.")
@cxr14_option
def measure(rounds: int, calibration_images: int, data: Path) -> Result:
    """Export each network, build it in every precision, and time all."""
    networks = {}
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            networks[name] = _contest(name, Path(folder), rounds, calibration_images, data / "images")
    return {
        "networks": networks,
        "rounds": rounds,
        "calibration_images": calibration_images,
        "findings": len(FINDINGS),
    }


def _contest(name: str, folder: Path, rounds: int, calibration_images: int, images: Path) -> Result:
    """Median seconds by contestant."""
    weights, plain = _write_network(name, folder)
    np.save(folder / "picture.npy", check_pictures(SIZE)[0, 0])
    commands = {
        peer: [kind, str(weights if kind == "eager" else plain), str(folder / "picture.npy"), name, str(len(FINDINGS))]
        for peer, (kind, _) in PEERS.items()
    }
    for engine, (backend, precision) in our_engines().items():
        bundle = folder / f"{backend}-{precision}.cxr"
        calibrated = next(folder.glob("*-int8.cxr"), None) if precision == "int8" else None
        options: list[Any] = ["-o", bundle, "--backend", backend, "--precision", precision]
        if precision == "int8" and calibrated is None:
            options += ["--calibrate", images, "--calibration-images", calibration_images]
        _cxr_trt("build-engine", calibrated or folder / "model.onnx", *options)
        commands[engine] = ["bundle", str(bundle), str(folder / "picture.npy")]
    seconds: dict[str, list[float]] = {contestant: [] for contestant in commands}
    with ExitStack() as stack:
        processes = {key: stack.enter_context(_started(command)) for key, command in commands.items()}
        for process in processes.values():
            _answer(process)
        order = np.random.default_rng(0)  # or each would always follow the same other one
        for _ in range(rounds):
            for contestant in order.permutation(list(processes)):
                seconds[contestant].append(statistics.median(_asked(processes[contestant], RUNS)))
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
    return {contestant: statistics.median(values) for contestant, values in seconds.items()}


def our_engines() -> dict[str, tuple[str, str]]:
    """Backend and precision of the engines of this project, by name: all that a CPU is faster with."""
    return {
        f"cxr-trt {name}, {precision}": (name, precision)
        for name in ("openvino", "onnxruntime")
        for precision in BACKENDS[name].precisions
        if precision != "fp16"
    }


def _write_network(name: str, folder: Path) -> tuple[Path, Path]:
    """The network's state dict, PyTorch's own export of it, and its scoring graph, model.onnx."""
    import timm
    import torch

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=len(FINDINGS)).eval()
    torch.save(network.state_dict(), folder / "weights.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, SIZE, SIZE),),
            folder / "plain.onnx",
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            external_data=False,
            verbose=False,
        )
    card = f"findings = {json.dumps(FINDINGS)}\nimage_size = {SIZE}\nmean = {[0.5] * 3}\nstd = {[0.25] * 3}\n"
    (folder / "card.toml").write_text(card)
    _cxr_trt(
        *("export", folder / "weights.pt", "--timm", name, "--card", folder / "card.toml", "-o", folder / "model.onnx")
    )
    return folder / "weights.pt", folder / "plain.onnx"


def _cxr_trt(*arguments: Any) -> None:
    subprocess.run([sys.executable, "-m", "cxr_trt", *map(str, arguments)], check=True, cwd=ROOT)


def _started(arguments: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.tools.network_contestants", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _asked(process: "subprocess.Popen[str]", runs: int) -> list[float]:
    assert process.stdin is not None
    process.stdin.write(f"{runs}\n")
    process.stdin.flush()
    seconds: list[float] = _answer(process)
    return seconds


def _answer(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise click.ClickException("a contestant ended; see above")
    return json.loads(line)


def problems(result: Result) -> list[str]:
    """Where an engine is slower than the fastest of the others in its precision, by more than noise."""
    found = []
    for network, seconds in result["networks"].items():
        for name, fastest, peer in _comparisons(seconds):
            if fastest > 1.05:
                found.append(f"{network}: {name} takes {fastest:.2f} times as long as {peer}")
    return found


def _comparisons(seconds: dict[str, float]) -> list[tuple[str, float, str]]:
    """For each precision our fastest engine, its time relative to the fastest peer's, and that peer."""
    ours = {name: value for name, value in seconds.items() if name not in PEERS}
    found = []
    for precision in ("fp32", "bf16", "int8"):
        own = {name: value for name, value in ours.items() if name.endswith(precision)}
        if not own:
            continue
        kinds = ("fp32",) if precision == "fp32" else ("fp32", "own")
        peers = {name: seconds[name] for name, (_, kind) in PEERS.items() if kind in kinds}
        best, peer = min(own, key=own.__getitem__), min(peers, key=peers.__getitem__)
        found.append((best, own[best] / peers[peer], peer))
    return found


def page(result: Result) -> str:
    """The page of a result."""
    networks: dict[str, dict[str, float]] = result["networks"]
    names = list(next(iter(networks.values())))
    rows = [(name, *(f"{1000 * seconds[name]:.1f}" for seconds in networks.values())) for name in names]
    told = [
        f"{network}: {name} takes {ratio:.2f} of the time of {peer}"
        for network, seconds in networks.items()
        for name, ratio, peer in _comparisons(seconds)
    ]
    return TEXT.format(
        headline=f"{'; '.join(told)}.",
        size=SIZE,
        runs=RUNS,
        rows=markdown_table(("", *(f"`{network}`" for network in networks)), rows),
        calibration=result["calibration_images"],
        **{key: result[key] for key in ("rounds", "findings")},
    )
