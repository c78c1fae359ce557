"""The libraries on PyPI that decode JPEG 2000, each in a process of its own, which `benchmarks.jpeg2000` starts.

    python -m benchmarks.tools.jpeg2000_libraries NAME FILE SECONDS

decodes the codestream once, prints `ready`, waits for a line, and prints frames per second.
"""

import io
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]


def with_imagecodecs(stream: bytes) -> Samples:
    """OpenJPEG by imagecodecs, as cxr-trt calls it."""
    import imagecodecs

    samples: Samples = imagecodecs.jpeg2k_decode(stream)
    return samples


def with_pylibjpeg(stream: bytes) -> Samples:
    """OpenJPEG as pylibjpeg has it."""
    import openjpeg.utils

    samples: Samples = openjpeg.utils.decode(stream)
    return samples


def with_pillow(stream: bytes) -> Samples:
    """Pillow's OpenJPEG; samples of more than 8 bits are shifted to 16."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(stream)))


def with_gdcm(stream: bytes) -> Samples:
    """GDCM's OpenJPEG, for grey."""
    import gdcm

    width, height = struct.unpack_from(">II", stream, 8)  # of the SIZ segment (ITU-T T.800 A.5.1)
    bits = (stream[42] & 127) + 1
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((width, height, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000))
    image.SetPixelFormat(gdcm.PixelFormat(1, 8 if bits <= 8 else 16, bits, bits - 1, 0))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM gives its bytes as str
    return np.frombuffer(buffer, np.uint8 if bits <= 8 else np.uint16).reshape(height, width)


LIBRARIES: dict[str, Callable[[bytes], Samples]] = {
    "imagecodecs": with_imagecodecs,
    "pillow": with_pillow,
    "python-gdcm": with_gdcm,
    "pylibjpeg-openjpeg": with_pylibjpeg,
}
"""Decoders of a grey codestream, by the name of their package."""


def main() -> None:
    """See the module."""
    decode, stream, seconds = LIBRARIES[sys.argv[1]], Path(sys.argv[2]).read_bytes(), float(sys.argv[3])
    decode(stream)
    print("ready", flush=True)
    sys.stdin.readline()
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        decode(stream)
        count += 1
    print(count / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
