"""Max-min pooling (paper, eq. 4) as one ONNX node: a model-local function whose body consists of standard operators.

ONNX Runtime runs the body; a TensorRT plugin of the same name (plugins/) can replace it. Both take float32 or float16
and compute in float32, and both ignore the minima when alpha is 0, so that 0 times infinity cannot spoil a score. NaN
is the largest number for the plugin and for PyTorch; in the body, it depends on the backend's TopK.
"""

import onnx
from onnx import parser

POOLING_DOMAIN, POOLING_OPERATOR, POOLING_DOMAIN_VERSION = "cxr_trt", "MaxMinPool", 1

BODY_TEMPLATE = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} <k_max: int, k_min: int, alpha: float{windows_attribute}> (maps) => (scores)
{{
    maps32 = Cast <to: int = 1> (maps)
    merge_cells = Constant <value_ints: ints = [0, 0, -1]> ()
    one = Constant <value_ints: ints = [1]> ()
    last_axis = Constant <value_ints: ints = [2]> ()
    k_max_scalar = Constant <value_int: int = @k_max> ()
    k_max_vector = Reshape (k_max_scalar, one)
    k_min_scalar = Constant <value_int: int = @k_min> ()
    k_min_vector = Reshape (k_min_scalar, one)
    alpha_scalar = Constant <value_float: float = @alpha> ()
    zero = Constant <value_float: float = 0.0> ()
    without_low = Equal (alpha_scalar, zero)
{columns}
    scores = Transpose <perm: ints = [0, 2, 1]> (column)
}}
"""

# The same for k_max = k_min = 1, bit for bit but for NaN: the mean of one number is that number.
EXTREMA_TEMPLATE = """
    cells{i} = Reshape ({maps}, merge_cells)
    high{i} = ReduceMax <keepdims: int = 1> (cells{i}, last_axis)
    low{i} = ReduceMin <keepdims: int = 1> (cells{i}, last_axis)
    weighted_low{i} = Mul (alpha_scalar, low{i})
    counted_low{i} = Where (without_low, zero, weighted_low{i})
    column{i} = Add (high{i}, counted_low{i})
"""

COLUMN_TEMPLATE = """
    cells{i} = Reshape ({maps}, merge_cells)
    largest{i}, largest_at{i} = TopK <axis: int = 2, largest: int = 1> (cells{i}, k_max_vector)
    high{i} = ReduceMean <keepdims: int = 1> (largest{i}, last_axis)
    smallest{i}, smallest_at{i} = TopK <axis: int = 2, largest: int = 0> (cells{i}, k_min_vector)
    low{i} = ReduceMean <keepdims: int = 1> (smallest{i}, last_axis)
    weighted_low{i} = Mul (alpha_scalar, low{i})
    counted_low{i} = Where (without_low, zero, weighted_low{i})
    column{i} = Add (high{i}, counted_low{i})
"""

NUMBERS_TEMPLATE = """
    numbers = Constant <value_ints: ints = @windows> ()
    rows_and_columns = Constant <value_ints: ints = [2, 3]> ()
"""

WINDOW_TEMPLATE = """
    at{i} = Constant <value_ints: ints = [{at}]> ()
    middle{i} = Constant <value_ints: ints = [{middle}]> ()
    behind{i} = Constant <value_ints: ints = [{behind}]> ()
    starts{i} = Slice (numbers, at{i}, middle{i})
    sizes{i} = Slice (numbers, middle{i}, behind{i})
    ends{i} = Add (starts{i}, sizes{i})
    window{i} = Slice (maps32, starts{i}, ends{i}, rows_and_columns)
"""


def max_min_pool_function(opset: int, windows: int = 0, *, extrema: bool = False) -> onnx.FunctionProto:
    """The function MaxMinPool(maps [N, C, H, W]; k_max, k_min, alpha) -> float32 scores [N, 1, C].

    If `windows` is positive, the function has the attribute `windows` with four numbers per window (y, x, height and
    width in cells), and pools each window on its own: scores [N, windows, C].

    With `extrema`, the body is for k_max = k_min = 1 alone, and needs no sorting.
    """
    template = EXTREMA_TEMPLATE if extrema else COLUMN_TEMPLATE
    if not windows:
        columns = template.format(i="", maps="maps32")
    else:
        parts = [
            WINDOW_TEMPLATE.format(i=i, at=4 * i, middle=4 * i + 2, behind=4 * i + 4)
            + template.format(i=i, maps=f"window{i}")
            for i in range(windows)
        ]
        joined = ", ".join(f"column{i}" for i in range(windows))
        columns = f"{NUMBERS_TEMPLATE}{''.join(parts)}    column = Concat <axis: int = 2> ({joined})"
    attribute = ", windows: ints" if windows else ""
    body = BODY_TEMPLATE.format(
        domain=POOLING_DOMAIN, name=POOLING_OPERATOR, opset=opset, windows_attribute=attribute, columns=columns
    )
    return parser.parse_function(body)


def takes_extrema(model: onnx.ModelProto) -> bool:
    """Whether every pooling of a model takes one maximum and one minimum (the paper's, k_max = k_min = 1)."""
    ks = [
        attribute.i
        for node in model.graph.node
        if (node.domain, node.op_type) == (POOLING_DOMAIN, POOLING_OPERATOR)
        for attribute in node.attribute
        if attribute.name in ("k_max", "k_min")
    ]
    return bool(ks) and set(ks) == {1}


def with_extrema(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model for which `takes_extrema` holds, with the body of MaxMinPool for that case."""
    copy = without_body(model)
    (before,) = (function for function in model.functions if function.name == POOLING_OPERATOR)
    windows = next(
        (
            len(attribute.ints) // 4
            for node in model.graph.node
            if node.op_type == POOLING_OPERATOR
            for attribute in node.attribute
            if attribute.name == "windows"
        ),
        0,
    )
    copy.functions.append(max_min_pool_function(before.opset_import[0].version, windows, extrema=True))
    return copy


def without_body(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which MaxMinPool has no body, so that every version of TensorRT's parser looks for a plugin."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [
        function
        for function in copy.functions
        if (function.domain, function.name) != (POOLING_DOMAIN, POOLING_OPERATOR)
    ]
    del copy.functions[:]
    copy.functions.extend(kept)
    return copy
