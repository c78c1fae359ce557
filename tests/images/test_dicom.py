import io
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import gdcm  # type: ignore[import-untyped]
import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000MC,
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000MCLossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from seeds import content, radiograph

from cxr_trt.errors import ImageError
from cxr_trt.images import decode
from cxr_trt.images.dicom_pixels import DECODER_PLUGINS, decode_cells
from cxr_trt.images.preprocess import preprocess

STRETCHED = "no VOI LUT or window, stretched from the smallest to the largest value"


def grey(made: Dataset) -> list[float]:
    """The decoded first row."""
    pixels = decode(content(made)).pixels
    assert pixels.dtype == np.float32
    row: list[float] = pixels[0].tolist()
    return row


def lut(entries: int, first: int, bits: int, data: list[int] | bytes) -> list[Dataset]:
    """A sequence of one lookup table."""
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = data
    item["LUTData"].VR = "OW" if isinstance(data, bytes) else "US"
    return [item]


def window(center: Any, width: Any, function: str = "LINEAR") -> dict[str, Any]:
    return {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}


# Hand-computed from PS3.3 C.11.2.1.2 (linear) and C.11.2.1.3 (sigmoid, linear exact).
WINDOWS = [
    (window(2000, 101), [1949, 1950, 1975, 2000, 2049, 2050], [0, 1.275, 65.025, 128.775, 253.725, 255]),
    (window(2000, 100, "LINEAR_EXACT"), [1950, 1975, 2000, 2025, 2050, 2051], [0, 63.75, 127.5, 191.25, 255, 255]),
    (window(2000, 100, "SIGMOID"), [0, 1975, 2000, 2025, 4095], [0, 68.5799, 127.5, 186.4201, 255]),
    (window([2000, 100], [101, 7]), [1949, 2000, 2050], [0, 128.775, 255]),
    (window(2000, 1), [1999, 2000], [0, 255]),
]


@pytest.mark.parametrize(("elements", "stored", "expected"), WINDOWS)
def test_window(elements: dict[str, Any], stored: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(grey(radiograph(stored, **elements)), expected, atol=1e-3)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("bits", [8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 32])
def test_every_bit_depth(bits: int, syntax: UID) -> None:
    """A linear window over the whole range: c - 0.5 = (2^bits - 1) / 2, w - 1 = 2^bits - 1."""
    top = 2**bits - 1
    stored = [0, 1, top // 3, top - 1, top]
    image = decode(content(radiograph(stored, bits, syntax, **window(2 ** (bits - 1), 2**bits))))
    np.testing.assert_allclose(image.pixels[0], np.array(stored) * (255 / top), atol=1e-3)
    assert image.format == "DICOM"
    assert image.warnings == ()


def test_unused_high_bits_are_ignored() -> None:
    np.testing.assert_allclose(grey(radiograph([0, 4095 + 0xF000], **window(2048, 4096))), [0, 255], atol=1e-3)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16, 20, 32])
def test_signed_values_of_every_bit_depth(bits: int) -> None:
    """Two's complement (PS3.3 C.7.6.3.1): half of the range is negative."""
    half = 2 ** (bits - 1)
    stored = [-half, -1, 0, half - 1]
    expected = [0, (half - 1) * 255 / (2 * half - 1), half * 255 / (2 * half - 1), 255]
    np.testing.assert_allclose(grey(radiograph(stored, bits, **window(0, 2 * half))), expected, atol=1e-3)


def test_signed_values() -> None:
    np.testing.assert_allclose(grey(radiograph([-2048, -1, 2047], **window(0, 4096))), [0, 127.4689, 255], atol=1e-3)


@pytest.mark.parametrize(
    ("slope", "intercept", "stored", "expected"),
    [
        (2, -1000, [500, 1000, 1500], [0, 127.5, 255]),  # 0, 1000, 2000 after rescale
        (0.5, 0, [0, 2000, 4000], [0, 127.5, 255]),
        (-1, 4000, [4000, 3000, 2000], [0, 127.5, 255]),  # larger stored values are darker
    ],
)
def test_rescale_comes_before_the_window(
    slope: float, intercept: float, stored: list[int], expected: list[float]
) -> None:
    made = radiograph(stored, RescaleSlope=slope, RescaleIntercept=intercept, **window(1000, 2000, "LINEAR_EXACT"))
    np.testing.assert_allclose(grey(made), expected, atol=1e-3)


def test_modality_lut_comes_before_the_window() -> None:
    modality = lut(4, 10, 16, [0, 1000, 1500, 2000])
    made = radiograph([0, 10, 11, 12, 13, 99], ModalityLUTSequence=modality, **window(1000, 2000, "LINEAR_EXACT"))
    np.testing.assert_allclose(grey(made), [0, 0, 127.5, 191.25, 255, 255], atol=1e-3)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_voi_lut(syntax: UID) -> None:
    """Values before the first entry get the first, values after the last get the last (C.11.2.1.1)."""
    table = np.array([1023, 0, 2047, 4095], ">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    made = radiograph([0, 100, 101, 102, 103, 104, 4095], syntax=syntax, VOILUTSequence=lut(4, 100, 12, table))
    expected = np.array([1023, 1023, 0, 2047, 4095, 4095, 4095]) * (255 / 4095)
    np.testing.assert_allclose(grey(made), expected, atol=1e-3)


@pytest.mark.parametrize("packed", [False, True])
def test_voi_lut_of_4096_entries_of_8_bits(packed: bool) -> None:
    entries = np.arange(4096) // 16
    table = entries.astype("u1" if packed else "<u2").tobytes()
    made = radiograph([0, 255, 256, 2048, 4095], VOILUTSequence=lut(4096, 0, 8, table))
    assert grey(made) == [0, 15, 16, 128, 255]


def test_voi_lut_of_65536_entries_is_written_as_0() -> None:
    table = (65535 - np.arange(65536)).astype("<u2").tobytes()
    made = radiograph([0, 65535, 65278], 16, VOILUTSequence=lut(0, 0, 16, table))
    assert grey(made) == [255, 0, 1]


def test_voi_lut_after_rescale_and_with_negative_first_value() -> None:
    made = radiograph([0, 1, 2], RescaleSlope=1, RescaleIntercept=-1, VOILUTSequence=lut(3, -1, 8, [0, 51, 255]))
    assert grey(made) == [0, 51, 255]


def test_voi_lut_goes_before_a_window() -> None:
    made = radiograph([0, 1], VOILUTSequence=lut(2, 0, 8, [255, 51]), **window(2000, 101))
    assert grey(made) == [255, 51]


@pytest.mark.parametrize("bits", [0, 8, 10, 14, 16])
def test_the_depth_of_a_voi_lut_is_that_of_its_entries(bits: int) -> None:
    image = decode(content(radiograph([0, 1, 2], VOILUTSequence=lut(3, 0, bits, [0, 2047, 4095]))))
    np.testing.assert_allclose(image.pixels[0], [0, 127.469, 255], atol=1e-3)
    assert image.warnings == (f"the VOI LUT says {bits} bits and holds 12, which was used",)


@pytest.mark.parametrize("elements", [{}, {"WindowCenter": None, "WindowWidth": None}])
def test_without_voi_the_values_are_stretched(elements: dict[str, Any]) -> None:
    image = decode(content(radiograph([100, 200, 500], **elements)))
    assert image.pixels.tolist() == [[0, 63.75, 255]]
    assert image.warnings == (STRETCHED,)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("elements", [{}, window(7, 1), {"PixelPaddingValue": 7}])
def test_a_constant_image_is_finite(photometric: str, elements: dict[str, Any]) -> None:
    made = radiograph([7, 7, 7], PhotometricInterpretation=photometric, **elements)
    assert len(set(grey(made))) == 1
    assert np.isfinite(grey(made)).all()


@pytest.mark.parametrize("shape", [{}, {"PresentationLUTShape": "INVERSE"}])
@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        (window(2000, 2000, "LINEAR_EXACT"), [255, 191.25, 0]),
        ({"VOILUTSequence": lut(4001, 0, 8, [v * 255 // 4000 for v in range(4001)])}, [255, 159, 0]),
        ({}, [255, 159.375, 0]),
    ],
)
def test_monochrome1_is_inverted_once(elements: dict[str, Any], expected: list[float], shape: dict[str, Any]) -> None:
    made = radiograph([0, 1500, 4000], PhotometricInterpretation="MONOCHROME1", **elements, **shape)
    np.testing.assert_allclose(grey(made), expected, atol=1)
    assert not [warning for warning in decode(content(made)).warnings if "Presentation" in warning]


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"), [("MONOCHROME1", "IDENTITY", [255, 0]), ("MONOCHROME2", "INVERSE", [0, 255])]
)
def test_the_photometric_interpretation_wins_with_a_warning(
    photometric: str, shape: str, expected: list[float]
) -> None:
    made = radiograph(
        [0, 4000],
        PhotometricInterpretation=photometric,
        PresentationLUTShape=shape,
        **window(2000, 4000, "LINEAR_EXACT"),
    )
    image = decode(content(made))
    assert image.pixels.tolist() == [expected]
    assert image.warnings == (f"Presentation LUT Shape {shape} contradicts {photometric}, which was followed",)


@pytest.mark.parametrize(
    ("stored", "elements", "expected"),
    [
        ([0, 100, 200, 500], {"PixelPaddingValue": 0}, [0, 0, 63.75, 255]),
        ([4095, 100, 200, 500], {"PixelPaddingValue": 4095}, [0, 0, 63.75, 255]),
        ([0, 10, 100, 500], {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 10}, [0, 0, 0, 255]),
        ([10, 0, 100, 500], {"PixelPaddingValue": 10, "PixelPaddingRangeLimit": 0}, [0, 0, 0, 255]),
        ([-2000, 0, 50, 100], {"PixelPaddingValue": -2000}, [0, 0, 127.5, 255]),
        ([0, 100, 500], {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"}, [0, 255, 0]),
        ([4095, 1000], {"PixelPaddingValue": 4095, **window(1000, 2000, "LINEAR_EXACT")}, [0, 127.5]),
    ],
)
def test_padding_is_black_and_does_not_stretch(
    stored: list[int], elements: dict[str, Any], expected: list[float]
) -> None:
    assert grey(radiograph(stored, **elements)) == expected


COLOUR = [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]]
LUMA = [76, 150, 29, 90]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("factor", [1, 257])
def test_colour_becomes_luma_with_a_warning(factor: int, syntax: UID) -> None:
    image = decode(content(radiograph(np.array(COLOUR) * factor, 8 if factor == 1 else 16, syntax)))
    np.testing.assert_allclose(image.pixels[0], LUMA, atol=0.5)
    assert image.warnings == ("colour image, converted to grey",)


def test_ybr_becomes_luma() -> None:
    """Y of YBR_FULL is the BT.601 luma itself (C.7.6.3.1.2)."""
    made = radiograph([[[76, 128, 128], [200, 128, 128]]], 8, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(grey(made), [76, 200], atol=1)


def test_palette_colour_is_an_error() -> None:
    with pytest.raises(ImageError, match="PALETTE COLOR"):
        grey(radiograph([0, 1], 8, PhotometricInterpretation="PALETTE COLOR"))


def phantom(bits: int) -> np.ndarray:
    """Smooth waves over the whole range, [40, 48]."""
    y, x = np.mgrid[:40, :48]
    waves: np.ndarray = (np.sin(x / 5) * np.cos(y / 7) + 1) / 2 * (2**bits - 1)
    return waves.astype(np.uint16)


def change_syntax(source: bytes, syntax: UID, folder: Path) -> bytes:
    """Compress with GDCM, which works on files."""
    (folder / "raw.dcm").write_bytes(source)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "raw.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "compressed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "compressed.dcm").read_bytes()


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless])
def test_lossless_compression_changes_nothing(bits: int, syntax: UID, tmp_path: Path) -> None:
    made = radiograph(phantom(bits), bits, **window(2 ** (bits - 1), 2**bits))
    plain = content(made)
    if syntax in (JPEGLosslessSV1, JPEGLSLossless):
        packed = change_syntax(plain, syntax, tmp_path)
    else:
        made.compress(syntax, encoding_plugin="pydicom" if syntax == RLELossless else "pylibjpeg")
        packed = content(made)
    assert dcmread(io.BytesIO(packed)).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(decode(packed).pixels, decode(plain).pixels)


needs_openjph = pytest.mark.skipif(
    not getattr(imagecodecs, "HTJ2K", None) or not imagecodecs.HTJ2K.available,
    reason="needs an imagecodecs with OpenJPH, which has no wheels for this Python",
)


def htj2k(samples: np.ndarray, syntax: UID, *, reversible: bool = True, **elements: Any) -> Dataset:
    """The samples as OpenJPH encodes them; its order of packets is RPCL."""
    bits = 8 * samples.itemsize
    options = {} if reversible else {"level": 0.0005}
    stream = imagecodecs.htj2k_encode(samples, reversible=reversible, **options)
    made = radiograph(samples, bits, **elements)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([stream])
    return made


@needs_openjph
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_htj2k_in_each_syntax_changes_nothing(bits: int, syntax: UID) -> None:
    samples = phantom(bits).astype(np.uint8 if bits == 8 else np.uint16)
    seen = window(2 ** (bits - 1), 2**bits)
    image = decode(content(htj2k(samples, syntax, **seen)))
    np.testing.assert_array_equal(image.pixels, decode(content(radiograph(samples, bits, **seen))).pixels)
    assert np.ptp(image.pixels) > 250


@needs_openjph
def test_signed_htj2k_keeps_its_sign() -> None:
    samples = (phantom(12).astype(np.int64) - 2048).astype(np.int16)
    image = decode(content(htj2k(samples, HTJ2KLossless, **window(0, 4096))))
    np.testing.assert_allclose(image.pixels, (samples.astype(int) + 2048) * (255 / 4095), atol=1e-3)


@needs_openjph
def test_lossy_htj2k_is_what_openjph_makes_of_it() -> None:
    made = htj2k(phantom(16), HTJ2K, reversible=False, **window(2**15, 2**16))
    stream = get_frame(made.PixelData, 0, number_of_frames=1)
    expected = imagecodecs.htj2k_decode(stream)
    assert 0 < np.abs(expected.astype(int) - phantom(16)).max() < 1000
    np.testing.assert_allclose(decode(content(made)).pixels, expected * (255 / 65535), atol=0.01)


@needs_openjph
def test_colour_in_htj2k_becomes_luma() -> None:
    samples = np.array(COLOUR, np.uint8).repeat(8, 0).repeat(8, 1)
    made = htj2k(samples, HTJ2KLossless, PhotometricInterpretation="YBR_RCT")
    np.testing.assert_allclose(decode(content(made)).pixels[0, ::8], LUMA, atol=0.5)


@needs_openjph
def test_htj2k_that_is_cut_off_is_an_error() -> None:
    """OpenJPH itself would make a picture of it."""
    made = htj2k(phantom(16), HTJ2KLossless)
    stream = get_frame(made.PixelData, 0, number_of_frames=1)
    for length in range(20, len(stream) - 2, 37):
        made.PixelData = encapsulate([stream[:length]])
        with pytest.raises(ImageError, match=r"pixel data .* damaged"):
            grey(made)


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_baseline(colour: bool) -> None:
    samples = phantom(8).astype(np.uint8)
    made = radiograph(np.dstack([samples] * 3) if colour else samples, 8)
    jpeg = cv2.imencode(".jpg", np.dstack([samples] * 3) if colour else samples)[1].tobytes()
    if colour:
        made.PhotometricInterpretation = "YBR_FULL_422"
    else:
        made.WindowCenter, made.WindowWidth = 128, 256
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([jpeg])
    assert np.abs(decode(content(made)).pixels - decode(jpeg).pixels).max() <= 2


@pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"])
def test_lossless_files_of_other_writers(name: str) -> None:
    plain, packed = (decode(Path(str(get_testdata_file(f"{n}.dcm"))).read_bytes()) for n in ("MR_small", name))
    np.testing.assert_array_equal(plain.pixels, packed.pixels)


# Files of pydicom in every compressed syntax that several of its decoders know, and by how much these may differ:
# not at all where nothing is lost, else by rounding.
OTHERS = [
    ("MR_small_jp2klossless.dcm", 0),
    ("J2K_pixelrep_mismatch.dcm", 0),
    ("JPEG2000.dcm", 1),
    ("693_J2KI.dcm", 1),
    ("SC_rgb_small_odd_jpeg.dcm", 3),
    ("SC_rgb_jpeg_dcmtk.dcm", 3),
    ("SC_rgb_jpeg_app14_dcmd.dcm", 3),
    ("SC_rgb_gdcm_KY.dcm", 1),
]


@pytest.mark.parametrize(("name", "most"), OTHERS)
def test_pydicoms_other_decoders_give_the_same(name: str, most: int, radiographs: Path) -> None:
    pytest.importorskip("PIL.Image", reason="needs Pillow as another decoder: pip install pillow")
    path = radiographs / name
    made = dcmread(path if path.exists() else str(get_testdata_file(name, download=False)))
    syntax = made.file_meta.TransferSyntaxUID
    values, photometric = decode_cells(made, syntax, [])
    others = [plugin for plugin in get_decoder(syntax).available_plugins if plugin != DECODER_PLUGINS[syntax]]
    assert others
    for plugin in others:
        expected, properties = get_decoder(syntax).as_array(made, decoding_plugin=plugin)
        assert str(properties["photometric_interpretation"]) == photometric
        difference = values.view(expected.dtype).astype(np.int64) - expected.astype(np.int64)
        assert np.abs(difference).max() <= most, plugin


def test_each_compressed_syntax_has_one_decoder_and_it_is_installed() -> None:
    for syntax, plugin in DECODER_PLUGINS.items():
        assert plugin in get_decoder(syntax).available_plugins


def test_lungs_of_a_real_radiograph_are_dark(radiographs: Path) -> None:
    image = decode((radiographs / "RG1_UNCR.dcm").read_bytes())
    picture = preprocess(image.pixels, 512)
    left_lung, right_lung, spine = picture[60:130, 300:380], picture[60:130, 100:180], picture[150:300, 225:275]
    assert image.pixels.shape == (1955, 1841)
    assert image.warnings == ()
    assert max(left_lung.mean(), right_lung.mean()) + 40 < spine.mean()


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_real_radiographs_are_the_same_in_jpeg_2000(radiographs: Path, name: str) -> None:
    plain, packed = (decode((radiographs / f"{name}_{kind}.dcm").read_bytes()) for kind in ("UNCR", "J2KR"))
    np.testing.assert_array_equal(plain.pixels, packed.pixels)
    assert plain.pixels.max() - plain.pixels.min() > 200


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ({"NumberOfFrames": 2}, "holds 2 frames; extract one"),
        ({"Rows": 60000, "Columns": 60000}, "too large"),
        ({"Rows": 0}, "no pixels"),
        ({"Columns": 5}, "damaged"),
        ({"BitsAllocated": 12}, "damaged"),
        ({"PhotometricInterpretation": "HSV"}, "Photometric Interpretation HSV"),
        ({"BitsStored": 17}, "Bits Stored 17 and High Bit 11 are not possible with 16 bits"),
        ({"HighBit": 16}, "High Bit 16 are not possible"),
        ({"HighBit": 5}, "High Bit 5 are not possible"),
    ],
)
def test_what_cannot_be_shown_is_an_error(elements: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        grey(radiograph([[0, 1], [2, 3]], **elements))


def test_float_pixels_are_an_error() -> None:
    made = radiograph([0, 1])
    del made.PixelData
    made.FloatPixelData = np.zeros(2, "<f4").tobytes()
    with pytest.raises(ImageError, match="floating-point"):
        grey(made)


def test_a_file_without_pixels_is_an_error() -> None:
    made = radiograph([0, 1])
    del made.PixelData
    with pytest.raises(ImageError, match="no pixel data"):
        grey(made)


@pytest.mark.parametrize(
    ("syntax", "name"),
    [(MPEG2MPML, "MPEG2"), (JPEG2000MC, "JPEG 2000 Part 2"), (JPEG2000MCLossless, "JPEG 2000 Part 2")],
)
def test_an_unknown_transfer_syntax_is_an_error(syntax: UID, name: str) -> None:
    made = radiograph(phantom(8), 8)
    made.PixelData = encapsulate([b"\0" * 100])
    made.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(ImageError, match=f"transfer syntax {name} .* not supported"):
        grey(made)


def test_a_second_hidden_frame_is_an_error() -> None:
    made = radiograph(phantom(8), 8)
    made.compress(RLELossless, encoding_plugin="pydicom")
    frame = get_frame(made.PixelData, 0, number_of_frames=1)
    made.PixelData = encapsulate([frame, frame])
    with pytest.raises(ImageError, match="extract one"):
        grey(made)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_a_truncated_file_is_an_error_at_every_length(
    syntax: UID, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = radiograph(phantom(12))
    if syntax == JPEGLosslessSV1:
        whole = change_syntax(content(made), syntax, tmp_path)
    else:
        if syntax != ExplicitVRLittleEndian:
            made.compress(syntax, encoding_plugin="pydicom" if syntax == RLELossless else "pylibjpeg")
        whole = content(made)
    decode(whole)
    # The last four bytes of a compressed file are only the length, always 0, of the delimiter.
    for length in (*range(132, 400, 13), *range(400, len(whole) - 20, 97), *range(len(whole) - 20, len(whole) - 4)):
        with pytest.raises(ImageError):
            decode(whole[:length])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (2, 0),  # no marker
        (3, 0xD1),  # a marker that belongs into scans
        (6, 253),  # bits of a sample
        (7, 3),  # height
        (9, 3),  # width
        (11, 3),  # components
        (15, 0xC1),  # no marker
        (16, 0),  # an unknown marker
    ],
)
def test_a_jpeg_header_that_would_crash_gdcm_is_an_error(offset: int, value: int, tmp_path: Path) -> None:
    data = bytearray(change_syntax(content(radiograph(phantom(12), **window(2048, 4096))), JPEGLosslessSV1, tmp_path))
    data[data.index(b"\xff\xd8\xff\xc3") + offset] = value
    with pytest.raises(ImageError, match="JPEG data"):
        decode(bytes(data))


@pytest.mark.parametrize("odd", [b"JFIF\0\2\1", b"Adobe\0\x64\0\0\0\0\x25"])
def test_a_jpeg_application_segment_that_would_crash_gdcm_is_an_error(odd: bytes) -> None:
    made = radiograph(phantom(8), 8)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    jpeg = cv2.imencode(".jpg", phantom(8).astype(np.uint8))[1].tobytes()
    segment = (b"\xff\xee" if odd[:1] == b"A" else b"\xff\xe0") + struct.pack(">H", 2 + len(odd)) + odd
    made.PixelData = encapsulate([jpeg[:2] + segment + jpeg[2:]])
    with pytest.raises(ImageError, match="JFIF version or Adobe transform"):
        grey(made)


def test_a_truncated_frame_is_an_error() -> None:
    for syntax, plugin in [(RLELossless, "pydicom"), (JPEG2000Lossless, "pylibjpeg")]:
        made = radiograph(phantom(12))
        made.compress(syntax, encoding_plugin=plugin)
        frame = get_frame(made.PixelData, 0, number_of_frames=1)
        made.PixelData = encapsulate([frame[: len(frame) // 2]])
        with pytest.raises(ImageError, match=r"pixel data .* damaged"):
            grey(made)


@pytest.mark.parametrize("high", [b"\xfd\x00", b"\xff\x00\xff\x00\xff\x00"])
def test_rle_data_that_are_too_long_are_cut_off(high: bytes) -> None:
    """Two segments for four pixels of 12 bits, 0x0050 each; pylibjpeg's decoder panics if the first has six bytes."""
    segments = struct.pack("<16I", 2, 64, 64 + len(high), *[0] * 13) + high + b"\xfd\x50"
    made = radiograph(np.zeros((2, 2)), 12, RLELossless, PixelData=encapsulate([segments]), **window(128, 256))
    np.testing.assert_allclose(grey(made), [80, 80], atol=1e-3)


def test_what_pydicom_warns_about_reaches_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """Here too many bytes of pixel data; warnings are errors in this test run, in every thread."""
    whole = content(radiograph([[0, 100], [200, 500]], PixelData=np.array([0, 100, 200, 500, 9, 9], "<u2").tobytes()))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns inside a decode
    try:
        with ThreadPoolExecutor(4) as pool:
            for image in pool.map(decode, [whole] * 200):
                assert image.pixels[1].tolist() == pytest.approx([102, 255])
    finally:
        sys.setswitchinterval(interval)
    assert capfd.readouterr() == ("", "")
