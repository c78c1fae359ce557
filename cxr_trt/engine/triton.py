"""An engine in a model repository of NVIDIA's Triton Inference Server: its file, and the config.pbtxt about it.

A configuration says again what the engine's graph says: names, types and dimensions. They are compared before anything
is written. The server sees images as `Engine.preprocess` makes them; files are decoded by its clients.
"""

import re
from pathlib import Path

import onnx.inliner
from onnx import TensorProto

from cxr_trt.engine.manifest import GRAPH_FILE, Manifest
from cxr_trt.errors import GraphError, UsageError
from cxr_trt.export.scoring_graph import ScoringGraph

SERVED = {  # Triton's backend, the engine's file and what Triton expects it to be called, by backend
    "tensorrt": ("tensorrt", "engine.plan", "model.plan"),
    "cuda": ("onnxruntime", "engine.onnx", "model.onnx"),
    "onnxruntime": ("onnxruntime", "engine.onnx", "model.onnx"),
}
TYPES = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}
QUEUE_MICROSECONDS = 5_000  # that a request waits for others, so that a batch is full
CONFIGURATION = """\
name: "{name}"
backend: "{backend}"
max_batch_size: {max_batch}
default_model_filename: "{file}"
{tensors}
instance_group {{ count: 1 kind: {kind} }}
dynamic_batching {{ preferred_batch_size: [{max_batch}] max_queue_delay_microseconds: {delay} }}
parameters {{ key: "cxr_trt.fingerprint" value {{ string_value: "{fingerprint}" }} }}
"""
TENSOR = '{kind} {{ name: "{name}" data_type: {type} dims: [{dims}] }}'
TENSOR_PATTERN = re.compile(r'^(input|output) \{ name: "(\w+)" data_type: (\w+) dims: \[([\d, ]+)\] \}$', re.MULTILINE)

Tensor = tuple[str, str, str, tuple[int, ...]]  # input or output, name, type, dimensions of one image


def write_repository(bundle: Path, manifest: Manifest, repository: Path, name: str) -> None:
    """Write the folder `name` of a repository, which must not exist.

    Raises:
        UsageError: Triton has no backend that runs the engine as it is, or the folder cannot be written.
        GraphError: see `check_configuration`.
    """
    if manifest.backend not in SERVED:
        raise UsageError(
            f"{bundle}: Triton does not run engines of {manifest.backend} as they were checked here; "
            f"build one with --backend {', '.join(list(SERVED)[:-1])} or {list(SERVED)[-1]}"
        )
    graph = ScoringGraph.load(bundle / GRAPH_FILE)
    text = configuration(manifest, graph, name)
    check_configuration(text, manifest, graph)
    _, engine_file, served_file = SERVED[manifest.backend]
    folder = repository / name
    try:
        (folder / "1").mkdir(parents=True)
        content = (bundle / engine_file).read_bytes()
        if served_file.endswith(".onnx"):  # whatever ONNX Runtime is in the server, it need not know local functions
            content = onnx.inliner.inline_local_functions(onnx.load_from_string(content)).SerializeToString()
        (folder / "1" / served_file).write_bytes(content)
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); choose another -o or --name") from error


def configuration(manifest: Manifest, graph: ScoringGraph, name: str) -> str:
    """The text of config.pbtxt."""
    backend, _, file = SERVED[manifest.backend]
    tensors = [
        TENSOR.format(kind=kind, name=tensor, type=type_, dims=", ".join(map(str, dims)))
        for kind, tensor, type_, dims in _tensors(graph)
    ]
    return CONFIGURATION.format(
        name=name,
        backend=backend,
        max_batch=manifest.settings["max_batch"],
        file=file,
        tensors="\n".join(tensors),
        kind="KIND_CPU" if manifest.backend == "onnxruntime" else "KIND_GPU",
        delay=QUEUE_MICROSECONDS,
        fingerprint=manifest.fingerprint,
    )


def check_configuration(text: str, manifest: Manifest, graph: ScoringGraph) -> None:
    """Raise GraphError unless a configuration that `configuration` wrote says what graph and manifest say."""
    matches = TENSOR_PATTERN.findall(text)
    found: list[Tensor] = [(kind, name, type_, tuple(map(int, dims.split(",")))) for kind, name, type_, dims in matches]
    if found != _tensors(graph):
        raise GraphError(f"the configuration has the tensors {found}, but the graph has {_tensors(graph)}")
    spec = manifest.graph.spec
    dims = {name: dims for _, name, _, dims in found}
    if dims["images"] != (1, *spec.image_size) or dims["probabilities"] != (len(spec.findings),):
        raise GraphError(f"the configuration has the dimensions {dims}, which are not those of the specification")


def _tensors(graph: ScoringGraph) -> list[Tensor]:
    """Inputs and outputs of a scoring graph, without the dimension of the batch."""
    values = [("input", value) for value in graph.model.graph.input]
    values += [("output", value) for value in graph.model.graph.output]
    return [
        (
            kind,
            value.name,
            TYPES[value.type.tensor_type.elem_type],
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]),
        )
        for kind, value in values
    ]
