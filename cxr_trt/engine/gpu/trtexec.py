"""The command by which NVIDIA's trtexec builds an engine as `cxr_trt.engine.gpu.tensorrt` does.

Options as in samples/common/sampleOptions.cpp of NVIDIA/TensorRT 11; TensorRT 10 has the same.
"""

import shlex
from pathlib import Path

import onnx

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.gpu.tensorrt_config import profile_batches
from cxr_trt.engine.gpu.tensorrt_plugin import Plugin

COMPATIBILITY_LEVELS = {"same-capability": "sameComputeCapability", "ampere": "ampere+"}


def trtexec_command(file: Path, graph: onnx.ModelProto, options: BuildOptions, plugin: Plugin | None) -> str:
    """The command for a shell. It builds, writes the engine beside the graph, and times it.

    Args:
        file: the graph, as `tensorrt_config.parsed_graph` makes it; its types decide the precision.
        graph: the same graph, for its input.
        options: the options of the build.
        plugin: the pooling plugin, if the graph has a node of it.
    """
    command = ["trtexec", f"--onnx={file}", f"--saveEngine={file.with_suffix('.plan')}", "--stronglyTyped"]
    (images,) = graph.graph.input
    _, *size = (dim.dim_value for dim in images.type.tensor_type.shape.dim)
    batches = profile_batches(options)
    for number, batch in enumerate(batches):
        if len(batches) > 1:
            command.append(f"--profile={number}")
        shapes = {"min": 1, "opt": batch, "max": batch}
        command += [f"--{name}Shapes={images.name}:{'x'.join(map(str, (n, *size)))}" for name, n in shapes.items()]
    command.append("--profilingVerbosity=detailed")
    if not options.tf32:
        command.append("--noTF32")
    if options.fast_build:
        command.append("--builderOptimizationLevel=0")
    if options.memory_limit:
        command.append(f"--memPoolSize=workspace:{options.memory_limit >> 20}")
    if options.compatible:
        command.append(f"--hardwareCompatibilityLevel={COMPATIBILITY_LEVELS[options.compatible]}")
    if options.version_compatible:
        command.append("--versionCompatible")
    if plugin:
        command.append(f"--dynamicPlugins={plugin.path}")
    return shlex.join(command)
