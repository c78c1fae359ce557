"""Files for the benchmarks, made of a real radiograph (RG1 of the PyPI package pydicom-data) in the usual formats."""

import os
from importlib.metadata import distribution
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from cxr_trt.images import decode

Format = Literal["PNG", "JPEG", "DICOM", "JPEG 2000", "RLE"]
FORMATS: tuple[Format, ...] = get_args(Format)
PNG_SIDE = 1024  # pixels, of JPEG too, as NIH ships its images
DICOM_SIZE = (3000, 2500)  # height and width in pixels of 16 bits
SUFFIXES = {"PNG": "png", "JPEG": "jpg"}


def radiograph_file() -> Path:
    """The DICOM file."""
    return Path(str(distribution("pydicom-data").locate_file("data_store/data/RG1_UNCR.dcm")))


def radiograph() -> npt.NDArray[np.float32]:
    """The radiograph, 0 black to 255 white."""
    return decode(radiograph_file().read_bytes()).pixels


def make_pictures(folder: Path, kind: Format, count: int) -> Path:
    """Write `count` files of a format to a new folder: one content, under `count` names."""
    folder.mkdir(parents=True)
    first = folder / f"0.{SUFFIXES.get(kind, 'dcm')}"
    first.write_bytes(encode(kind))
    for i in range(1, count):
        os.link(first, first.with_name(f"{i}{first.suffix}"))
    return folder


def encode(kind: Format) -> bytes:
    """The radiograph as a file of that format."""
    if kind in SUFFIXES:
        grey = cv2.resize(radiograph(), (PNG_SIDE, PNG_SIDE), interpolation=cv2.INTER_AREA)
        return cv2.imencode(f".{SUFFIXES[kind]}", np.rint(grey).astype(np.uint8))[1].tobytes()
    return _dicom(kind)


def _dicom(kind: Format) -> bytes:
    height, width = DICOM_SIZE
    dataset = pydicom.dcmread(radiograph_file())
    scaled = cv2.resize(dataset.pixel_array.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(np.rint(scaled), 0, (1 << dataset.BitsStored) - 1).astype(np.uint16)
    dataset.Rows, dataset.Columns = DICOM_SIZE
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = pixels.tobytes()
    if kind == "JPEG 2000":
        dataset.compress(JPEG2000Lossless)
    elif kind == "RLE":
        dataset.compress(RLELossless)
    with pydicom.filebase.DicomBytesIO() as stream:
        dataset.save_as(stream, enforce_file_format=True)
        return bytes(stream.getvalue())
