"""JPEG 2000 and HTJ2K through imagecodecs, as a decoder of pydicom.

imagecodecs calls OpenJPEG, as pylibjpeg and GDCM do, but a build that decodes in several threads: as many as the
environment variable OPJ_NUM_THREADS says. Unlike OpenJPH, OpenJPEG refuses HTJ2K streams that are cut off.
"""

import imagecodecs
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import HTJ2K, JPEG2000, UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless

PLUGIN = "imagecodecs"
SYNTAXES = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs",))  # pydicom asks for it


def add_to_pydicom() -> None:
    """Make pydicom's decoders of `SYNTAXES` know the plugin `PLUGIN`; once per process."""
    for syntax in SYNTAXES:
        get_decoder(syntax).add_plugin(PLUGIN, (__name__, decode_frame.__name__))


def is_available(syntax: UID) -> bool:
    """Whether a transfer syntax is decoded; pydicom asks."""
    return syntax in SYNTAXES


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytearray:
    """Decode a codestream or a JP2 file (ITU-T T.800, T.814) for pydicom.

    Args:
        stream: of one frame.
        runner: pydicom's properties of the pixels, which become those of the samples that are returned.

    Returns:
        Samples of 1, 2 or 4 bytes in native order, [H, W] or [H, W, 3].

    Raises:
        RuntimeError: the stream is cut off, damaged or of a variant that OpenJPEG does not know.
    """
    samples = imagecodecs.jpeg2k_decode(stream)
    runner.set_option("bits_allocated", 8 * samples.itemsize)
    runner.set_option("planar_configuration", 0)
    if runner.photometric_interpretation in (PhotometricInterpretation.YBR_ICT, PhotometricInterpretation.YBR_RCT):
        runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)  # PS3.5 8.2.4: part of decoding
    return bytearray(samples)
