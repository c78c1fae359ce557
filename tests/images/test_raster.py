import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_trt.errors import ImageError
from cxr_trt.images import decode
from cxr_trt.images.preprocess import preprocess

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG colour types


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, bits: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", content), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encode(suffix: str, samples: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, samples, options)[1].tobytes()


def as_stored(content: bytes) -> np.ndarray:
    samples = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert samples is not None
    return samples


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [
        (1, b"\xa0", [255, 0, 255, 0]),
        (2, b"\x1b", [0, 85, 170, 255]),
        (4, b"\x0f\x5a", [0, 255, 85, 170]),
        (8, b"\x00\x01\x80\xff", [0, 1, 128, 255]),
        (16, struct.pack(">4H", 0, 257, 32896, 65535), [0, 1, 128, 255]),
    ],
)
def test_grey_png_of_every_bit_depth(bits: int, row: bytes, expected: list[int]) -> None:
    image = decode(png(4, bits, GREY, [row]))
    assert image.pixels.tolist() == [expected]
    assert image.pixels.dtype == np.float32
    assert image.format == "PNG"
    assert image.warnings == ()


@pytest.mark.parametrize(
    ("largest", "bits"),
    [(0, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16)],
)
def test_values_in_16_bits_are_scaled_by_the_smallest_depth_that_holds_them(largest: int, bits: int) -> None:
    image = decode(encode(".png", np.array([[0, largest]], np.uint16)))
    np.testing.assert_allclose(image.pixels, [[0, largest * 255 / (2**bits - 1)]], rtol=1e-6)
    said = f"16-bit file with {bits}-bit values, scaled by {2**bits - 1}"
    assert image.warnings == (() if bits == 16 else (said,))


@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3)])
def test_an_8_bit_png_and_its_16_bit_twin_are_the_same(shape: tuple[int, ...]) -> None:
    samples = np.repeat(noise(50, 70), shape[2:] or 1).reshape(shape)
    twin = decode(encode(".png", samples.astype(np.uint16) * 257))
    np.testing.assert_array_equal(decode(encode(".png", samples)).pixels, twin.pixels)
    assert twin.warnings == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_equal_colour_channels_give_exactly_the_grey_channel(dtype: type) -> None:
    grey: np.ndarray = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 256)
    expected = decode(encode(".png", grey)).pixels
    assert len(np.unique(expected)) == grey.size
    np.testing.assert_array_equal(decode(encode(".png", np.dstack([grey] * 3))).pixels, expected)


def test_colour_is_bt601_luma() -> None:
    rows = [bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])]
    assert decode(png(3, 8, RGB, rows)).pixels.tolist() == [[76, 150, 29]]  # 0.299, 0.587, 0.114 of 255


@pytest.mark.parametrize(
    ("colour", "bits", "row"),
    [
        (GREY_ALPHA, 8, b"\x07{}\x09{}"),
        (RGBA, 8, b"\x07\x07\x07{}\x09\x09\x09{}"),
        (GREY_ALPHA, 16, b"\x07\x07{}{}\x09\x09{}{}"),
        (RGBA, 16, b"\x07\x07\x07\x07\x07\x07{}{}\x09\x09\x09\x09\x09\x09{}{}"),
    ],
)
def test_alpha_is_ignored_with_a_warning_when_it_is_not_opaque(colour: int, bits: int, row: bytes) -> None:
    bright = b"\xff" * (len(row.replace(b"{}", b"x")) // 2)  # one pixel of full value sets the depth to 16
    opaque, transparent = (
        decode(png(3, bits, colour, [bright + row.replace(b"{}", alpha)])) for alpha in (b"\xff", b"\x64")
    )
    assert opaque.pixels.tolist() == transparent.pixels.tolist() == [[255, 7, 9]]
    assert opaque.warnings == ()
    assert transparent.warnings == ("transparency ignored",)


@pytest.mark.parametrize(("alpha", "warnings"), [(b"\xff\xff", ()), (b"\xff\x03", ("transparency ignored",))])
def test_palette_png(alpha: bytes, warnings: tuple[str, ...]) -> None:
    palette = chunk(b"PLTE", bytes([5, 5, 5, 200, 200, 200]))
    image = decode(png(2, 8, PALETTE, [b"\0\1"], palette, chunk(b"tRNS", alpha)))
    assert image.pixels.tolist() == [[5, 200]]
    assert image.warnings == warnings
    assert decode(png(8, 1, PALETTE, [b"\xa5"], palette)).pixels.tolist() == [[200, 5, 200, 5, 5, 200, 5, 200]]


def test_grey_and_colour_jpeg() -> None:
    smooth = cv2.GaussianBlur(noise(64, 48), (0, 0), 4)
    for samples in (smooth, np.dstack([smooth] * 3)):
        image = decode(encode(".jpg", samples, cv2.IMWRITE_JPEG_QUALITY, 100))
        assert image.format == "JPEG"
        assert image.warnings == ()
        assert np.abs(image.pixels - smooth).max() <= 2


def test_cmyk_jpeg() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow to write CMYK: pip install pillow")
    grey = np.array([[200] * 8 + [40] * 8] * 8, np.uint8)
    blank = pillow.new("L", (16, 8), 0)
    file = io.BytesIO()
    pillow.merge("CMYK", [blank, blank, blank, pillow.fromarray(255 - grey)]).save(file, "JPEG", quality=95)
    assert np.abs(decode(file.getvalue()).pixels - grey).max() <= 2


# TIFF headers whose only entry is the orientation (tag 0x112)
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).T),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(orientation: int, turn: Callable[[np.ndarray], np.ndarray]) -> None:
    samples = np.zeros((16, 32), np.uint8)
    samples[:8, :8] = 250
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    jpeg = encode(".jpg", samples)
    app1 = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    np.testing.assert_array_equal(decode(jpeg[:2] + app1 + jpeg[2:]).pixels, turn(decode(jpeg).pixels))

    rows = [row.tobytes() for row in samples]
    turned = decode(png(32, 8, GREY, rows, chunk(b"eXIf", tiff)))
    np.testing.assert_array_equal(turned.pixels, turn(samples))


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_file_is_an_error_at_every_length(suffix: str, options: tuple[int, ...]) -> None:
    whole = encode(suffix, noise(40, 40), *(options if suffix == ".jpg" else ()))
    for length in (*range(4, 200, 7), *range(200, len(whole), 97), *range(len(whole) - 20, len(whole))):
        with pytest.raises(ImageError):
            decode(whole[:length])


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_an_error() -> None:
    jpeg, thumbnail = encode(".jpg", noise(40, 40)), encode(".jpg", noise(8, 8))
    app1 = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    with pytest.raises(ImageError, match="truncated"):
        decode((jpeg[:2] + app1 + jpeg[2:])[:-200])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_bytes_after_the_end_are_ignored(suffix: str) -> None:
    whole = encode(suffix, noise(40, 40))
    np.testing.assert_array_equal(decode(whole + b"\0" * 1000 + b"more").pixels, decode(whole).pixels)


def test_a_jpeg_without_its_last_byte_is_an_error() -> None:
    """OpenCV decodes this one, and says nothing."""
    whole = encode(".jpg", cv2.GaussianBlur(noise(300, 400), (0, 0), 3))
    assert as_stored(whole[:-1]).shape == (300, 400)
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[:-1])


def test_a_png_with_a_changed_pixel_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(encode(".png", noise(40, 40), cv2.IMWRITE_PNG_COMPRESSION, 0))
    content[len(content) // 2] ^= 1
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(content))
    assert capfd.readouterr() == ("", "")  # libpng would print


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (2**20 + 1, 1)])
def test_a_png_of_extreme_size_is_an_error(width: int, height: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, GREY, 0, 0, 0)
    content = png(1, 8, GREY, [b"\0"])
    with pytest.raises(ImageError):
        decode(content[:8] + chunk(b"IHDR", header) + content[33:])


def test_a_jpeg_of_extreme_size_is_an_error() -> None:
    jpeg = bytearray(encode(".jpg", noise(8, 8)))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    with pytest.raises(ImageError):
        decode(bytes(jpeg))


def test_a_png_chunk_that_claims_gigabytes_is_an_error() -> None:
    content = bytearray(encode(".png", noise(40, 40)))
    content[33] = 0xCA  # the first byte of the length of IDAT
    with pytest.raises(ImageError, match="truncated"):
        decode(bytes(content))


def test_zero_size_is_an_error() -> None:
    with pytest.raises(ImageError, match="no pixels"):
        decode(png(0, 8, GREY, [b""]))


@pytest.mark.parametrize("name", ["00001371_001.png", "00030198_000.png"])
def test_an_rgba_copy_of_a_radiograph_gives_the_same_pixels(cxr14: Path, name: str) -> None:
    content = (cxr14 / "originals" / name).read_bytes()
    grey = as_stored(content)
    assert grey.shape == (1024, 1024)
    image, copy = decode(content), decode(encode(".png", cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA)))
    np.testing.assert_array_equal(image.pixels, grey)
    np.testing.assert_array_equal(preprocess(copy.pixels, 512), preprocess(image.pixels, 512))
    assert image.warnings == copy.warnings == ()


@pytest.mark.parametrize("name", ["00000100_000.png", "00000773_001.png", "00001054_002.png"])
def test_an_rgba_radiograph_gives_its_colour_channel(cxr14: Path, name: str) -> None:
    content = (cxr14 / "originals" / name).read_bytes()
    rgba = as_stored(content)
    assert rgba.shape == (1024, 1024, 4)
    image = decode(content)
    np.testing.assert_array_equal(image.pixels, rgba[..., 0])
    assert image.warnings == ()
