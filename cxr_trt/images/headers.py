"""Reading the headers of files ourselves, to check them before a C library allocates memory or relies on them."""

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

_JPEG2000_START = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ; a JP2 file has boxes before them
_JPEG2000_SIZE = struct.Struct(">4I16xH")  # right, bottom, left and top of the image; tiles; components

_TIFF_BYTE_ORDERS = {b"II": "<", b"MM": ">"}
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_PHOTOMETRIC = 256, 257, 262
_TIFF_MAX_PAGES = 1000

_DICOM_FIRST_GROUPS = (0x0002, 0x0008)  # file meta information, or identification
_DICOM_LAST_GROUP = 0x7FE0  # Pixel Data
_DICOM_FIRST_ELEMENTS = 3  # that must make sense, as far as they lie in the head of the file
_DICOM_SHORT = frozenset(
    ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI")
) | {"UL", "US"}  # value representations with 16-bit lengths (PS3.5 7.1.2)
_DICOM_LONG = frozenset(
    ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
)  # 32-bit lengths
_DICOM_MAX_LENGTH = 1 << 16  # bytes of one of the first elements


@dataclass(frozen=True)
class PngHeader:
    """Width and height in pixels, and whether the file declares transparency."""

    width: int
    height: int
    has_alpha: bool


@dataclass(frozen=True)
class JpegHeader:
    """Width and height in pixels, bits per sample, samples per pixel.

    process: the marker of the frame header, such as 0xC0 for baseline and 0xC3 for lossless (ITU-T T.81 table B.1).
    adobe_transform: 0 for RGB, 1 for YCbCr; None if the stream does not say.
    is_doubtful: it has a JFIF version or an Adobe transform that libjpeg does not know for grey and RGB.
    """

    width: int
    height: int
    bits: int
    samples: int
    process: int
    adobe_transform: int | None
    is_doubtful: bool


@dataclass(frozen=True)
class TiffHeader:
    """Width and height in pixels, number of pages, and whether 0 is white."""

    width: int
    height: int
    pages: int
    zero_is_white: bool


def is_bare_data_set(head: bytes) -> bool:
    """Whether a file begins with a DICOM data set, without preamble and prefix, as old archives write them.

    Its first elements must have ascending tags of the first groups, value representations or none, and lengths that
    make sense (PS3.5 7.1).

    Args:
        head: the first bytes of the file, some hundred.
    """
    return any(_starts_with_elements(head, order) for order in "<>")


def _starts_with_elements(head: bytes, order: str) -> bool:
    position, last, found = 0, (0, 0), 0
    while position + 8 <= len(head) and found < _DICOM_FIRST_ELEMENTS:
        group, element = struct.unpack_from(f"{order}HH", head, position)
        size = _element_bytes(head, position, order)
        is_first = found == 0 and group in _DICOM_FIRST_GROUPS
        if size is None or not (is_first or (found and last < (group, element) and group <= _DICOM_LAST_GROUP)):
            return False
        position, last, found = position + size, (group, element), found + 1
    return found == _DICOM_FIRST_ELEMENTS or (found > 0 and position >= len(head))


def _element_bytes(head: bytes, position: int, order: str) -> int | None:
    """The size of an element with its header; None if there is none at this place."""
    representation = head[position + 4 : position + 6].decode("latin-1")
    if representation in _DICOM_SHORT:
        size = 8 + int(struct.unpack_from(f"{order}H", head, position + 6)[0])
    elif representation in _DICOM_LONG and position + 12 <= len(head):
        size = 12 + int(struct.unpack_from(f"{order}I", head, position + 8)[0])
    elif order == "<":
        size = 8 + int(struct.unpack_from("<I", head, position + 4)[0])
    else:
        return None  # implicit value representations are little-endian (PS3.5 A.1)
    return size if size < _DICOM_MAX_LENGTH else None


def tiff_header(data: bytes) -> TiffHeader:
    """Walk the directories of a TIFF or BigTIFF file.

    Raises:
        ImageError: the file is truncated or damaged.
    """
    try:
        return _tiff_header(data, _TIFF_BYTE_ORDERS[data[:2]])
    except (struct.error, KeyError) as error:
        raise ImageError("the TIFF file is truncated or damaged; copy it again") from error


def _tiff_header(data: bytes, order: str) -> TiffHeader:
    is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    offset_format, count_format, entry_bytes = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    (offset,) = struct.unpack_from(f"{order}{offset_format}", data, 8 if is_big else 4)
    fields: dict[int, int] = {}
    pages = 0
    while offset and pages < _TIFF_MAX_PAGES:
        (count,) = struct.unpack_from(f"{order}{count_format}", data, offset)
        entries = offset + struct.calcsize(f"{order}{count_format}")
        if not pages:
            for entry in range(entries, min(entries + count * entry_bytes, len(data)), entry_bytes):
                tag, kind = struct.unpack_from(f"{order}HH", data, entry)
                if kind in _TIFF_TYPES:
                    (fields[tag],) = struct.unpack_from(
                        f"{order}{_TIFF_TYPES[kind]}", data, entry + entry_bytes * 2 // 3
                    )
        (offset,) = struct.unpack_from(f"{order}{offset_format}", data, entries + count * entry_bytes)
        pages += 1
    return TiffHeader(fields[_TIFF_WIDTH], fields[_TIFF_HEIGHT], pages, fields.get(_TIFF_PHOTOMETRIC) == 0)


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
    adobe_transform: int | None = None
    process = 0
    position = 2
    while position + 4 <= len(data):
        prefix, marker, length = _JPEG_SEGMENT.unpack_from(data, position)
        if prefix == marker == 0xFF:  # a fill byte
            position += 1
            continue
        if prefix != 0xFF or length < 2 or marker not in {*_JPEG_FRAMES, *_JPEG_TABLES, _JPEG_SCAN}:
            raise ImageError("the JPEG data are damaged; copy the file again")
        if marker in _JPEG_FRAMES and position + 4 + _JPEG_FRAME.size <= len(data):
            process, frame = marker, _JPEG_FRAME.unpack_from(data, position + 4)
        content = data[position + 4 : position + 2 + length]
        is_doubtful |= content[:5] == b"JFIF\0" and content[5:6] != b"\1"
        if content[:5] == b"Adobe":
            adobe_transform = content[11] if len(content) > 11 else None
            is_doubtful |= adobe_transform not in (0, 1)
        position += 2 + length
        if marker == _JPEG_SCAN:
            if frame is None:
                raise ImageError("the JPEG data are damaged; copy the file again")
            if data.rfind(_JPEG_END) < position:
                break
            bits, height, width, samples = frame
            return JpegHeader(width, height, bits, samples, process, adobe_transform, is_doubtful)
    raise ImageError("the JPEG data are truncated; copy the file again")


def jpeg2000_size(data: bytes) -> tuple[int, int, int]:
    """Width and height in pixels, and samples per pixel, of a JPEG 2000 or HTJ2K stream (ITU-T T.800 A.5.1).

    Raises:
        ImageError: the stream is truncated or damaged.
    """
    start = data.find(_JPEG2000_START)
    position = start + len(_JPEG2000_START) + 4  # after Lsiz and Rsiz
    if start < 0 or position + _JPEG2000_SIZE.size > len(data):
        raise ImageError("the JPEG 2000 data are truncated or damaged; copy the file again")
    right, bottom, left, top, samples = _JPEG2000_SIZE.unpack_from(data, position)
    return right - left, bottom - top, samples
