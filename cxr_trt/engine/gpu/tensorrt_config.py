"""What TensorRT is told when it builds an engine: the graph, the options, and the sizes of batches.

`cxr_trt.engine.gpu.trtexec` says the same to NVIDIA's program.
"""

from typing import Any

import onnx
import onnx.inliner

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.gpu.pipeline import INPUT
from cxr_trt.errors import BackendError
from cxr_trt.export.pooling import takes_extrema, with_extrema, without_body

COMPATIBILITY_LEVELS = {"same-capability": "SAME_COMPUTE_CAPABILITY", "ampere": "AMPERE_PLUS"}


def parsed_graph(graph: onnx.ModelProto, *, plugin: bool) -> onnx.ModelProto:
    """The graph that the parser gets: with the pooling as a node of the plugin, or in standard operators."""
    if plugin:
        graph = without_body(graph)
    elif takes_extrema(graph):
        graph = with_extrema(graph)
    return onnx.inliner.inline_local_functions(graph)


def network_flags(trt: Any) -> int:
    """Strongly typed: the graph's casts decide every precision. TensorRT 11 is always so, and has no flag for it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def configure(trt: Any, config: Any, options: BuildOptions) -> None:
    """Tell a builder's configuration what the options say, and what graph capture and layer reports need."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.fast_build:
        config.builder_optimization_level = 0
    if options.compatible:
        level = getattr(trt.HardwareCompatibilityLevel, COMPATIBILITY_LEVELS[options.compatible], None)
        if level is None:
            raise BackendError(f"{options.compatible} engines need TensorRT 10.9 or newer: use --compatible ampere")
        config.hardware_compatibility_level = level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:  # TensorRT's default is TF32, but float32 must really mean float32
        config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # TensorRT-RTX: otherwise graphs cannot be captured
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


def profile_batches(options: BuildOptions) -> list[int]:
    """The largest batch of each optimization profile: the first is for all sizes, the second for single images."""
    return [options.max_batch] + [1] * (options.single_xrays and options.max_batch > 1)


def batch_profile(builder: Any, network: Any, max_batch: int) -> Any:
    """An optimization profile for 1 to `max_batch` images, tuned for `max_batch`."""
    shapes = {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}
    if set(shapes) != {INPUT}:
        found = ", ".join(shapes) or "none"
        raise BackendError(f"a scoring graph has one input, `{INPUT}`, but this graph has {found}")
    _, *image = shapes[INPUT]
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, (1, *image), (max_batch, *image), (max_batch, *image))
    return profile
