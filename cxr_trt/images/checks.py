"""Is it a frontal chest X-ray? Cheap doubts, for the column `warnings`: nothing is ever left out because of them."""

import re
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom import Dataset

RADIOGRAPH_MODALITIES = ("CR", "DX", "RG", "OT")  # Modality (PS3.3 C.7.3.1.1.1): computed, digital, film, other
CHEST_BODY_PARTS = ("CHEST", "THORAX", "LUNG", "RIB")  # in Body Part Examined (PS3.16 annex L)
FRONTAL_VIEW_POSITIONS = ("AP", "PA")  # View Position (PS3.3 C.8.7.1.1.3)

STANDARD_TERMS = """ABDOMEN, ANKLE, BREAST, CALCANEUS, CLAVICLE, COCCYX, CSPINE, ELBOW, EXTREMITY, FEMUR, FINGER,
FOREARM, HUMERUS, LSPINE, MANDIBLE, PATELLA, PELVIS, SHOULDER, SKULL, SPINE, SSPINE, STERNUM, TSPINE, WRIST, WHOLEBODY,
PALETTE COLOR, YBR_PARTIAL_420, YBR_ICT, YBR_RCT""".replace("\n", " ").split(", ")
"""Values of more than four letters that may stand in a message: of Body Part Examined (PS3.16 annex L) and Photometric
Interpretation (PS3.3 C.7.6.3.1.2)."""

MEAN_CHEST_LEFT_HALF = np.array(
    [
        [-99, -84, -58, 5, -16, -4, -30, -5, 14, 5, -53, -8, 5, 0, -47, 13],
        [-13, -1, -18, 39, -27, 10, 24, 61, -43, 30, 61, 80, -49, 42, 77, 89],
    ]
).reshape(8, 4)
MEAN_CHEST_CELLS = 8
CHEST_CORRELATION_MIN = 0.2
"""The left half of a mean chest X-ray of 8 x 8 cells, standardised (the training part of a subset of ChestX-ray14), and
the least correlation with it of a picture that is not doubted. `make false-alarms` counts false alarms."""
NEGATIVE_CORRELATION_MAX = -0.4  # a correlation below: black and white are exchanged

EMPTY_SHARE_MIN = 0.6  # share of the pixels that have one and the same grey
FLAT_DEVIATION_MAX = 4.0  # standard deviation of the cells, in greys
COLOUR_DISTANCE_MIN = 8.0  # mean distance between the channels, in greys of 255


def picture_doubts(image: npt.NDArray[np.uint8]) -> list[str]:
    """What is odd about a preprocessed picture, uint8 [size, size]: a sentence at most."""
    cells = cv2.resize(image, (MEAN_CHEST_CELLS, MEAN_CHEST_CELLS), interpolation=cv2.INTER_AREA).astype(np.float64)
    if cells.std() < FLAT_DEVIATION_MAX:
        return ["the picture is almost constant"]
    share = cv2.calcHist([image], [0], None, [256], [0, 256]).max() / image.size
    if share > EMPTY_SHARE_MIN:
        return [f"the picture is almost empty, {share:.0%} of it is one grey"]
    chest = np.hstack([MEAN_CHEST_LEFT_HALF, MEAN_CHEST_LEFT_HALF[:, ::-1]])
    likeness = float(np.corrcoef(cells.ravel(), chest.ravel())[0, 1])
    if likeness < NEGATIVE_CORRELATION_MAX:
        return ["looks like a negative, with black and white exchanged"]
    if likeness < CHEST_CORRELATION_MIN:
        return ["does not look like an upright frontal chest X-ray"]
    return []


def tag_doubts(dataset: "Dataset") -> list[str]:
    """What the DICOM attributes say against a frontal chest X-ray; a missing or empty attribute says nothing."""
    doubts = []
    modality, part, view = (
        str(dataset.get(name) or "").strip().upper() for name in ("Modality", "BodyPartExamined", "ViewPosition")
    )
    if modality and modality not in RADIOGRAPH_MODALITIES:
        doubts.append(f"Modality {code(modality)} is no radiograph")
    if part and not any(name in part for name in CHEST_BODY_PARTS):
        doubts.append(f"Body Part Examined {code(part)} is not the chest")
    if view and view not in FRONTAL_VIEW_POSITIONS:
        doubts.append(f"View Position {code(view)} is not frontal")
    return doubts


def code(value: str) -> str:
    """A term of the standard as it is; anything else is not for a message: it may be a name that somebody typed."""
    return value if value in STANDARD_TERMS or re.fullmatch("[A-Z0-9]{1,4}", value) else "(not a term of the standard)"


def is_coloured(samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bool:
    """Whether an image [H, W, 3] has more colour than a grey image that was saved as colour."""
    small = cv2.resize(samples, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float64)
    largest = np.iinfo(samples.dtype).max
    return float((small.max(2) - small.min(2)).mean()) * 255 / largest > COLOUR_DISTANCE_MIN
