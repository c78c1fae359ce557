"""The exceptions of cxr-trt.

    CxrTrtError                 one sentence: what is wrong, where, and how to mend it
    ├── UsageError              an option, a path or an argument that cannot be used
    ├── ImageError              a file that holds no readable grey image
    │   └── NoImageError        an object that is no X-ray by its kind: skipped, not an error
    ├── DicomHeaderError        a DICOM file for which no DICOM result can be made
    ├── CheckpointError         weights that do not fit the network
    ├── GraphError              an ONNX file that is not a scoring graph, or one that PyTorch disagrees with
    ├── StorageError            an object storage that does not answer, or refuses
    ├── BundleError             an engine bundle that is incomplete, changed or made for another machine
    └── BackendError            a backend that is not installed, or that failed

The command line prints the sentence and exits with 2. While a folder is scored, an ImageError becomes an error row.
"""


class CxrTrtError(Exception):
    """One sentence for the user: what is wrong, where, and how to mend it."""


class UsageError(CxrTrtError):
    """An option, a path or an argument that cannot be used."""


class ImageError(CxrTrtError):
    """A file that holds no readable grey image."""


class NoImageError(ImageError):
    """A DICOM object that is no X-ray by its kind, which is the text: it is skipped, and counted by kind."""


class DicomHeaderError(CxrTrtError):
    """A DICOM file for which no DICOM result can be made: its header lacks attributes that the standard requires."""


class CheckpointError(CxrTrtError):
    """Weights that do not fit the network."""


class GraphError(CxrTrtError):
    """An ONNX file that is not a scoring graph, or one that PyTorch disagrees with."""


class BundleError(CxrTrtError):
    """An engine bundle that is incomplete, changed or made for another machine."""


class StorageError(CxrTrtError):
    """An object storage that does not answer, or refuses."""


class BackendError(CxrTrtError):
    """A backend that is not installed, or that failed."""
