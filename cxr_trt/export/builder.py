"""A small builder of ONNX graphs, whose nodes are named after the layers that they come from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET = 19  # the first that can quantize float16; TensorRT 10.3, the oldest supported version, reads up to 20
IR_VERSION = 9


class GraphBuilder:
    """Collects nodes and weights. Each method appends one node and returns the name of its output tensor."""

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self.weights = weights
        self._scope = ""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of all nodes in the block with `name` and a dot: for layers that run more than once."""
        self._scope = f"{name}."
        yield
        self._scope = ""

    def node(self, operator: str, inputs: Sequence[str], name: str, domain: str = "", **attributes: Any) -> str:
        name = self._scope + name
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """A tensor that is not one of the network's weights, such as a shape."""
        array = np.ascontiguousarray(np.asarray(values, dtype))
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, key: str) -> str:
        """One of the network's weights, by its key in the state dict."""
        return self.constant(key, self.weights[key], self.weights[key].dtype)

    def conv(self, x: str, layer: str, stride: int = 1, padding: int = 0) -> str:
        inputs = [x, self.weight(f"{layer}.weight")]
        if f"{layer}.bias" in self.weights:
            inputs.append(self.weight(f"{layer}.bias"))
        kernel = list(self.weights[f"{layer}.weight"].shape[2:])
        return self.node(
            "Conv",
            inputs,
            layer,
            kernel_shape=kernel,
            strides=[stride, stride],
            pads=[padding] * 4,
            dilations=[1, 1],
        )

    def batch_norm(self, x: str, layer: str, epsilon: float) -> str:
        keys = (f"{layer}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))
        return self.node("BatchNormalization", [x, *map(self.weight, keys)], layer, epsilon=epsilon)

    def affine(self, x: str, layer: str, scale: npt.NDArray[Any], shift: npt.NDArray[Any]) -> str:
        """`x` [N, C, H, W] times `scale` [C] plus `shift` [C]."""
        factors = self.constant(f"{layer}.scale", scale[:, None, None], np.float32)
        terms = self.constant(f"{layer}.shift", shift[:, None, None], np.float32)
        return self.node("Add", [self.node("Mul", [x, factors], f"{layer}.scaled"), terms], layer)

    def linear(self, x: str, layer: str) -> str:
        """A linear layer without bias: [N, inputs] to [N, outputs]."""
        return self.node("Gemm", [x, self.weight(f"{layer}.weight")], layer, transB=1)

    def slice(self, x: str, name: str, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> str:
        """Take [start, end) of each axis; where end < start, the axis is read backwards."""
        steps = [1 if end > start else -1 for start, end in zip(starts, ends, strict=True)]
        bounds = {"starts": starts, "ends": [np.iinfo(np.int64).min if end < 0 else end for end in ends]}
        inputs = [
            self.constant(f"{name}.{part}", values, np.int64)
            for part, values in {**bounds, "axes": axes, "steps": steps}.items()
        ]
        return self.node("Slice", [x, *inputs], name)

    def concat(self, parts: Sequence[str], name: str, axis: int) -> str:
        """Join along an axis; a single part is returned as it is."""
        return self.node("Concat", parts, name, axis=axis) if len(parts) > 1 else parts[0]

    def reshape(self, x: str, name: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [x, self.constant(f"{name}.shape", shape, np.int64)], name)

    def reduce_mean(self, x: str, name: str, axes: Sequence[int], keepdims: bool = False) -> str:
        inputs = [x, self.constant(f"{name}.axes", axes, np.int64)]
        return self.node("ReduceMean", inputs, name, keepdims=int(keepdims))

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        functions: Sequence[onnx.FunctionProto],
        opsets: Mapping[str, int],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "cxr_trt", inputs, outputs, list(self.initializers.values()))
        model = helper.make_model(
            graph,
            functions=functions,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
            ir_version=IR_VERSION,
            producer_name="cxr-trt",
        )
        helper.set_model_props(model, dict(metadata))
        return model
