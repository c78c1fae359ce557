"""What is shown of DICOM files whose headers are unusual, contradict the pixels or are impossible."""

import io
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)
from seeds import content, radiograph

from cxr_trt.errors import ImageError, NoImageError
from cxr_trt.images import decode

SIDE = 48
STRETCHED = "no usable VOI LUT or window, stretched from the smallest to the largest value"
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
GAMMA = np.rint(4095 * (np.arange(4096) / 4095) ** 1.5).astype(int)


def phantom(bits: int = 12) -> np.ndarray:
    """Waves over most of the range, with its ends, [SIDE, SIDE]."""
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = (np.sin(x / 5) * np.cos(y / 7) + 1) / 2
    stored: np.ndarray = np.rint((0.02 + 0.96 * waves) * (2**bits - 1)).astype(np.int64)
    return stored


def table(entries: Any, first: int = 0, bits: int = 12, vr: str = "US") -> list[Dataset]:
    """A sequence of one lookup table, its numbers as they are written."""
    item = Dataset()
    item.add_new(0x00283002, vr, [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "OW", np.asarray(entries, "<u2").tobytes())
    return [item]


def shown(made: Dataset | bytes) -> np.ndarray:
    return decode(made if isinstance(made, bytes) else content(made)).pixels


def warnings_of(made: Dataset | bytes) -> tuple[str, ...]:
    return decode(made if isinstance(made, bytes) else content(made)).warnings


@pytest.fixture(scope="module")
def by_window() -> np.ndarray:
    """What the phantom looks like through a window over all 12 bits."""
    return phantom() * (255 / 4095)


@pytest.fixture(scope="module")
def by_table() -> np.ndarray:
    """What the phantom looks like through GAMMA."""
    looked_up: np.ndarray = GAMMA[phantom()] * (255 / 4095)
    return looked_up


# --- bits of the cells


@pytest.mark.parametrize(
    ("stored", "high", "allocated"), [(12, 15, 16), (10, 11, 16), (10, 15, 16), (6, 7, 8), (12, 31, 32)]
)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_left_justified_pixels_are_shifted_down(stored: int, high: int, allocated: int, syntax: str) -> None:
    values = phantom(stored)
    window = {"WindowCenter": 2 ** (stored - 1), "WindowWidth": 2**stored}
    made = radiograph(values << (high + 1 - stored), allocated, syntax, **window)
    made.BitsStored, made.HighBit = stored, high
    np.testing.assert_allclose(shown(made), values * (255 / (2**stored - 1)), atol=1e-3)
    assert warnings_of(made) == ()


@pytest.mark.parametrize("high", [11, 15])
def test_signed_values_keep_their_sign_wherever_they_lie(high: int) -> None:
    values = phantom() - 2048
    made = radiograph((values & 4095) << (high - 11), 16, WindowCenter=0, WindowWidth=4096)
    made.BitsStored, made.HighBit, made.PixelRepresentation = 12, high, 1
    np.testing.assert_allclose(shown(made), (values + 2048) * (255 / 4095), atol=1e-3)


def test_pixels_that_are_not_left_justified_are_taken_as_they_are(by_window: np.ndarray) -> None:
    made = radiograph(phantom(), **WINDOW)
    made.HighBit = 15
    np.testing.assert_allclose(shown(made), by_window, atol=1e-3)
    assert warnings_of(made) == ("High Bit 15 says that pixels are left-justified, but they are not",)


@pytest.mark.parametrize("overlay", [False, True])
def test_bits_above_high_bit_are_masked(by_window: np.ndarray, overlay: bool) -> None:
    cells = phantom() | np.where(np.arange(SIDE) % 5 == 0, 1 << 13, 0)
    made = radiograph(cells, 16, **WINDOW)
    made.BitsStored, made.HighBit = 12, 11
    if overlay:
        made.add_new(0x60000102, "US", 13)
    np.testing.assert_allclose(shown(made), by_window, atol=1e-3)
    note = "cells hold more than the 12 bits of Bits Stored; the others were left out"
    assert warnings_of(made) == (() if overlay else (note,))


@pytest.mark.parametrize("keyword", ["BitsStored", "HighBit", "PixelRepresentation"])
def test_a_missing_bit_attribute_has_a_default(keyword: str) -> None:
    made = radiograph(phantom(16), 16, WindowCenter=32768, WindowWidth=65536)
    delattr(made, keyword)
    np.testing.assert_allclose(shown(made), phantom(16) * (255 / 65535), atol=1e-3)


# --- tables


@pytest.mark.parametrize("bits", [0, 8, 10, 12, 13, 16])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_depth_of_a_voi_table_is_that_of_its_entries(by_table: np.ndarray, bits: int, syntax: str) -> None:
    made = radiograph(phantom(), syntax=syntax, VOILUTSequence=table(GAMMA, bits=bits))
    np.testing.assert_allclose(shown(made), by_table, atol=1e-3)
    assert warnings_of(made) == (() if bits == 12 else (f"the VOI LUT says {bits} bits and holds 12, which was used",))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_first_value_of_a_table_is_signed_where_values_can_be_negative(by_table: np.ndarray, syntax: str) -> None:
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    for first, vr in ((-1024, "SS"), (65536 - 1024, "US")):
        made = radiograph(phantom(), syntax=syntax, VOILUTSequence=table(GAMMA, first, vr=vr), **rescale)
        np.testing.assert_allclose(shown(made), by_table, atol=1e-3)


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_a_first_value_beyond_32767_is_unsigned_where_values_are_not_negative(vr: str) -> None:
    made = radiograph(np.array([[40000, 40001, 40002]]), 16)
    made.VOILUTSequence = table([0, 51, 255], 40000 if vr == "US" else 40000 - 65536, 8, vr)
    np.testing.assert_allclose(shown(made), [[0, 51, 255]], atol=1e-3)


@pytest.mark.parametrize("count", [32768, 40000, 65536])
def test_a_table_of_many_entries_is_read_whole_even_if_it_is_declared_signed(count: int) -> None:
    made = radiograph(np.array([[0, 1000, count - 1]]), 16, VOILUTSequence=table(np.arange(count), bits=16))
    unsigned, signed = (b"\x28\x00\x02\x30" + vr for vr in (b"US", b"SS"))
    assert content(made).count(unsigned) == 1
    data = content(made).replace(unsigned, signed)
    white = 2 ** (count - 1).bit_length() - 1
    np.testing.assert_allclose(shown(data), [[0, 1000 * 255 / white, (count - 1) * 255 / white]], atol=1e-2)


@pytest.mark.parametrize(
    ("sequence", "note"),
    [
        (lambda: [Dataset()], "the VOI LUT has no usable descriptor or data and was ignored"),
        (lambda: table([7] * 4096), "all entries of the VOI LUT are the same, so it was ignored"),
        (lambda: _short(table(GAMMA)), "the VOI LUT has fewer entries than the 4096 that it says, and was ignored"),
    ],
)
def test_a_table_that_cannot_be_used_gives_way_to_the_window(
    by_window: np.ndarray, sequence: Callable[[], list[Dataset]], note: str
) -> None:
    made = radiograph(phantom(), VOILUTSequence=sequence(), **WINDOW)
    np.testing.assert_allclose(shown(made), by_window, atol=1e-3)
    assert warnings_of(made) == (note,)


def _short(sequence: list[Dataset]) -> list[Dataset]:
    sequence[0].LUTData = sequence[0].LUTData[:1000]
    return sequence


def test_the_second_table_is_taken_where_the_first_cannot_be_used(by_table: np.ndarray) -> None:
    made = radiograph(phantom(), VOILUTSequence=[Dataset(), *table(GAMMA)], **WINDOW)
    np.testing.assert_allclose(shown(made), by_table, atol=1e-3)


# --- numbers that are none, or impossible


def patched(made: Dataset, **values: bytes) -> bytes:
    """The file with decimal strings that pydicom would not write, eight bytes each."""
    placeholders = {keyword: f"{number}" for number, keyword in enumerate(values, start=11111111)}
    for keyword, text in placeholders.items():
        setattr(made, keyword, text)
    data = content(made)
    for keyword, text in placeholders.items():
        assert data.count(text.encode()) == 1
        data = data.replace(text.encode(), values[keyword].ljust(8))
    return data


@pytest.mark.parametrize("value", [b"NaN", b"inf", b"-inf", b"2047,5", b"wide"])
@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth"])
def test_a_window_that_is_no_number_is_ignored(keyword: str, value: bytes) -> None:
    other = "WindowWidth" if keyword == "WindowCenter" else "WindowCenter"
    data = patched(radiograph(phantom(), **{other: 2048}), **{keyword: value})
    values = phantom()
    stretched = (values - values.min()) * (255 / (values.max() - values.min()))
    np.testing.assert_allclose(shown(data), stretched, atol=1e-3)
    name = "Window Center" if keyword == "WindowCenter" else "Window Width"
    assert warnings_of(data) == (f"{name} is not a finite number and was ignored", STRETCHED)


@pytest.mark.parametrize("value", [b"NaN", b"1,0", b"inf"])
@pytest.mark.parametrize(
    ("keyword", "name"), [("RescaleSlope", "Rescale Slope"), ("RescaleIntercept", "Rescale Intercept")]
)
def test_a_rescale_that_is_no_number_is_ignored(by_window: np.ndarray, keyword: str, name: str, value: bytes) -> None:
    data = patched(radiograph(phantom(), **WINDOW), **{keyword: value})
    np.testing.assert_allclose(shown(data), by_window, atol=1e-3)
    assert warnings_of(data) == (f"{name} is not a finite number and was ignored",)


def test_a_slope_of_0_and_empty_numbers_are_ignored(by_window: np.ndarray) -> None:
    for rescale in ({"RescaleSlope": "0", "RescaleIntercept": "0"}, {"RescaleSlope": "", "RescaleIntercept": ""}):
        made = radiograph(phantom(), **WINDOW, **rescale)
        np.testing.assert_allclose(shown(made), by_window, atol=1e-3)
        assert any("Rescale Slope" in warning for warning in warnings_of(made))


@pytest.mark.parametrize(
    ("width", "function", "is_possible"),
    [(0, "LINEAR", False), (-5, "LINEAR", False), (0.999, "LINEAR", False), (1, "LINEAR", True), (0, "SIGMOID", False),
     (0.999, "LINEAR_EXACT", True), (0.999, "SIGMOID", True), (-1, "LINEAR_EXACT", False)],
)  # fmt: skip
def test_a_width_that_its_function_does_not_allow_is_ignored(width: float, function: str, is_possible: bool) -> None:
    made = radiograph(phantom(), WindowCenter=2000, WindowWidth=width, VOILUTFunction=function)
    ignored = f"a Window Width of {width:g} is not possible and was ignored"
    assert (ignored in warnings_of(made)) != is_possible
    assert np.ptp(shown(made)) > 250


def test_the_second_window_is_taken_where_the_first_is_impossible(by_window: np.ndarray) -> None:
    made = radiograph(phantom(), WindowCenter=[100, 2048], WindowWidth=[0, 4096])
    np.testing.assert_allclose(shown(made), by_window, atol=1e-3)


@pytest.mark.parametrize(("function", "said"), [("", "is empty"), ("CUBIC", "is unknown")])
def test_an_unknown_function_is_linear(by_window: np.ndarray, function: str, said: str) -> None:
    made = radiograph(phantom(), VOILUTFunction=function, **WINDOW)
    np.testing.assert_allclose(shown(made), by_window, atol=1e-3)
    (warning,) = warnings_of(made)
    assert said in warning


FAR_TABLE = {"ModalityLUTSequence": table(np.arange(10), 60000, 4)}
LEFT_OUT = "shows all of the picture as one grey, so it was left out"
IMPOSSIBLE = "is not possible and was ignored"
FLATTENING: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "window above": ({"WindowCenter": 60000, "WindowWidth": 10}, (f"the window {LEFT_OUT}", STRETCHED)),
    "window below": ({"WindowCenter": -900, "WindowWidth": 10}, (f"the window {LEFT_OUT}", STRETCHED)),
    "wide window": ({"WindowCenter": 2048, "WindowWidth": 10**7}, (f"the window {LEFT_OUT}", STRETCHED)),
    "far sigmoid": (
        {"WindowCenter": 60000, "WindowWidth": 10, "VOILUTFunction": "SIGMOID"}, (f"the window {LEFT_OUT}", STRETCHED)
    ),
    "two windows": (
        {"WindowCenter": [60000, -900], "WindowWidth": [10, 10]}, (f"the window {LEFT_OUT}",) * 2 + (STRETCHED,)
    ),
    "VOI LUT above": ({"VOILUTSequence": table([1, 2, 3], 60000, 2)}, (f"the VOI LUT {LEFT_OUT}", STRETCHED)),
    "flat VOI LUT": (
        {"VOILUTSequence": table([100] * 4095 + [4095])}, (f"the VOI LUT {LEFT_OUT}", STRETCHED)
    ),
    "modality LUT above": (
        FAR_TABLE | WINDOW,
        (f"the window {LEFT_OUT}", STRETCHED, f"the stretch {LEFT_OUT}",
         "the stored values were stretched from their lowest hundredth to their highest"),
    ),
    "slope of 0": (
        {"RescaleSlope": 0, "RescaleIntercept": 5} | WINDOW, (f"Rescale Slope 0 with Rescale Intercept 5 {IMPOSSIBLE}",)
    ),
    "tiny slope": (
        {"RescaleSlope": "1e-300", "RescaleIntercept": 0} | WINDOW,
        (f"Rescale Slope 1e-300 with Rescale Intercept 0 {IMPOSSIBLE}",),
    ),
    "slope that the intercept swallows": (
        {"RescaleSlope": "1e-14", "RescaleIntercept": 1000} | WINDOW,
        (f"Rescale Slope 1e-14 with Rescale Intercept 1000 {IMPOSSIBLE}",),
    ),
    "huge slope": (
        {"RescaleSlope": "1e308", "RescaleIntercept": 0} | WINDOW,
        (f"Rescale Slope 1e+308 with Rescale Intercept 0 {IMPOSSIBLE}",),
    ),
    "small slope": ({"RescaleSlope": "1e-6", "RescaleIntercept": 0} | WINDOW, (f"the window {LEFT_OUT}", STRETCHED)),
    "padding": (
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095} | WINDOW,
        ("the range of Pixel Padding Values holds all of the picture and was ignored",),
    ),
    "bits above the values": (
        {"BitsStored": 4, "HighBit": 15} | WINDOW,
        ("Bits Stored 4 and High Bit 15 leave one value, so whole cells were taken",),
    ),
    "presentation LUT shape": ({"PresentationLUTShape": "LIN OD"} | WINDOW, ()),
}  # fmt: skip
"""What would show a picture as one grey, and the warnings that say what was done instead."""


@pytest.mark.parametrize("cause", FLATTENING)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("allocated", [16, 32])
def test_no_attribute_of_the_display_makes_a_picture_one_grey(cause: str, photometric: str, allocated: int) -> None:
    elements, expected = FLATTENING[cause]
    made = radiograph(phantom(), allocated, PhotometricInterpretation=photometric)
    made.BitsStored, made.HighBit = 12, 11
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    image = decode(content(made))
    values = np.percentile(image.pixels, (1, 50, 99))
    assert values[2] - values[0] > 200
    order = np.corrcoef(image.pixels.ravel(), phantom().ravel())[0, 1]
    assert order > 0.99 if photometric == "MONOCHROME2" else order < -0.99
    assert image.warnings == expected


@pytest.mark.parametrize("marker", [60000, 65535])
def test_a_marker_does_not_hide_that_a_window_shows_nothing_else(marker: int) -> None:
    stored = phantom()
    stored[:2, :3] = marker
    image = decode(content(radiograph(stored, 16, WindowCenter=60000, WindowWidth=10)))
    assert np.ptp(np.percentile(image.pixels, (1, 99))) > 10
    assert image.warnings[0] == f"the window {LEFT_OUT}"


def test_a_stretch_leaves_out_the_pixels_that_would_hide_all_others() -> None:
    stored = phantom(8).astype(np.int64)
    stored[0, 0] = 2**20
    made = radiograph(stored, 32, RescaleSlope=-1, RescaleIntercept=300)
    image = decode(content(made))
    assert np.corrcoef(image.pixels.ravel()[1:], stored.ravel()[1:])[0, 1] < -0.99
    assert image.warnings[1:] == (
        f"the stretch {LEFT_OUT}",
        "the rescaled values were stretched from their lowest hundredth to their highest",
    )


def test_the_rest_of_a_picture_of_few_values_is_shown_though_its_table_hides_it() -> None:
    stored = np.full((40, 40), 7)
    stored[20, 20] = 9
    image = decode(content(radiograph(stored, 12, **FAR_TABLE)))
    assert (image.pixels[20, 20], image.pixels[0, 0]) == (255, 0)
    assert image.warnings[-1] == "the stored values were stretched from the smallest to the largest"


@pytest.mark.parametrize("noise", [0, 3])
@pytest.mark.parametrize("window", [WINDOW, {"WindowCenter": 60000, "WindowWidth": 10}])
def test_a_picture_that_is_one_grey_stays_so(noise: int, window: dict[str, Any]) -> None:
    stored = 2000 + np.random.default_rng(0).integers(0, noise + 1, (SIDE, SIDE))
    image = decode(content(radiograph(stored, 12, **window)))
    if window is WINDOW or not noise:
        assert np.ptp(image.pixels) < 1
        assert image.warnings == ()


# --- padding


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_padding_matches_whatever_its_sign_is_called(vr: str) -> None:
    values = np.where(np.arange(SIDE) < 10, -500, phantom())
    made = radiograph(values, 16)
    made.add_new(0x00280120, vr, -500 if vr == "SS" else 65036)
    pixels = shown(made)
    assert (pixels[:, :10] == 0).all()
    inside = phantom()[:, 10:]
    np.testing.assert_allclose(pixels[:, 10:], (inside - inside.min()) * (255 / np.ptp(inside)), atol=1e-3)


def test_padding_beyond_bits_stored_is_no_value_of_the_picture(by_window: np.ndarray) -> None:
    made = radiograph(np.where(np.arange(SIDE) < 10, 65535, phantom()), 16, **WINDOW)
    made.BitsStored, made.HighBit = 12, 11
    made.add_new(0x00280120, "US", 65535)
    pixels = shown(made)
    assert (pixels[:, :10] == 0).all()
    np.testing.assert_allclose(pixels[:, 10:], by_window[:, 10:], atol=1e-3)
    assert warnings_of(made) == ()


# --- how the file is written


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_data_set_without_preamble_is_read(by_window: np.ndarray, syntax: str) -> None:
    made = radiograph(phantom(), syntax=syntax, **WINDOW)
    data = content(made)
    meta = data[132:]
    bare = meta[12 + struct.unpack("<I", meta[8:12])[0] :]
    np.testing.assert_allclose(shown(bare), by_window, atol=1e-3)
    assert warnings_of(bare) == ("DICOM data set without preamble",)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_without_a_transfer_syntax_the_file_is_read_as_it_is_written(by_window: np.ndarray, syntax: str) -> None:
    data = _without_syntax(content(radiograph(phantom(), syntax=syntax, **WINDOW)))
    np.testing.assert_allclose(shown(data), by_window, atol=1e-3)
    assert warnings_of(data)[0].startswith("no Transfer Syntax UID, read as ")


def _without_syntax(data: bytes) -> bytes:
    start = data.index(b"\x02\x00\x10\x00UI")
    end = start + 8 + struct.unpack("<H", data[start + 6 : start + 8])[0]
    length = struct.unpack("<I", data[140:144])[0] - (end - start)
    return data[:140] + struct.pack("<I", length) + data[144:start] + data[end:]


@pytest.mark.parametrize(("photometric", "said"), [("monochrome2", "not in capital letters"), ("", "no Photometric")])
def test_a_photometric_interpretation_in_small_letters_or_none_is_read(
    by_window: np.ndarray, photometric: str, said: str
) -> None:
    made = radiograph(phantom(), **WINDOW)
    data = content(made)
    if photometric:
        data = data.replace(b"MONOCHROME2 ", b"monochrome2 ")
    else:
        del made.PhotometricInterpretation
        data = content(made)
    np.testing.assert_allclose(shown(data), by_window, atol=1e-3)
    (warning,) = warnings_of(data)
    assert said in warning


def test_monochrome_with_three_samples_names_both_attributes() -> None:
    made = radiograph(np.zeros((4, 4, 3)), 8, PhotometricInterpretation="MONOCHROME2")
    with pytest.raises(ImageError, match="Samples per Pixel 3 contradicts Photometric Interpretation MONOCHROME2"):
        shown(made)


# --- JPEG


def jpeg_file(samples: np.ndarray, allocated: int, photometric: str, stream: bytes | None = None) -> Dataset:
    made = radiograph(samples, allocated, PhotometricInterpretation=photometric)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    encoded = cv2.imencode(".jpg", samples.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    made.PixelData = encapsulate([stream or encoded])
    return made


def test_eight_bits_in_sixteen_allocated_are_decoded() -> None:
    made = jpeg_file(phantom(8), 16, "MONOCHROME2")
    made.BitsStored, made.HighBit, made.WindowCenter, made.WindowWidth = 12, 11, 128, 256
    np.testing.assert_allclose(shown(made), phantom(8), atol=4)
    assert "Bits Allocated 16, but the JPEG data have 8 bits per sample" in warnings_of(made)


def test_the_colours_of_a_jpeg_stream_are_those_of_its_own_mark() -> None:
    samples = np.stack([phantom(8)] * 3, -1)
    stream = cv2.imencode(".jpg", samples.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    after_jfif = 4 + struct.unpack(">H", stream[4:6])[0]
    marked = stream[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\1" + stream[after_jfif:]
    made = jpeg_file(samples, 8, "RGB", marked)
    np.testing.assert_allclose(shown(made), phantom(8), atol=4)
    assert "the JPEG data are marked as YCbCr, not RGB" in warnings_of(made)


def dcmtk(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"needs {name} of DCMTK: apt-get install dcmtk")
    return program


def test_jpeg_extended_of_12_bits_is_what_dcmtk_makes_of_it(tmp_path: Path) -> None:
    (tmp_path / "plain.dcm").write_bytes(content(radiograph(phantom(), **WINDOW)))
    subprocess.run([dcmtk("dcmcjpeg"), "+ee", tmp_path / "plain.dcm", tmp_path / "jpeg.dcm"], check=True)
    data = (tmp_path / "jpeg.dcm").read_bytes()
    assert dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID == JPEGExtended12Bit
    subprocess.run([dcmtk("dcmdjpeg"), tmp_path / "jpeg.dcm", tmp_path / "raw.dcm"], check=True)
    np.testing.assert_allclose(shown(data), shown((tmp_path / "raw.dcm").read_bytes()), atol=1e-3)


# --- objects that are no X-rays


@pytest.mark.parametrize(
    ("uid", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.33", "structured reports"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "presentation states"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "encapsulated documents"),
        ("1.2.840.10008.1.3.10", "DICOM directories"),
    ],
)
def test_objects_without_an_image_are_told_by_kind(uid: str, kind: str) -> None:
    made = radiograph(phantom())
    del made.PixelData
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid
    with pytest.raises(NoImageError, match=kind):
        shown(made)


def test_a_result_of_cxr_trt_is_no_x_ray() -> None:
    with pytest.raises(NoImageError, match="results of cxr-trt"):
        shown(radiograph(phantom(), ManufacturerModelName="cxr-trt"))


# --- a known picture, written in every way


@st.composite
def written(draw: st.DrawFn) -> tuple[Dataset, np.ndarray]:
    """A data set, and the picture that it shows."""
    allocated = draw(st.sampled_from([8, 16, 32]))
    stored = draw(st.integers(4, min(allocated, 20)))
    high = draw(st.integers(stored - 1, allocated - 1))
    signed, inverted = draw(st.booleans()), draw(st.booleans())
    low = -(2 ** (stored - 1)) if signed else 0
    picture = draw(st.lists(st.integers(0, 2**stored - 1), min_size=2, max_size=12))
    picture = [0, 2**stored - 1, *picture] if draw(st.booleans()) else [*picture, 2**stored - 1, 0]
    values = np.array([picture]) + low
    cells = (values & (2**stored - 1)) << (high + 1 - stored)
    made = radiograph(cells, allocated)
    made.BitsStored, made.HighBit, made.PixelRepresentation = stored, high, int(signed)
    slope, intercept = draw(st.sampled_from([1, 2, 0.5, -1, -0.25])), draw(st.sampled_from([0, -1024, 7]))
    if draw(st.booleans()):
        made.RescaleSlope, made.RescaleIntercept = slope, intercept
    else:
        slope, intercept = 1, 0
    ends = sorted((slope * low + intercept, slope * (low + 2**stored - 1) + intercept))
    voi = draw(st.sampled_from(["none", "LINEAR", "LINEAR_EXACT", "table"]))
    if voi == "table" and (stored > 12 or slope not in (1, -1)):
        voi = "none"
    width = ends[1] - ends[0]
    if voi == "LINEAR":
        made.WindowCenter, made.WindowWidth = (ends[0] + ends[1]) / 2 + 0.5, width + 1
    elif voi == "LINEAR_EXACT":
        made.WindowCenter, made.WindowWidth, made.VOILUTFunction = sum(ends) / 2, width, voi
    elif voi == "table":
        made.VOILUTSequence = table(np.arange(2**stored), int(ends[0]) % 65536, stored)
    grey = np.array([picture]) * (255 / (2**stored - 1))
    if slope < 0:
        grey = 255 - grey
    if inverted:
        made.PhotometricInterpretation = "MONOCHROME1"
        grey = 255 - grey
    return made, grey


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(written())
def test_a_picture_comes_back_however_it_is_written(case: tuple[Dataset, np.ndarray]) -> None:
    made, grey = case
    image = decode(content(made))
    np.testing.assert_allclose(image.pixels, grey, atol=0.01)
    assert [warning for warning in image.warnings if not warning.startswith("no VOI LUT")] == []


# --- the same pictures by DCMTK


REFERENCES: dict[str, tuple[Callable[[], Dataset], tuple[str, ...]]] = {
    "window": (lambda: radiograph(phantom(), **WINDOW), ("+Wi", "1")),
    "narrow window": (lambda: radiograph(phantom(), WindowCenter=1500, WindowWidth=901), ("+Wi", "1")),
    "sigmoid": (lambda: radiograph(phantom(), VOILUTFunction="SIGMOID", **WINDOW), ("+Wi", "1")),
    "MONOCHROME1": (lambda: radiograph(phantom(), PhotometricInterpretation="MONOCHROME1", **WINDOW), ("+Wi", "1")),
    "left-justified": (lambda: _at_high_bit(15, **WINDOW), ("+Wi", "1")),
    "signed": (lambda: radiograph(phantom() - 2048, WindowCenter=0, WindowWidth=4096), ("+Wi", "1")),
    "rescaled": (
        lambda: radiograph(phantom(), RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000, WindowWidth=6000),
        ("+Wi", "1"),
    ),
    "table": (lambda: radiograph(phantom(), VOILUTSequence=table(GAMMA)), ("+Wl", "1")),
    "table that says 10 bits": (
        lambda: radiograph(phantom(), VOILUTSequence=table(GAMMA, bits=10)), ("+Mv", "+Wl", "1")
    ),
    "table that says 16 bits": (
        lambda: radiograph(phantom(), VOILUTSequence=table(GAMMA, bits=16)), ("+Mv", "+Wl", "1")
    ),
    "table with a negative first value": (
        lambda: radiograph(
            phantom(), RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=table(GAMMA, 64512)
        ),
        ("+Wl", "1"),
    ),
    "stretch": (lambda: radiograph(phantom()), ("+Wm",)),
    "bits above High Bit": (lambda: _masked(), ("+Wi", "1")),
    "window of width 0": (lambda: radiograph(phantom(), WindowCenter=0, WindowWidth=0), ("+Wm",)),
}  # fmt: skip


def _at_high_bit(high: int, **elements: Any) -> Dataset:
    made = radiograph(phantom() << (high - 11), 16, **elements)
    made.BitsStored, made.HighBit = 12, high
    return made


def _masked() -> Dataset:
    made = radiograph(phantom() | 0xF000, 16, **WINDOW)
    made.BitsStored, made.HighBit = 12, 11
    return made


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_picture_is_dcmtks(name: str, syntax: str, tmp_path: Path) -> None:
    make, options = REFERENCES[name]
    made = make()
    made.file_meta.TransferSyntaxUID = syntax
    (tmp_path / "a.dcm").write_bytes(content(made))
    subprocess.run([dcmtk("dcm2pnm"), "--no-overlays", *options, tmp_path / "a.dcm", tmp_path / "a.pgm"], check=True)
    expected = cv2.imread(str(tmp_path / "a.pgm"), cv2.IMREAD_GRAYSCALE)
    assert np.ptp(expected) > 100
    assert np.abs(shown(made) - expected).max() <= 1.01


# --- 16-bit PNG and TIFF


def png16(samples: np.ndarray) -> bytes:
    return cv2.imencode(".png", samples.astype(np.uint16))[1].tobytes()


def test_a_hot_pixel_does_not_darken_a_16_bit_png() -> None:
    samples = phantom()
    samples[0, 0] = 65535
    image = decode(png16(samples))
    np.testing.assert_allclose(image.pixels, np.minimum(samples, 4095) * (255 / 4095), atol=1e-3)
    assert image.warnings == ("16-bit file with 12-bit values but for 1, which became white",)


def tiff(samples: np.ndarray, photometric: int = 1, compression: int = 1, order: str = "<", pages: int = 1) -> bytes:
    """A TIFF file of one strip per page; compression 8 is deflate."""
    raw = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    strip = zlib.compress(raw) if compression == 8 else raw
    height, width = samples.shape
    entries = [(256, width), (257, height), (258, 8 * samples.itemsize), (259, compression), (262, photometric),
               (273, 8), (277, 1), (278, height), (279, len(strip))]  # fmt: skip
    directory = 2 + 12 * len(entries) + 4
    first = 8 + len(strip) + len(strip) % 2
    data = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, first) + strip + b"\0" * (len(strip) % 2)
    for page in range(pages):
        data += struct.pack(f"{order}H", len(entries))
        data += b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
        data += struct.pack(f"{order}I", 0 if page == pages - 1 else first + (page + 1) * directory)
    return data


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_grey_tiff_is_read_with_its_polarity(dtype: type, compression: int, order: str, photometric: int) -> None:
    samples = phantom(8 * np.dtype(dtype).itemsize).astype(dtype)
    image = decode(tiff(samples, photometric, compression, order))
    grey = samples * (255 / np.iinfo(dtype).max)
    np.testing.assert_allclose(image.pixels, 255 - grey if photometric == 0 else grey, atol=1e-3)
    assert image.format == "TIFF"


def test_a_tiff_in_lzw_is_read() -> None:
    samples = phantom(16).astype(np.uint16)
    data = cv2.imencode(".tiff", samples, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    np.testing.assert_allclose(decode(data).pixels, samples * (255 / 65535), atol=1e-3)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (tiff(phantom(8).astype(np.uint8), pages=3), "the TIFF file holds 3 pages; extract one"),
        (tiff(phantom(8).astype(np.uint8))[:-30], "the TIFF file is truncated"),
        (cv2.imencode(".bmp", phantom(8).astype(np.uint8))[1].tobytes(), "a BMP image, which is not supported"),
        (cv2.imencode(".webp", phantom(8).astype(np.uint8))[1].tobytes(), "a WebP image, which is not supported"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        decode(data)


def test_a_lossless_jpeg_file_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "plain.dcm").write_bytes(content(radiograph(phantom(), **WINDOW)))
    subprocess.run([dcmtk("dcmcjpeg"), "+e1", tmp_path / "plain.dcm", tmp_path / "jpeg.dcm"], check=True)
    pixels = dcmread(tmp_path / "jpeg.dcm").PixelData
    with pytest.raises(ImageError, match=r"the JPEG file is lossless with 1[26] bits per sample"):
        decode(pixels[pixels.index(b"\xff\xd8\xff") : pixels.rindex(b"\xff\xd9") + 2])
