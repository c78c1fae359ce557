"""Decoding the bytes of a DICOM, PNG, JPEG or TIFF file to grey pixels.

The decoders are imported when they are first needed, so that looking for image files does not load them.
"""

from cxr_trt.errors import ImageError
from cxr_trt.images.headers import is_bare_data_set
from cxr_trt.images.image import Image, check_grey

__all__ = ["HEAD_BYTES", "Image", "decode", "image_format"]

HEAD_BYTES = 1024
"""How many bytes of a file `image_format` looks at."""

SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}
REFUSED_FORMATS = ("BMP", "WebP")


def image_format(head: bytes) -> str | None:
    """The format of a file, judged by its first `HEAD_BYTES` bytes.

    A DICOM file has a preamble and the prefix DICM (PS3.10 7.1), or begins with a data set.

    Returns:
        "PNG", "JPEG", "TIFF", "DICOM", "BMP", "WebP" or None.
    """
    if head[128:132] == b"DICM":  # first: a preamble may be the head of a TIFF file
        return "DICOM"
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # reserved, always 0
        return "BMP"
    return "DICOM" if is_bare_data_set(head) else None


def decode(data: bytes) -> Image:
    """Decode a whole file.

    Raises:
        NoImageError: a DICOM object that is no X-ray by its kind.
        ImageError: the file holds no readable grey image; the error says why.
    """
    if not data:
        raise ImageError("the file is empty; copy it again")
    file_format = image_format(data[:HEAD_BYTES])
    if file_format is None:
        raise ImageError("the file is not a DICOM, PNG, JPEG or TIFF image; convert it to one of them")
    if file_format in REFUSED_FORMATS:
        raise ImageError(f"the file is a {file_format} image, which is not supported; convert it to PNG")
    if file_format == "DICOM":
        from cxr_trt.images.dicom import decode_dicom

        image = decode_dicom(data)
    else:
        from cxr_trt.images.raster import decode_raster

        image = decode_raster(data, file_format)
    check_grey(image.pixels)
    return image
