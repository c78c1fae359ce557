"""Cheap checks whether an image is a frontal chest X-ray. They only warn: every image is scored, whatever they say."""

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom import Dataset

RADIOGRAPH_MODALITIES = ("CR", "DX", "RG", "OT")  # Modality (PS3.3 C.7.3.1.1.1): computed, digital, film, other
CHEST_BODY_PARTS = (
    *("CHEST", "THORAX", "LUNG", "RIB"),  # PS3.16 annex L
    *("THORACIC", "THORAKAL", "TORAX", "TÓRAX", "TORACE", "PECHO", "PULMON", "POUMON", "POITRINE", "BRUST"),
    *("LUNGE", "PETTO", "BORST", "KLATKA", "GRUDN", "胸"),
)
"""What Body Part Examined (0018,0015) holds for a chest X-ray: the standard's terms, and what is typed elsewhere."""
FRONTAL_VIEW_POSITIONS = ("AP", "PA")  # View Position (PS3.3 C.8.7.1.1.3)
FRONTAL_VIEW_CODES = (
    *("399348003", "272479007", "399033003"),  # SNOMED CT: antero-posterior, postero-anterior, frontal (CID 4010)
    *("R-10206", "R-10214", "R-10202"),  # the same in SNOMED RT, of older files
)

STANDARD_TERMS = """ABDOMEN, ANKLE, BREAST, CALCANEUS, CLAVICLE, COCCYX, CSPINE, ELBOW, EXTREMITY, FEMUR, FINGER,
FOREARM, HUMERUS, LSPINE, MANDIBLE, PATELLA, PELVIS, SHOULDER, SKULL, SPINE, SSPINE, STERNUM, TSPINE, WRIST, WHOLEBODY,
MONOCHROME1, MONOCHROME2, PALETTE COLOR, YBR_FULL, YBR_FULL_422, YBR_PARTIAL_420, YBR_PARTIAL_422, YBR_ICT,
YBR_RCT""".replace("\n", " ").split(", ")
"""Values of more than four letters that a message may quote: of Body Part Examined (PS3.16 annex L) and of Photometric
Interpretation (PS3.3 C.7.6.3.1.2)."""

MEAN_CHEST_LEFT_HALF = np.array(
    [
        [-99, -84, -58, 5, -16, -4, -30, -5, 14, 5, -53, -8, 5, 0, -47, 13],
        [-13, -1, -18, 39, -27, 10, 24, 61, -43, 30, 61, 80, -49, 42, 77, 89],
    ]
).reshape(8, 4)
MEAN_CHEST_CELLS = 8
CHEST_CORRELATION_MIN = 0.2
"""Pictures that correlate less than this with the mean chest X-ray get a warning. MEAN_CHEST_LEFT_HALF is the left half
of its 8 x 8 cells, standardised (from the training part of a subset of ChestX-ray14). `python -m benchmarks
false-alarms` counts how often X-rays get this warning."""
NEGATIVE_CORRELATION_MAX = -0.4  # with a smaller correlation, black and white are exchanged

EMPTY_SHARE_MIN = 0.6  # if a larger share of the pixels has the same grey, the picture is almost empty
FLAT_DEVIATION_MAX = 4.0  # with a smaller standard deviation of the cells, in grey levels, it is almost constant
COLOUR_DISTANCE_MIN = 8.0  # with a larger mean distance between its channels, in levels of 255, it is coloured


def picture_doubts(image: npt.NDArray[np.uint8]) -> list[str]:
    """What is odd about a preprocessed image, uint8 [size, size]: no sentence or one."""
    cells = cv2.resize(image, (MEAN_CHEST_CELLS, MEAN_CHEST_CELLS), interpolation=cv2.INTER_AREA).astype(np.float64)
    if cells.std() < FLAT_DEVIATION_MAX:
        return ["the picture is almost constant"]
    share = cv2.calcHist([image], [0], None, [256], [0, 256]).max() / image.size
    if share > EMPTY_SHARE_MIN:
        return [f"the picture is almost empty, {share:.0%} of it is one grey"]
    chest = np.hstack([MEAN_CHEST_LEFT_HALF, MEAN_CHEST_LEFT_HALF[:, ::-1]])
    correlation = float(np.corrcoef(cells.ravel(), chest.ravel())[0, 1])
    if correlation < NEGATIVE_CORRELATION_MAX:
        return ["looks like a negative, with black and white exchanged"]
    if correlation < CHEST_CORRELATION_MIN:
        return ["does not look like an upright frontal chest X-ray"]
    return []


def tag_doubts(dataset: "Dataset") -> list[str]:
    """Sentences on DICOM attributes that do not fit a frontal chest X-ray. Missing or empty attributes are ignored."""
    doubts = []
    modality, part, view, intent = (
        _text(dataset, name) for name in ("Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType")
    )
    if modality and modality not in RADIOGRAPH_MODALITIES:
        doubts.append(f"Modality {code(modality)} is no radiograph")
    if part and not any(name in part for name in CHEST_BODY_PARTS):
        doubts.append(f"Body Part Examined {code(part)} is not the chest")
    if view and view not in FRONTAL_VIEW_POSITIONS:
        doubts.append(f"View Position {code(view)} is not frontal")
    if (view_code := _view_code(dataset)) and view_code not in FRONTAL_VIEW_CODES:
        doubts.append(f"View Code {view_code if view_code.isdigit() else code(view_code)} is not frontal")
    rows, _, columns = _text(dataset, "PatientOrientation").partition("\\")
    if re.fullmatch("[AP][FHLR]{0,2}", rows) and re.fullmatch("[AFHLPR]{1,3}", columns):
        doubts.append(f"Patient Orientation {rows}\\{columns} is that of a lateral view")
    if intent == "FOR PROCESSING":  # PS3.3 C.8.11.1.1.1
        doubts.append("Presentation Intent Type is FOR PROCESSING: raw data of the detector, not made to be looked at")
    return doubts


def _text(dataset: "Dataset", keyword: str) -> str:
    """A value in capital letters, several joined by a backslash; empty if it is missing or cannot be read."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises whatever a damaged element leads to
        return ""
    parts = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    return "\\".join(str(part or "").strip().upper() for part in parts)


def _view_code(dataset: "Dataset") -> str:
    """The code of the first item of View Code Sequence (PS3.3 C.8.11.5, 0054,0220)."""
    with suppress(Exception):  # as above
        for item in dataset.get("ViewCodeSequence") or ():
            return str(item.get("CodeValue") or "").strip()
    return ""


def code(value: str) -> str:
    """The value if it is a term of the standard. Messages quote nothing else: somebody may have typed a name."""
    return value if value in STANDARD_TERMS or re.fullmatch("[A-Z0-9]{1,4}", value) else "(not a term of the standard)"


def is_coloured(samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bool:
    """Whether an image [H, W, 3] has more colour than a grey image that was saved as a colour image."""
    small = cv2.resize(samples, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float64)
    largest = np.iinfo(samples.dtype).max
    return float((small.max(2) - small.min(2)).mean()) * 255 / largest > COLOUR_DISTANCE_MIN
