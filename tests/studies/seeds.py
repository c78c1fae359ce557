"""Small image files from which studies make hostile ones."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

GREY = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (36, 40), np.uint8), (0, 0), 2)


def png(samples: np.ndarray = GREY) -> bytes:
    return cv2.imencode(".png", samples)[1].tobytes()


def jpeg(samples: np.ndarray = GREY, *options: int) -> bytes:
    return cv2.imencode(".jpg", samples, options)[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def dataset(syntax: str = ExplicitVRLittleEndian, frame: bytes | None = None, **elements: Any) -> Dataset:
    """GREY as a radiograph of 8 bits; `frame` holds it compressed in another transfer syntax."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    made.Rows, made.Columns = GREY.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PixelRepresentation, made.SamplesPerPixel = 0, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.WindowCenter, made.WindowWidth = 128, 256
    made.PixelData = GREY.tobytes() if frame is None else encapsulate([frame])
    made["PixelData"].VR = "OB"
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def content(made: Dataset) -> bytes:
    """The bytes of the file."""
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
