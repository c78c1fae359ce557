"""Hostile and odd files, each with what must become of it."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.uid import HTJ2KLossless
from seeds import GREY, HTJ2K_RAMP, chunk, content, dataset, jpeg, png

SCORED = "scored"
Maker = Callable[[Path], Path | None]


def file(make: Callable[[], bytes]) -> Maker:
    """A maker of a file with that content."""

    def write(path: Path) -> None:
        path.write_bytes(make())

    return write


def bomb_png(width: int, height: int) -> bytes:
    """A PNG that says it is that large, and is a few bytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def deflated_zeros(mib: int) -> bytes:
    """That many MiB of zeros, deflated: one block as often as it takes, as a flushed block needs none before it."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return block * mib + squeeze.flush()


def text_bomb_png() -> bytes:
    """A good PNG with a comment that inflates to a gigabyte."""
    adler32 = struct.pack(">HH", (1 << 30) % 65521, 1)  # of as many zeros
    whole = png()
    return whole[:33] + chunk(b"zTXt", b"Comment\0\0\x78\xda" + deflated_zeros(1024) + adler32) + whole[33:]


def big_jpeg() -> bytes:
    """A JPEG that says it is as large as one can be."""
    whole = bytearray(jpeg())
    frame = whole.index(b"\xff\xc0")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(whole)


def animated_png() -> bytes:
    """Two frames; the first is the picture of the PNG itself."""
    whole = png()
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    height, width = GREY.shape
    frames = [chunk(b"fcTL", struct.pack(">IIIIIHHBB", i, width, height, 0, 0, 1, 10, 0, 0)) for i in (0, 1)]
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in 255 - GREY))
    second = frames[1] + chunk(b"fdAT", struct.pack(">I", 2) + rows)
    end = whole.index(b"IEND") - 4
    return whole[:33] + control + frames[0] + whole[33:end] + second + whole[end:]


def turned_jpeg() -> bytes:
    """EXIF orientation 6: to be turned by 90 degrees."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)
    whole = jpeg()
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff + whole[2:]


def tiff() -> bytes:
    """The picture in LZW-compressed TIFF."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "TIFF", compression="tiff_lzw")
    return file.getvalue()


def short_tiff(side: int) -> bytes:
    """A TIFF that says it is that large, and is a few bytes."""
    entries = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 99)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)


def endless_tiff() -> bytes:
    """A TIFF whose directory of a page points to itself as the next page."""
    whole = bytearray(short_tiff(9))
    whole[-4:] = struct.pack("<I", 8)
    return bytes(whole)


def cmyk_jpeg() -> bytes:
    """Black ink alone, in the inverted values that Adobe writes."""
    from PIL import Image

    file = io.BytesIO()
    blank = Image.new("L", GREY.shape[::-1], 0)
    Image.merge("CMYK", [blank, blank, blank, Image.fromarray(255 - GREY)]).save(file, "JPEG")
    return file.getvalue()


def deflated_bomb() -> bytes:
    """A deflated DICOM file of megabytes whose data set has 1 GiB."""
    whole = content(dataset("1.2.840.10008.1.2.1.99"))
    body = content(dataset())
    start = whole.index(b"1.2.840.10008.1.2.1.99")
    size = struct.unpack_from("<I", whole, 140)[0]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    meta = body[144 + struct.unpack_from("<I", body, 140)[0] :]
    packed = squeeze.compress(meta) + squeeze.flush(zlib.Z_FULL_FLUSH) + deflated_zeros(1024)
    assert start < 144 + size
    return whole[: 144 + size] + packed


def big_jpeg2000() -> bytes:
    """A DICOM file of few pixels whose HTJ2K stream says it has 60,000 x 60,000."""
    stream = bytearray(HTJ2K_RAMP)
    stream[8:16] = struct.pack(">II", 60000, 60000)
    return content(dataset(HTJ2KLossless, frame=bytes(stream)))


def nested_dicom() -> bytes:
    """Sequences in sequences, 5,000 deep, without lengths."""
    item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    whole = content(dataset())
    meta = 144 + struct.unpack_from("<I", whole, 140)[0]
    return whole[:meta] + item * 5000


def without(name: str, **elements: object) -> bytes:
    """A DICOM file that lacks an element, and has others."""
    made = dataset()
    delattr(made, name)
    for key, value in elements.items():
        setattr(made, key, value)
    return content(made)


def with_overlay() -> bytes:
    """Letters burnt over the picture by a viewer; a display of the image itself leaves them out."""
    made = dataset()
    height, width = GREY.shape
    for element, representation, value in (
        (0x0010, "US", height),
        (0x0011, "US", width),
        (0x0040, "CS", "G"),
        (0x0050, "SS", [1, 1]),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x3000, "OW", np.packbits(np.ones(GREY.shape, bool)).tobytes()),
    ):
        made.add_new((0x6000, element), representation, value)
    return content(made)


def wrong_endianness() -> bytes:
    """The data set is big endian, the meta information says little."""
    big, little = content(dataset("1.2.840.10008.1.2.2")), content(dataset())
    cut = [144 + struct.unpack_from("<I", whole, 140)[0] for whole in (big, little)]
    return little[: cut[1]] + big[cut[0] :]


def syntax_of(number: bytes) -> bytes:
    """Encapsulated data under 1.2.840.10008.1.2.4 and three digits; 100 is MPEG-2, 999 nothing."""
    made = dataset("1.2.840.10008.1.2.4.100", frame=bytes(100))
    return content(made).replace(b"1.2.840.10008.1.2.4.100", b"1.2.840.10008.1.2.4." + number)


def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path)


def locked(path: Path) -> None:
    """A file that nobody may read."""
    path.write_bytes(png())
    path.chmod(0)


def badly_named(path: Path) -> Path:
    """A file whose name is no UTF-8."""
    other = path.with_name(os.fsdecode(b"caf\xe9.png"))
    other.write_bytes(png())
    return other


def folder(path: Path) -> None:
    """A folder that nobody may list."""
    path.mkdir(mode=0)


CASES: dict[str, tuple[str, Maker, str]] = {
    # title: name of the file, what makes it, what the outcome must contain
    "PNG of 60,000 x 60,000 pixels": ("a.png", file(lambda: bomb_png(60000, 60000)), "too large (60000 x 60000)"),
    "PNG of 2^31 - 1 pixels a side": ("a.png", file(lambda: bomb_png(2**31 - 1, 2**31 - 1)), "too large"),
    "PNG, 14,000 x 14,000 by its header, 74 of the rows there": (
        "a.png",
        file(lambda: bomb_png(14000, 14000)),
        "truncated or damaged",
    ),
    "PNG with a comment of 1 GiB, deflated": ("a.png", file(text_bomb_png), SCORED),
    "JPEG of 65,500 x 65,500 pixels": ("a.jpg", file(big_jpeg), "too large (65500 x 65500)"),
    "DICOM with Rows and Columns 65,535": (
        "a.dcm",
        file(lambda: content(dataset(Rows=65535, Columns=65535))),
        "too large (65535 x 65535)",
    ),
    "DICOM with Rows 0": ("a.dcm", file(lambda: content(dataset(Rows=0))), "no pixels"),
    "DICOM, deflated, 1 GiB of data set": ("a.dcm", file(deflated_bomb), "too much memory"),
    "DICOM, JPEG 2000 data of 60,000 x 60,000 pixels under a header of 40 x 36": (
        "a.dcm",
        file(big_jpeg2000),
        "differ from the DICOM header in size",
    ),
    "DICOM, HTJ2K": ("a.dcm", file(lambda: content(dataset(HTJ2KLossless, frame=HTJ2K_RAMP))), SCORED),
    "DICOM, HTJ2K, cut off": (
        "a.dcm",
        file(lambda: content(dataset(HTJ2KLossless, frame=HTJ2K_RAMP[:150]))),
        "damaged",
    ),
    "DICOM, sequences 5,000 deep": ("a.dcm", file(nested_dicom), "damaged"),
    "DICOM of 2 frames": ("a.dcm", file(lambda: content(dataset(NumberOfFrames=2))), "holds 2 frames"),
    "DICOM of 2,000,000,000 frames": ("a.dcm", file(lambda: content(dataset(NumberOfFrames=2 * 10**9))), "frames"),
    "DICOM without pixel data": ("a.dcm", file(lambda: without("PixelData")), "no pixel data"),
    "DICOM with float pixels": (
        "a.dcm",
        file(lambda: without("PixelData", FloatPixelData=np.zeros(GREY.size, "<f4").tobytes())),
        "floating-point",
    ),
    "DICOM with an overlay": ("a.dcm", file(with_overlay), SCORED),
    "DICOM, big endian under a little-endian transfer syntax": ("a.dcm", file(wrong_endianness), "error"),
    "DICOM, unknown transfer syntax": ("a.dcm", file(lambda: syntax_of(b"999")), "error"),
    "DICOM, MPEG-2": ("a.dcm", file(lambda: syntax_of(b"100")), "not supported"),
    "PNG, truncated": ("a.png", file(lambda: png()[:-20]), "truncated"),
    "JPEG, truncated": ("a.jpg", file(lambda: jpeg()[:-20]), "truncated"),
    "DICOM, truncated": ("a.dcm", file(lambda: content(dataset())[:-20]), "error"),
    "JPEG, CMYK": ("a.jpg", file(cmyk_jpeg), SCORED),
    "JPEG with EXIF orientation": ("a.jpg", file(turned_jpeg), SCORED),
    "TIFF, LZW": ("a.tif", file(tiff), SCORED),
    "TIFF, truncated": ("a.tif", file(lambda: tiff()[:60]), "error"),
    "TIFF of 60,000 x 60,000 pixels": ("a.tif", file(lambda: short_tiff(60000)), "too large (60000 x 60000)"),
    "TIFF whose pages are a circle": ("a.tif", file(endless_tiff), "error"),
    "PNG under the name of a TIFF": ("a.tif", file(png), SCORED),
    "DICOM with High Bit 255": ("a.dcm", file(lambda: content(dataset(HighBit=255))), "High Bit"),
    "DICOM with Bits Stored 40,000": ("a.dcm", file(lambda: content(dataset(BitsStored=40000))), "Bits Stored"),
    "DICOM with Samples per Pixel 0": ("a.dcm", file(lambda: content(dataset(SamplesPerPixel=0))), "error"),
    "DICOM data set without preamble": ("a", file(lambda: content(dataset())[132:]), SCORED),
    "PNG, animated": ("a.png", file(animated_png), SCORED),
    "zero bytes": ("a.png", file(lambda: b""), "empty"),
    "text under the name of a PNG": ("a.png", file(lambda: b"hello"), "not a DICOM, PNG, JPEG or TIFF"),
    "named pipe": ("a.png", lambda path: os.mkfifo(path), "not a regular file"),
    "device /dev/zero": ("a.png", lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "link to itself": ("a.png", loop, "error"),
    "link to nothing": ("a.png", lambda path: path.symlink_to("none"), "link to nothing"),
    "folder that cannot be listed": ("a.png", folder, "cannot be listed"),
    "file that cannot be read": ("a.png", locked, "Permission denied"),
    "name that is not UTF-8": ("a.png", badly_named, SCORED),
}
