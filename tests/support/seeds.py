"""Small image files for tests, and from which studies make hostile ones."""

import base64
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRBigEndian, ExplicitVRLittleEndian

GREY = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (36, 40), np.uint8), (0, 0), 2)

RAMP = np.add.outer(np.arange(36), np.arange(40)).astype(np.uint8)
HTJ2K_RAMP = base64.b64decode(
    "/0//UQApQAAAAAAoAAAAJAAAAAAAAAAAAAAAKAAAACQAAAAAAAAAAAABBwEB/1AACAACAAAAAv9SAAwAAgABAAUEBEAB/1wAEyBI"
    "UFBQUFBQUFBQUFBQSEhI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGMAAf+TwCoA/z29/QCHNAAAAMAVQAgg/tgJ"
    "/X5LdwDAFVAFWAD+7/x09PTyeACqqvr/Pv9+f764AMArYBXgAAD8/H+AUpSlKUvqAAAA8P97YDrrrrrrrrqcAP/Z"
)
"""RAMP as a lossless HTJ2K stream, encoded by OpenJPH 0.26: Python 3.10 has no package that encodes one."""


def png(samples: np.ndarray = GREY) -> bytes:
    return cv2.imencode(".png", samples)[1].tobytes()


def jpeg(samples: np.ndarray = GREY, *options: int) -> bytes:
    return cv2.imencode(".jpg", samples, options)[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def radiograph(stored: Any, bits: int = 12, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A radiograph of one frame: uncompressed stored values [H, W] or [H, W, 3], and any further elements."""
    array = np.atleast_2d(stored)
    signed = array.min() < 0
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    made.Rows, made.Columns = array.shape[:2]
    made.BitsAllocated = next(allocated for allocated in (8, 16, 32) if bits <= allocated)
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(signed)
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    if array.ndim == 3:
        made.SamplesPerPixel = 3
        made.PlanarConfiguration = 0
        made.PhotometricInterpretation = "RGB"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    made.PixelData = array.astype(f"{order}{'i' if signed else 'u'}{made.BitsAllocated // 8}").tobytes()
    made["PixelData"].VR = "OB" if bits <= 8 else "OW"
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def dataset(syntax: str = ExplicitVRLittleEndian, frame: bytes | None = None, **elements: Any) -> Dataset:
    """GREY as a radiograph of 8 bits with a window; `frame` holds it compressed in another transfer syntax."""
    if frame is not None:
        elements["PixelData"] = encapsulate([frame])
    return radiograph(GREY, 8, syntax, **{"WindowCenter": 128, "WindowWidth": 256, **elements})


def content(made: Dataset) -> bytes:
    """The bytes of the file."""
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
