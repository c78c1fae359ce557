"""DICOM files to data sets, and their Pixel Data to cells, through pydicom and one decoder per transfer syntax."""

import io
from collections.abc import Callable
from typing import Any

import gdcm
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLETransferSyntaxes,
)

from cxr_trt.errors import ImageError, NoImageError
from cxr_trt.images import jpeg2000
from cxr_trt.images.dicom_attributes import code, numbers, text
from cxr_trt.images.headers import JpegHeader, jpeg2000_size, jpeg_header
from cxr_trt.images.image import check_size

jpeg2000.add_to_pydicom()

DECODER_PLUGINS: dict[UID, str] = {
    **dict.fromkeys(JPEGTransferSyntaxes + JPEGLSTransferSyntaxes, "gdcm"),
    **dict.fromkeys(jpeg2000.SYNTAXES, jpeg2000.PLUGIN),
    **dict.fromkeys(RLETransferSyntaxes, "pylibjpeg"),
}
"""The one decoder of each compressed transfer syntax, so that pixels do not depend on what else is installed."""

OWN_MODEL = "cxr-trt"
OBJECTS_WITHOUT_IMAGE = {
    "1.2.840.10008.1.3.10": "DICOM directories (DICOMDIR)",
    "1.2.840.10008.5.1.4.1.1.88.": "structured reports",
    "1.2.840.10008.5.1.4.1.1.11.": "presentation states",
    "1.2.840.10008.5.1.4.1.1.104.": "encapsulated documents",
    "1.2.840.10008.5.1.4.1.1.9.": "waveforms",
    "1.2.840.10008.5.1.4.1.1.66": "segmentations, registrations or raw data",
    "1.2.840.10008.5.1.4.34.": "work list items",
}
"""Kinds of objects by the beginning of their SOP Class UID (PS3.4 B.5, PS3.6 A): they are skipped, not errors."""


def read_data_set(data: bytes) -> tuple[Dataset, UID, list[str]]:
    """Preamble and prefix, Transfer Syntax UID (0002,0010), SOP Class UID (0008,0016); PS3.10 7.1, PS3.5 10.

    Does: the file is read in its transfer syntax. Objects that hold no image are skipped.
    Missing: a data set without preamble is read as such, with a note. Without a transfer syntax, the one that the data
    set was read with is taken, or for compressed pixels the one that their stream begins like, with a note.
    Contradictory: the prefix DICM goes before a TIFF signature in the preamble.
    Impossible: what is neither is an error.

    Returns:
        The data set, its transfer syntax, and notes on what was guessed.

    Raises:
        NoImageError: a kind of object that holds no image, or a result of cxr-trt.
    """
    has_preamble = data[128:132] == b"DICM"
    dataset = dcmread(io.BytesIO(data), force=not has_preamble)
    kind = text(dataset, "SOPClassUID") or text(dataset.file_meta, "MediaStorageSOPClassUID")
    for beginning, name in OBJECTS_WITHOUT_IMAGE.items():
        if kind.startswith(beginning):
            raise NoImageError(name)
    if text(dataset, "ManufacturerModelName").lower() == OWN_MODEL:
        raise NoImageError("results of cxr-trt")
    notes = [] if has_preamble else ["DICOM data set without preamble"]
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax:
        syntax = _guessed_syntax(dataset)
        dataset.file_meta.TransferSyntaxUID = syntax
        if has_preamble:
            notes.append(f"no Transfer Syntax UID, read as {syntax.name}")
    return dataset, UID(syntax), notes


def _guessed_syntax(dataset: Dataset) -> UID:
    """The syntax that the data set was read with; for compressed pixels, by the beginning of their stream."""
    pixels = dataset.get("PixelData") or b""
    if pixels[:4] != b"\xfe\xff\x00\xe0":  # no item (PS3.5 A.4)
        is_implicit, is_little = dataset.original_encoding
        return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
    stream = next(generate_frames(pixels, number_of_frames=1))
    if stream.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")):
        return JPEG2000Lossless
    process = jpeg_header(stream).process
    return {0xC0: JPEGBaseline8Bit, 0xC1: JPEGExtended12Bit, 0xF7: JPEGLSLossless}.get(process, JPEGLosslessSV1)


def decode_cells(dataset: Dataset, syntax: UID, notes: list[str]) -> tuple[npt.NDArray[Any], str]:
    """Rows, Columns, Number of Frames (0028,0008), Bits Allocated (0028,0100), Pixel Data (7FE0,0010); PS3.5 8.

    Does: one frame is decoded, by one decoder for each transfer syntax.
    Missing: Number of Frames is 1.
    Contradictory: for the depth of JPEG samples, and whether their colours are RGB or YCbCr, the stream is followed,
    with a note. A stream of another size than Rows and Columns is an error.
    Impossible: no pixels, several frames, floating-point pixels and more than 200 megapixels are errors.

    Returns:
        Cells as unsigned integers [H, W], or [H, W, 3] in RGB or YBR_FULL; and their Photometric Interpretation.

    Raises:
        ImageError: no pixels, several frames, or a variant that cannot be decoded; the sentence names it.
    """
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise ImageError("the DICOM file holds floating-point pixels; export it with integer pixels")
    if "PixelData" not in dataset:
        raise ImageError(
            "the DICOM file holds no pixel data: it is truncated or no image; copy it again or leave it out"
        )
    frames = int((numbers(dataset, "NumberOfFrames", notes) or (1,))[0])
    if frames != 1:
        raise ImageError(f"the DICOM file holds {frames} frames; extract one")
    check_size(dataset.Columns, dataset.Rows)
    samples, photometric = interpretation(dataset, notes)
    overrides: dict[str, Any] = {"samples_per_pixel": samples, "photometric_interpretation": photometric}
    header, stays_ybr = None, False
    if DECODER_PLUGINS.get(syntax) == "gdcm":
        header = _checked_jpeg(dataset, samples)
        overrides |= _by_stream(header, dataset, photometric, notes)
    elif syntax in jpeg2000.SYNTAXES:
        _check_jpeg2000(dataset, samples)
    elif syntax not in DECODER_PLUGINS or syntax in RLETransferSyntaxes:
        # The cells as they are: their bits are taken apart later, also where they are not those of Bits Stored.
        overrides |= {"bits_stored": dataset.BitsAllocated, "pixel_representation": 0, "view_only": samples == 1}
        stays_ybr = photometric == "YBR_FULL"
        if stays_ybr:
            overrides["photometric_interpretation"] = "RGB"  # for pydicom, which would convert it as if of all bits
    if header and header.process == 0xC1 and header.bits > 8:
        values, decoded = _jpeg_extended(dataset, header), photometric
    else:
        values, decoded = _by_pydicom(dataset, syntax, overrides)
    expected = (dataset.Rows, dataset.Columns, 3)[: 2 if samples == 1 else 3]
    if values.shape != expected:
        raise ImageError(f"the DICOM file holds an array of {values.shape}, not one frame of {expected}; extract one")
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return native.view(f"u{native.itemsize}"), photometric if stays_ybr else decoded


def interpretation(dataset: Dataset, notes: list[str]) -> tuple[int, str]:
    """Samples per Pixel (0028,0002), Photometric Interpretation (0028,0004); PS3.3 C.7.6.3.1.

    Does: MONOCHROME1, MONOCHROME2, RGB and YBR are decoded. Small letters are read as capitals, with a note.
    Missing: one sample is MONOCHROME2, three are RGB, with a note.
    Contradictory: MONOCHROME with three samples, or colour with one, is an error that names both.
    Impossible: any other interpretation is an error that names it.
    """
    found = numbers(dataset, "SamplesPerPixel", notes)
    written = str(dataset.get("PhotometricInterpretation") or "")
    photometric = written.strip().upper()
    samples = int(found[0]) if found else 1 if not photometric or photometric.startswith(("MONO", "PAL")) else 3
    if not photometric:
        photometric = "MONOCHROME2" if samples == 1 else "RGB"
        notes.append(f"no Photometric Interpretation, taken as {photometric}")
    elif photometric != written.strip():
        notes.append(f"Photometric Interpretation is not in capital letters, read as {code(photometric)}")
    if photometric.startswith("MONO") != (samples == 1) and photometric != "PALETTE COLOR":
        raise ImageError(
            f"Samples per Pixel {samples} contradicts Photometric Interpretation {code(photometric)}; "
            "export the image again"
        )
    return samples, photometric


def _checked_jpeg(dataset: Dataset, samples: int) -> JpegHeader:
    """The header of the JPEG stream. Raises ImageError for what makes GDCM end the process.

    That are streams unlike the data set, and those that libjpeg warns about.
    """
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    header = jpeg_header(frame)
    if (header.width, header.height, header.samples) != (dataset.Columns, dataset.Rows, samples):
        raise ImageError("the JPEG data differ from the DICOM header in size; export the image again")
    if header.bits > dataset.BitsAllocated:
        raise ImageError("the JPEG data have more bits than the DICOM header says; export the image again")
    if header.is_doubtful:
        raise ImageError("the JPEG data have an unknown JFIF version or Adobe transform; export the image again")
    return header


def _check_jpeg2000(dataset: Dataset, samples: int) -> None:
    """Raise ImageError if the stream has another size than the data set, before a decoder allocates memory for it."""
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    if jpeg2000_size(stream) != (dataset.Columns, dataset.Rows, samples):
        raise ImageError("the JPEG 2000 data differ from the DICOM header in size; export the image again")


def _by_stream(header: JpegHeader, dataset: Dataset, photometric: str, notes: list[str]) -> dict[str, Any]:
    """What of the data set the stream says better: its depth, and whether its colours are RGB or YCbCr."""
    overrides: dict[str, Any] = {}
    allocated = 8 if header.bits <= 8 else 16
    if allocated != dataset.BitsAllocated:
        overrides = {"bits_allocated": allocated, "bits_stored": header.bits}
        notes.append(f"Bits Allocated {dataset.BitsAllocated}, but the JPEG data have {header.bits} bits per sample")
    if header.samples == 3 and header.adobe_transform is not None:
        marked = "RGB" if header.adobe_transform == 0 else "YBR_FULL"
        if marked[:3] != photometric[:3]:
            overrides["photometric_interpretation"] = marked
            colours = "RGB" if marked == "RGB" else "YCbCr"
            notes.append(f"the JPEG data are marked as {colours}, not {code(photometric)}")
    return overrides


def _by_pydicom(dataset: Dataset, syntax: UID, overrides: dict[str, Any]) -> tuple[npt.NDArray[Any], str]:
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        named = syntax.name if syntax.is_valid else "(no UID)"
        raise ImageError(f"the transfer syntax {named} is not supported; decompress the file") from error
    try:
        values, properties = _as_array(decoder, dataset, DECODER_PLUGINS.get(syntax, ""), overrides)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise ImageError(
            f"the pixel data ({syntax.name}) are damaged, cut off or in a variant that is not supported; "
            "copy the file again or decompress it"
        ) from error
    return values, str(properties["photometric_interpretation"])


def _as_array(
    decoder: Decoder, dataset: Dataset, plugin: str, overrides: dict[str, Any]
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode; RLE data that pylibjpeg's decoder panics about, as they are too long, are left to pydicom's own."""
    try:
        return decoder.as_array(dataset, decoding_plugin=plugin, **overrides)
    except BaseException as error:  # it is written in Rust, whose panics are no Exceptions
        if type(error).__name__ != "PanicException":
            raise
    return decoder.as_array(dataset, decoding_plugin="pydicom", **overrides)


def _jpeg_extended(dataset: Dataset, header: JpegHeader) -> npt.NDArray[Any]:
    """Decode JPEG Extended (Process 2 and 4) of 12 bits by GDCM itself, which pydicom's plugin does not let do it."""
    if header.samples != 1:
        raise ImageError("colour in JPEG Extended of 12 bits is not supported; decompress the file")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.width, header.height, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, header.bits, header.bits - 1, 0))
    buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM gives its bytes as str
    if len(buffer) != 2 * header.width * header.height:
        raise ImageError("the JPEG data are damaged; copy the file again")
    return np.frombuffer(buffer, "<u2").reshape(header.height, header.width)


STEPS: tuple[Callable[..., Any], ...] = (read_data_set, interpretation, decode_cells)
"""What `docs/reference/dicom.md` is made from, before the steps of `cxr_trt.images.dicom_display`."""
