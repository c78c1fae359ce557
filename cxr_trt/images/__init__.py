"""Decoding the bytes of a PNG, JPEG or DICOM file to grey pixels.

The decoders are imported when they are first needed, so that looking for image files does not load them.
"""

from cxr_trt.errors import ImageError
from cxr_trt.images.image import Image

__all__ = ["HEAD_BYTES", "Image", "decode", "image_format"]

HEAD_BYTES = 132
"""How many bytes of a file `image_format` looks at."""


def image_format(head: bytes) -> str | None:
    """The format of a file, judged by its first `HEAD_BYTES` bytes: "PNG", "JPEG", "DICOM" or None.

    A DICOM file must have a preamble and the prefix DICM (PS3.10 7.1); bare data sets are not recognised.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[128:132] == b"DICM":
        return "DICOM"
    return None


def decode(data: bytes) -> Image:
    """Decode a whole file.

    Raises:
        ImageError: the file holds no readable grey image; the error says why.
    """
    if not data:
        raise ImageError("the file is empty; copy it again")
    match image_format(data[:HEAD_BYTES]):
        case None:
            raise ImageError("the file is not a PNG, JPEG or DICOM image; convert it to one of them")
        case "DICOM":
            from cxr_trt.images.dicom import decode_dicom

            return decode_dicom(data)
        case raster:
            from cxr_trt.images.raster import decode_raster

            return decode_raster(data, raster)
