"""The scoring graph: an ONNX model with its metadata. Files may come from anywhere, so they are checked when loaded."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from cxr_trt.errors import GraphError
from cxr_trt.export.external_data import external_tensors
from cxr_trt.export.graph_building import build_graph
from cxr_trt.export.network_graph import FLOAT32_PART, NetworkGraph, build_network_graph, find_network_graph
from cxr_trt.export.network_graph import PREFIX as NETWORK_PREFIX
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.session import first_line
from cxr_trt.export.storage import unpack
from cxr_trt.model.settings import CAUTIONS, ModelSettings, WeightsKind
from cxr_trt.spec import Pooling, Specification
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

    model: input `images` uint8 [N, 1, height, width]; outputs `probabilities` float32 [N, findings] and, except in
    old files and for networks without class maps, `class_maps` float32 [N, findings, h, w] over
    `Specification.class_map_region`.
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
    def around(cls, network: NetworkGraph, info: GraphInfo, class_maps: bool = True) -> "ScoringGraph":
        """Build the graph around a network of any kind.

        Args:
            network: the network.
            info: specification and metadata.
            class_maps: whether the graph has the output `class_maps`, if the network has maps.
        """
        with_maps = class_maps and info.spec.maps != "none"
        return cls(build_network_graph(network, info.spec, info.to_metadata(), class_maps=with_maps), info)

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
            raise GraphError(f"{path}: not a valid ONNX model ({first_line(error)}); {REMEDY}") from error
        info = _info(model, path)
        _check_tensors(model, info.spec, path)
        try:
            unpack(model)
        except (TypeError, ValueError) as error:
            raise GraphError(f"{path}: its stored weights are damaged ({first_line(error)}); {REMEDY}") from error
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
    def one_by_one(self) -> bool:
        """Whether it scores one image at a time, because its network was written for a batch of one."""
        return bool(self.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1)

    @cached_property
    def network_graph(self) -> NetworkGraph | None:
        """The network, if it is of another kind than `network`; None for one that this project builds itself."""
        return find_network_graph(self.model)

    @property
    def keeps_float32(self) -> bool:
        """Whether a part of the network must be float32 in every precision, such as one that finds a box."""
        return any(f".{FLOAT32_PART}." in node.name for node in self.model.graph.node)

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
            **(self.spec.pooling or Pooling())._asdict(),
            channels=len(self.spec.mean),
        )
        return weights, settings

    @property
    def weights_sha256(self) -> str:
        """Hash of the network's weights with their names. It does not depend on their order or on the views."""
        digest = hashlib.sha256()
        for tensor in sorted(self.model.graph.initializer, key=lambda tensor: tensor.name):
            is_float32 = tensor.data_type == TensorProto.FLOAT and tensor.name.startswith(("features.", "transfer."))
            if not is_float32 and not tensor.name.startswith(NETWORK_PREFIX):
                continue
            digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)} ".encode())
            digest.update(numpy_helper.to_array(tensor).tobytes())
        return digest.hexdigest()

    def with_views(self, view_set: ViewSet) -> "ScoringGraph":
        """The same network with another view set, or with the same one.

        Raises:
            GraphError: it holds another network, or its sizes do not allow these views.
        """
        if not self.holds_network and self.network_graph is None:
            raise GraphError("the graph holds a network of another kind, whose views are fixed; leave out --views")
        info = replace(self.info, spec=replace(self.spec, views=view_set))
        if info.spec.repeats_itself:
            raise GraphError("the graph scores whole images, so all crops would be equal; leave out --views")
        if self.network_graph is not None:
            return ScoringGraph.around(self.network_graph, info, self.has_class_maps)
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
        raise GraphError(f"{path}: not a valid ONNX model ({first_line(error)}); {REMEDY}") from error
    if any(external_tensors(model)):
        raise GraphError(f"{path}: keeps its weights in other files; {REMEDY}")
    return model


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
        raise GraphError(
            f"{path}: is an ONNX model, but not a scoring graph of cxr-trt; make one with `cxr-trt export {path.name} "
            "--card CARD.toml -o model.onnx`"
        ) from error
    if hashlib.sha256(text.encode()).hexdigest() != stated:
        raise GraphError(f"{path}: its specification was changed after the export; {REMEDY}")
    return info


def _check_tensors(model: onnx.ModelProto, spec: Specification, path: Path) -> None:
    def signature(value: onnx.ValueInfoProto) -> tuple[Any, ...]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, *(d.dim_value or d.dim_param for d in tensor.shape.dim)

    inputs = [signature(value) for value in model.graph.input]
    outputs = [signature(value) for value in model.graph.output]
    fitting = [
        inputs == [("images", TensorProto.UINT8, batch, 1, *spec.image_size)]
        and ("probabilities", TensorProto.FLOAT, batch, len(spec.findings)) in outputs
        for batch in ("N", 1)
    ]
    maps = [shape[2] for name, *shape in outputs if name == CLASS_MAPS and len(shape) == 5]
    if maps != [len(spec.findings)] * (CLASS_MAPS in [output[0] for output in outputs]):
        raise GraphError(f"{path}: its class maps are not one per finding; {REMEDY}")
    if not any(fitting):
        raise GraphError(f"{path}: its inputs and outputs are not those of a scoring graph; {REMEDY}")
