import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, RLELossless
from seeds import HTJ2K_RAMP, content, dataset, radiograph

from cxr_trt.errors import ImageError
from cxr_trt.images import HEAD_BYTES, Image, decode, image_format

SAMPLES = np.random.default_rng(0).integers(0, 256, (36, 40), np.uint8)


def dicom(compression: str | None = None, plugin: str = "") -> bytes:
    made = radiograph(SAMPLES, 8, PhotometricInterpretation="MONOCHROME1", WindowCenter=128, WindowWidth=256)
    if compression:
        made.compress(compression, encoding_plugin=plugin)
    return content(made)


FILES = {
    "PNG": cv2.imencode(".png", SAMPLES)[1].tobytes(),
    "PNG16": cv2.imencode(".png", SAMPLES.astype(np.uint16) * 3)[1].tobytes(),
    "RGBA": cv2.imencode(".png", np.dstack([SAMPLES] * 4))[1].tobytes(),
    "JPEG": cv2.imencode(".jpg", SAMPLES)[1].tobytes(),
    "DICOM": dicom(),
    "RLE": dicom(RLELossless, "pydicom"),
    "J2K": dicom(JPEG2000Lossless, "pylibjpeg"),
    "HTJ2K": content(dataset(HTJ2KLossless, frame=HTJ2K_RAMP)),
}


def is_image_or_image_error(data: bytes) -> None:
    try:
        image = decode(data)
    except ImageError as error:
        sentence = str(error)
        assert sentence.strip()
        assert "\n" not in sentence
        return
    assert isinstance(image, Image)
    assert image.pixels.dtype == np.float32
    assert image.pixels.ndim == 2
    assert image.pixels.size > 0
    assert image.pixels.min() >= 0
    assert image.pixels.max() <= 255


@pytest.mark.parametrize(
    ("name", "expected"),
    [("PNG", "PNG"), ("RGBA", "PNG"), ("JPEG", "JPEG"), ("DICOM", "DICOM"), ("J2K", "DICOM"), ("HTJ2K", "DICOM")],
)
def test_the_format_is_told_by_the_head(name: str, expected: str) -> None:
    assert image_format(FILES[name][:HEAD_BYTES]) == expected
    assert decode(FILES[name]).format == expected


@pytest.mark.parametrize("head", [b"", b"\x89PNG", b"\xff", b"GIF89a", b"II+*", bytes(131), bytes(128) + b"dicm"])
def test_other_heads_are_no_format(head: bytes) -> None:
    assert image_format(head) is None


def test_an_empty_file_is_named() -> None:
    with pytest.raises(ImageError, match="empty"):
        decode(b"")


def test_another_format_is_named() -> None:
    with pytest.raises(ImageError, match="not a DICOM, PNG, JPEG or TIFF image"):
        decode(b"GIF89a" + bytes(1000))


@pytest.mark.parametrize("name", FILES)
def test_a_bare_head_is_an_error(name: str) -> None:
    with pytest.raises(ImageError):
        decode(FILES[name][: min(HEAD_BYTES, len(FILES[name]) - 50)])


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(128) + b"DICM"]), st.binary(max_size=400))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_arbitrary_bytes(head: bytes, body: bytes) -> None:
    is_image_or_image_error(head + body)


@given(
    st.sampled_from(list(FILES)),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), max_size=4),
    st.one_of(st.none(), st.integers(0, 2**16)),
)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_mutated_files(name: str, flips: list[tuple[int, int]], length: int | None) -> None:
    data = bytearray(FILES[name])
    for position, mask in flips:
        data[position % len(data)] ^= mask
    is_image_or_image_error(bytes(data[: None if length is None else length % len(data)]))


DESCRIPTION = [i for i in range(132, 700) if FILES["DICOM"][i : i + 2] == struct.pack("<H", 0x28)]
"""Where the elements of group 0028, which describe the picture, start."""


@given(st.sampled_from(DESCRIPTION), st.binary(min_size=2, max_size=2))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_mutated_dicom_description(start: int, value: bytes) -> None:
    data = bytearray(FILES["DICOM"])
    data[start + 8 : start + 10] = value
    is_image_or_image_error(bytes(data))
