"""The precisions in which engines can compute, and the methods that choose int8 ranges."""

from typing import Literal, get_args

Precision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

CalibrationMethod = Literal["max", "entropy", "percentile"]
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
