"""Reading PNG and JPEG headers ourselves, to check them before a C library allocates memory or relies on them."""

import struct
import zlib
from dataclasses import dataclass

from cxr_trt.errors import ImageError

_PNG_CHUNK = struct.Struct(">I4s")  # bytes of content, kind; then the content and its CRC-32
_PNG_HEADER = struct.Struct(">IIBB")  # width, height, bits per sample, colour type
_PNG_ALPHA = (4, 6)  # colour types: grey with alpha, RGB with alpha

_JPEG_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, bytes in the segment including these two
_JPEG_FRAME = struct.Struct(">BHHB")  # bits per sample, height, width, components
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, SOF55 (JPEG-LS)
_JPEG_TABLES = {0xC4, 0xCC, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xF8, 0xFE}  # DHT DAC DQT DRI APP LSE COM
_JPEG_SCAN = 0xDA
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class PngHeader:
    """Width and height in pixels, and whether the file declares transparency."""

    width: int
    height: int
    has_alpha: bool


@dataclass(frozen=True)
class JpegHeader:
    """Width and height in pixels, bits per sample, and samples per pixel.

    is_doubtful: whether it has a JFIF version or an Adobe colour transform that libjpeg does not know for grey and RGB.
    """

    width: int
    height: int
    bits: int
    samples: int
    is_doubtful: bool


def png_header(data: bytes) -> PngHeader:
    """Walk through the chunks of a PNG file up to the last, IEND, and check their lengths and checksums.

    Raises:
        ImageError: the file is truncated or damaged.
    """
    header = None
    has_alpha = False
    position = 8
    while position + 12 <= len(data):
        length, kind = _PNG_CHUNK.unpack_from(data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise ImageError("the PNG file is damaged; copy it again")
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise ImageError("the PNG file is damaged; copy it again")
            header = _PNG_HEADER.unpack_from(data, start)
        has_alpha |= kind == b"tRNS"
        if kind == b"IEND":
            width, height, _, colour = header
            return PngHeader(width, height, has_alpha or colour in _PNG_ALPHA)
        position = end + 4
    raise ImageError("the PNG file is truncated; copy it again")


def jpeg_header(data: bytes) -> JpegHeader:
    """Walk through the segments of a JPEG or JPEG-LS stream (ITU-T T.81 B.1.1) to the first scan, and find its end.

    Raises:
        ImageError: the stream is truncated or damaged.
    """
    frame = None
    is_doubtful = False
    position = 2
    while position + 4 <= len(data):
        prefix, marker, length = _JPEG_SEGMENT.unpack_from(data, position)
        if prefix == marker == 0xFF:  # a fill byte
            position += 1
            continue
        if prefix != 0xFF or length < 2 or marker not in {*_JPEG_FRAMES, *_JPEG_TABLES, _JPEG_SCAN}:
            raise ImageError("the JPEG data are damaged; copy the file again")
        if marker in _JPEG_FRAMES and position + 4 + _JPEG_FRAME.size <= len(data):
            frame = _JPEG_FRAME.unpack_from(data, position + 4)
        content = data[position + 4 : position + 2 + length]
        is_doubtful |= content[:5] == b"JFIF\0" and content[5:6] != b"\1"
        is_doubtful |= content[:5] == b"Adobe" and content[11:12] not in (b"\0", b"\1")
        position += 2 + length
        if marker == _JPEG_SCAN:
            if frame is None:
                raise ImageError("the JPEG data are damaged; copy the file again")
            if data.rfind(_JPEG_END) < position:
                break
            bits, height, width, samples = frame
            return JpegHeader(width, height, bits, samples, is_doubtful)
    raise ImageError("the JPEG data are truncated; copy the file again")
