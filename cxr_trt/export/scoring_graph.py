"""The scoring graph: an ONNX model with its metadata. Files may come from anywhere, so they are checked when loaded."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, numpy_helper

from cxr_trt.errors import GraphError
from cxr_trt.export.graph_building import build_graph
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.storage import unpack
from cxr_trt.model.settings import CAUTIONS, ModelSettings, WeightsKind
from cxr_trt.spec import Specification
from cxr_trt.views import ViewSet

METADATA_PREFIX = "cxr_trt."
MAX_BYTES = (1 << 31) - 1  # the largest size of a serialised protocol buffer
REMEDY = "make one with `cxr-trt export CHECKPOINT -o model.onnx`"
CLASS_MAPS = "class_maps"


@dataclass(frozen=True)
class GraphInfo:
    """The metadata of a scoring graph. `weights` is the kind of its weights."""

    spec: Specification
    weights: WeightsKind
    checkpoint_sha256: str
    cxr_trt_version: str

    @classmethod
    def of_this_version(cls, spec: Specification, weights: WeightsKind, checkpoint_sha256: str) -> "GraphInfo":
        """The metadata of a graph that this version of cxr-trt makes."""
        return cls(spec, weights, checkpoint_sha256, version("cxr-trt"))

    def caution(self) -> str:
        """A warning about the weights in parentheses, to append to a sentence; empty for trained weights."""
        return "".join(f" ({caution})" for caution in CAUTIONS[self.weights])

    def to_metadata(self) -> dict[str, str]:
        return {
            f"{METADATA_PREFIX}specification": self.spec.to_json(),
            f"{METADATA_PREFIX}specification_sha256": self.spec.sha256,
            f"{METADATA_PREFIX}weights": self.weights,
            f"{METADATA_PREFIX}checkpoint_sha256": self.checkpoint_sha256,
            f"{METADATA_PREFIX}version": self.cxr_trt_version,
        }


@dataclass(frozen=True, eq=False)
class ScoringGraph:
    """One ONNX model from uint8 images to probabilities and class maps, as `cxr-trt export` writes it.

    model: input `images` uint8 [N, 1, size, size]; outputs `probabilities` float32 [N, 14] and, except in old files,
    `class_maps` float32 [N, 14, h, w] over `Specification.class_map_region`.
    info: its metadata.
    """

    model: onnx.ModelProto
    info: GraphInfo

    @classmethod
    def from_network(
        cls, weights: Mapping[str, npt.NDArray[Any]], settings: ModelSettings, info: GraphInfo, class_maps: bool = True
    ) -> "ScoringGraph":
        """Build the graph of a network.

        Args:
            weights: the state dict of `cxr_trt.model.network.Network`, as NumPy arrays.
            settings: the settings of that network.
            info: specification and metadata.
            class_maps: whether the graph has the output `class_maps`.
        """
        return cls(build_graph(weights, settings, info.spec, info.to_metadata(), class_maps=class_maps), info)

    @classmethod
    def load(cls, path: Path) -> "ScoringGraph":
        """Read and check a scoring graph. Weights that `cxr_trt.export.storage` packed become float32 again.

        Raises:
            GraphError: not an ONNX model, not made by `cxr-trt export`, changed since, or has weights in other files.
        """
        model = load_self_contained(path)
        try:
            onnx.checker.check_model(model)
        except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
            raise GraphError(f"{path}: not a valid ONNX model ({_first_line(error)}); {REMEDY}") from error
        info = _info(model, path)
        _check_tensors(model, info.spec, path)
        try:
            unpack(model)
        except (TypeError, ValueError) as error:
            raise GraphError(f"{path}: its stored weights are damaged ({_first_line(error)}); {REMEDY}") from error
        return cls(model, info)

    def save(self, path: Path) -> None:
        onnx.save(self.model, path, format="protobuf")

    @property
    def spec(self) -> Specification:
        return self.info.spec

    @property
    def has_class_maps(self) -> bool:
        return CLASS_MAPS in [output.name for output in self.model.graph.output]

    @property
    def holds_network(self) -> bool:
        """Whether the weights are those of this project's network, without rewrites: `network` can only read those."""
        return any(tensor.name == "features.conv0.weight" for tensor in self.model.graph.initializer)

    def network(self) -> tuple[dict[str, npt.NDArray[Any]], ModelSettings]:
        """The state dict and the settings of the network that the graph was built from."""
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        settings = ModelSettings(
            squeeze_excitation=any(".se." in name for name in weights),
            maps_per_finding=len(weights["transfer.conv.bias"]) // len(self.spec.findings),
            k_max=self.spec.k_max,
            k_min=self.spec.k_min,
            alpha=self.spec.alpha,
            channels=len(self.spec.mean),
        )
        return weights, settings

    @property
    def weights_sha256(self) -> str:
        """Hash of the network's weights with their names. It does not depend on their order or on the views."""
        digest = hashlib.sha256()
        for tensor in sorted(self.model.graph.initializer, key=lambda tensor: tensor.name):
            if tensor.data_type != TensorProto.FLOAT or not tensor.name.startswith(("features.", "transfer.")):
                continue
            digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)} ".encode())
            digest.update(numpy_helper.to_array(tensor).tobytes())
        return digest.hexdigest()

    def with_views(self, view_set: ViewSet) -> "ScoringGraph":
        """The same network with another view set, or with the same one.

        Raises:
            GraphError: it holds another network, or its sizes do not allow these views.
        """
        if not self.holds_network:
            raise GraphError("the graph holds a network of another kind, whose views are fixed; leave out --views")
        info = replace(self.info, spec=replace(self.spec, views=view_set))
        if info.spec.repeats_itself:
            raise GraphError("the graph scores whole images, so all crops would be equal; leave out --views")
        return ScoringGraph.from_network(*self.network(), info, self.has_class_maps)

    def rewritten(self, rewrites: Rewrites) -> onnx.ModelProto:
        """The model, built again from its weights with rewrites; a model with another network is returned as it is.

        Inputs, outputs and metadata stay the same, and the results differ only by rounding.
        """
        if not self.holds_network:
            return self.model
        metadata = {prop.key: prop.value for prop in self.model.metadata_props}
        return build_graph(*self.network(), self.spec, metadata, class_maps=self.has_class_maps, rewrites=rewrites)


def load_self_contained(path: Path) -> onnx.ModelProto:
    """Read an ONNX model that consists of this file alone, without following any path that the file names.

    Raises:
        GraphError: it is damaged, larger than a protocol buffer can be, or has tensors in other files.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise GraphError(f"{path}: has {size / 2**30:.1f} GiB, but an ONNX file has at most 2 GiB; {REMEDY}")
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise GraphError(f"{path}: not a valid ONNX model ({_first_line(error)}); {REMEDY}") from error
    if _refers_elsewhere(model):
        raise GraphError(f"{path}: keeps its weights in other files; {REMEDY}")
    return model


def _refers_elsewhere(message: Message) -> bool:
    """Whether any tensor, even one in an attribute of a function's node, is stored in another file."""
    if isinstance(message, TensorProto):
        return message.data_location == TensorProto.EXTERNAL or len(message.external_data) > 0
    for field, value in message.ListFields():
        if field.message_type and any(map(_refers_elsewhere, value if field.is_repeated else [value])):
            return True
    return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _info(model: onnx.ModelProto, path: Path) -> GraphInfo:
    try:  # text that is not UTF-8 arrives as bytes
        metadata = {prop.key.removeprefix(METADATA_PREFIX): prop.value for prop in model.metadata_props}
        text = metadata["specification"]
        spec = Specification.from_mapping(json.loads(text))
        info = GraphInfo(
            spec, cast(WeightsKind, metadata["weights"]), metadata["checkpoint_sha256"], metadata["version"]
        )
        if info.weights not in CAUTIONS:
            raise ValueError("its kind of weights is unknown")
        stated = metadata["specification_sha256"]
    except GraphError as error:
        raise GraphError(f"{path}: {error}; {REMEDY}") from error
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise GraphError(f"{path}: is an ONNX model, but not a scoring graph of cxr-trt; {REMEDY}") from error
    if hashlib.sha256(text.encode()).hexdigest() != stated:
        raise GraphError(f"{path}: its specification was changed after the export; {REMEDY}")
    return info


def _check_tensors(model: onnx.ModelProto, spec: Specification, path: Path) -> None:
    def signature(value: onnx.ValueInfoProto) -> tuple[Any, ...]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, *(d.dim_value or d.dim_param for d in tensor.shape.dim)

    inputs = [signature(value) for value in model.graph.input]
    outputs = [signature(value) for value in model.graph.output]
    if inputs != [("images", TensorProto.UINT8, "N", 1, spec.image_size, spec.image_size)] or (
        ("probabilities", TensorProto.FLOAT, "N", len(spec.findings)) not in outputs
    ):
        raise GraphError(f"{path}: its inputs and outputs are not those of a scoring graph; {REMEDY}")
