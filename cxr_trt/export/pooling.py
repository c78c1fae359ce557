"""Max-min pooling (paper, eq. 4) as one ONNX node that carries its own body of standard operators.

ONNX Runtime runs the body; a TensorRT plugin of the same name can stand in for it.
"""

import onnx
from onnx import parser

DOMAIN, NAME, DOMAIN_VERSION = "cxr_trt", "MaxMinPool", 1

BODY = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <k_max: int, k_min: int, alpha: float> (maps) => (scores)
{{
    merge_cells = Constant <value_ints: ints = [0, 0, -1]> ()
    cells = Reshape (maps, merge_cells)
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
    column = Add (high, weighted_low)
    scores = Transpose <perm: ints = [0, 2, 1]> (column)
}}
"""


def max_min_pool_function(opset: int) -> onnx.FunctionProto:
    """The function MaxMinPool(maps [N, C, H, W]; k_max, k_min, alpha) -> scores [N, 1, C]."""
    return parser.parse_function(BODY.format(domain=DOMAIN, name=NAME, opset=opset))
