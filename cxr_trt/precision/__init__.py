"""What engines can compute in, and how the ranges of int8 can be found."""

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

CalibrationMethod = Literal["max", "entropy", "percentile"]
CALIBRATION_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
