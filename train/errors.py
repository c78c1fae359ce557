"""The exception of training; it belongs to the tree in `cxr_trt.errors`."""

from cxr_trt.errors import CxrTrtError


class DataError(CxrTrtError):
    """A data set that is incomplete, contradicts itself, or would leak between training, validation and test."""
