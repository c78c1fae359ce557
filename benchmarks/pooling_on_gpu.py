"""Microseconds and GB/s of max-min pooling on a GPU: the kernel, PyTorch, and TensorRT with and without the plugin.

Each run starts with maps that are not in the GPU's cache. GB/s counts each cell read once and each score written once,
for all of them but the copy, which reads and writes each cell: what the GPU's memory gives.
"""

import statistics
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import onnx
import torch
from gpu_kernel import GpuKernel, compile_for_gpu, pool_with_torch
from onnx import TensorProto, helper
from toolchain import arguments

from benchmarks.plugin_budget import floor_bytes
from benchmarks.study import Result
from cxr_trt.markdown import markdown_table

PACKAGES = ("torch", "tensorrt")
WAYS = {
    "kernel": "kernel",
    "pytorch": "PyTorch",
    "tensorrt plugin": "TensorRT with the plugin",
    "tensorrt operators": "TensorRT's own operators",
    "copy": "copy",
}
IMAGE_COUNTS = (1, 32, 256)
POOLING: dict[str, Any] = {"k_max": 1, "k_min": 1, "alpha": 0.7}
TIMED_RUNS = 100
FLUSH_BYTES = 512 << 20  # more than any GPU's cache
TEXT = """\
# The pooling on a GPU

**{headline}**

Microseconds of max-min pooling over the class maps of ten crops, on an {gpu}: medians of {runs} runs, each with maps
that are not in the GPU's cache. `copy` copies the maps, as a measure of what the memory gives: it writes as much as it
reads, the pooling next to nothing. The scores of each way were first compared with PyTorch's.

{rows}
{missing}
"""


@click.command()
def measure() -> Result:
    """Time each way of pooling."""
    if not torch.cuda.is_available():
        raise click.ClickException("PyTorch sees no NVIDIA GPU: nothing is measured")
    with tempfile.TemporaryDirectory() as folder:
        kernel = GpuKernel(compile_for_gpu(Path(folder), torch.cuda.get_device_capability()))
        measured = {
            f"{images} X-ray{'s' * (images > 1)}, {str(dtype).removeprefix('torch.')}": time_ways(
                kernel, images, dtype, TIMED_RUNS
            )
            for images in IMAGE_COUNTS
            for dtype in (torch.float32, torch.float16)
        }
    return {
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "runs": TIMED_RUNS,
        "measured": measured,
    }


def time_ways(kernel: GpuKernel, images: int, dtype: torch.dtype, runs: int) -> dict[str, Result]:
    """Each way's median, least and largest microseconds for the ten crops of so many X-rays."""
    maps = torch.randn(10 * images, 14, 14, 14, device="cuda").to(dtype)
    scores = torch.empty(10 * images, 1, 14, device="cuda")
    args = arguments(maps.shape, **POOLING)
    copy = torch.empty_like(maps)
    ways: dict[str, Callable[[], object] | str] = {
        "kernel": lambda: kernel.launch(maps, scores, args),
        "pytorch": lambda: pool_with_torch(maps.float(), **POOLING),
        "tensorrt plugin": tensorrt_engine(maps, scores, with_plugin=True),
        "tensorrt operators": tensorrt_engine(maps, scores, with_plugin=False),
        "copy": lambda: copy.copy_(maps),
    }
    expected = pool_with_torch(maps.float(), **POOLING)
    results: dict[str, Result] = {}
    for name, call in ways.items():
        if isinstance(call, str):
            results[name] = {"not_measured": call}
            continue
        if name not in ("pytorch", "copy"):
            scores.fill_(torch.nan)
            call()
            torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)
        moved = 2 * maps.nbytes if name == "copy" else floor_bytes(images, maps.element_size())
        micros = time_runs(call, runs)
        results[name] = {
            "microseconds": round(statistics.median(micros), 2),
            "least": round(min(micros), 2),
            "largest": round(max(micros), 2),
            "gigabytes_per_second": round(moved / statistics.median(micros) / 1e3, 1),
        }
    return results


def time_runs(call: Callable[[], object], runs: int) -> list[float]:
    """Microseconds of each run on the GPU's clock, the cache filled with something else before each."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    event: Any = torch.cuda.Event
    events = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(runs)]
    for _ in range(3):
        call()
    for start, end in events:
        flush.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [1000 * start.elapsed_time(end) for start, end in events]


def tensorrt_engine(maps: torch.Tensor, scores: torch.Tensor, *, with_plugin: bool) -> Callable[[], object] | str:
    """Runs an engine that is the pooling alone; or says why there is none."""
    try:
        trt: Any = import_module("tensorrt")
    except ImportError as error:
        return f"TensorRT cannot be imported: {error}"
    from cxr_trt.engine.gpu.tensorrt_config import network_flags
    from cxr_trt.engine.gpu.tensorrt_plugin import find_plugin, load_plugin
    from cxr_trt.export.pooling import without_body

    model = pooling_model(maps)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    plugin = find_plugin() if with_plugin else None
    if with_plugin:
        if plugin is None:
            return "the plugin is not built: make plugin"
        load_plugin(plugin, builder.get_plugin_registry())
        model = without_body(model)
    else:
        model = onnx.inliner.inline_local_functions(model)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        raise RuntimeError(parser.get_error(0).desc())
    config = builder.create_builder_config()
    if plugin:
        config.plugins_to_serialize = [str(plugin.path)]
    plan = builder.build_serialized_network(network, config)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    context.set_tensor_address("maps", maps.data_ptr())
    context.set_tensor_address("scores", scores.data_ptr())

    def run(_alive: object = (runtime, engine)) -> None:
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT did not run the engine")

    return run


def pooling_model(maps: torch.Tensor) -> onnx.ModelProto:
    """The pooling of maps of this shape and type, with its body."""
    from cxr_trt.export.builder import IR_VERSION, OPSET
    from cxr_trt.export.pooling import POOLING_DOMAIN, POOLING_DOMAIN_VERSION, POOLING_OPERATOR, max_min_pool_function

    element = TensorProto.FLOAT16 if maps.dtype == torch.float16 else TensorProto.FLOAT
    node = helper.make_node(POOLING_OPERATOR, ["maps"], ["scores"], domain=POOLING_DOMAIN, **POOLING)
    shapes = list(maps.shape), [maps.shape[0], 1, maps.shape[1]]
    graph = helper.make_graph(
        [node],
        "pooling",
        [helper.make_tensor_value_info("maps", element, shapes[0])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shapes[1])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(POOLING_DOMAIN, POOLING_DOMAIN_VERSION)]
    return helper.make_model(
        graph, functions=[max_min_pool_function(OPSET)], opset_imports=opsets, ir_version=IR_VERSION
    )


def page(result: Result) -> str:
    """The page of a result."""
    measured: dict[str, Result] = result["measured"]
    ways = [way for way in WAYS if all("microseconds" in own[way] for own in measured.values())]
    rows = [
        (
            case,
            *(str(own[way]["microseconds"]) for way in ways),
            f"{times_faster(own):.1f}",
            f"{own['kernel']['gigabytes_per_second']:.0f}",
        )
        for case, own in measured.items()
    ]
    missing = [way for way in WAYS if way not in ways]
    reasons = {own[way]["not_measured"] for own in measured.values() for way in missing}
    times = [times_faster(own) for own in measured.values()]
    columns = ("", *(WAYS[way] for way in ways), "times faster than PyTorch", "GB/s of the kernel")
    return TEXT.format(
        headline=f"The kernel is {min(times):.0f} to {max(times):.0f} times as fast as PyTorch.",
        gpu=result["gpu"],
        runs=result["runs"],
        rows=markdown_table(columns, rows),
        missing=f"\nNot measured: {', '.join(WAYS[way] for way in missing)} ({'; '.join(reasons)})." if missing else "",
    )


def times_faster(own: Result) -> float:
    """How many times faster the kernel is than PyTorch."""
    return float(own["pytorch"]["microseconds"] / own["kernel"]["microseconds"])
