"""Max-min pooling (paper, eq. 4) as one ONNX node that carries its own body of standard operators.

ONNX Runtime runs the body; a TensorRT plugin of the same name (plugins/) can stand in for it. Both take float32 or
float16 and compute in float32, and neither lets 0 times infinity into a score when alpha is 0. For NaN the body gives
what the backend's TopK makes of it; the plugin and PyTorch take it for the largest number. The plugin's `windows` are
not in the function: a scoring graph pools whole maps.
"""

import onnx
from onnx import parser

DOMAIN, NAME, DOMAIN_VERSION = "cxr_trt", "MaxMinPool", 1

BODY = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <k_max: int, k_min: int, alpha: float> (maps) => (scores)
{{
    maps32 = Cast <to: int = 1> (maps)
    merge_cells = Constant <value_ints: ints = [0, 0, -1]> ()
    cells = Reshape (maps32, merge_cells)
    one = Constant <value_ints: ints = [1]> ()
    last_axis = Constant <value_ints: ints = [2]> ()
    k_max_scalar = Constant <value_int: int = @k_max> ()
    k_max_vector = Reshape (k_max_scalar, one)
    largest, largest_at = TopK <axis: int = 2, largest: int = 1> (cells, k_max_vector)
    high = ReduceMean <keepdims: int = 1> (largest, last_axis)
    k_min_scalar = Constant <value_int: int = @k_min> ()
    k_min_vector = Reshape (k_min_scalar, one)
    smallest, smallest_at = TopK <axis: int = 2, largest: int = 0> (cells, k_min_vector)
    low = ReduceMean <keepdims: int = 1> (smallest, last_axis)
    alpha_scalar = Constant <value_float: float = @alpha> ()
    weighted_low = Mul (alpha_scalar, low)
    zero = Constant <value_float: float = 0.0> ()
    without_low = Equal (alpha_scalar, zero)
    counted_low = Where (without_low, zero, weighted_low)
    column = Add (high, counted_low)
    scores = Transpose <perm: ints = [0, 2, 1]> (column)
}}
"""


def max_min_pool_function(opset: int) -> onnx.FunctionProto:
    """The function MaxMinPool(maps [N, C, H, W]; k_max, k_min, alpha) -> float32 scores [N, 1, C]."""
    return parser.parse_function(BODY.format(domain=DOMAIN, name=NAME, opset=opset))


def without_body(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose MaxMinPool is only a name, so that every version of TensorRT's parser asks its plugins for it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [function for function in copy.functions if (function.domain, function.name) != (DOMAIN, NAME)]
    del copy.functions[:]
    copy.functions.extend(kept)
    return copy
