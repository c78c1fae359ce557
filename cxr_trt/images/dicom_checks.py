"""Checks whether DICOM attributes are those of a frontal chest X-ray. They only warn, as `cxr_trt.images.checks` do."""

import re
from contextlib import suppress

from pydicom import Dataset

from cxr_trt.images.dicom_attributes import code, text

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
    *("R-10206", "R-10214", "R-40888", "R-10202"),  # the same in SNOMED RT, of older files
)


def tag_doubts(dataset: Dataset) -> list[str]:
    """Sentences on DICOM attributes that do not fit a frontal chest X-ray. Missing or empty attributes are ignored."""
    doubts = []
    modality, part, view, intent = (
        text(dataset, name) for name in ("Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType")
    )
    if modality and modality not in RADIOGRAPH_MODALITIES:
        doubts.append(f"Modality {code(modality)} is no radiograph")
    if part and not any(name in part for name in CHEST_BODY_PARTS):
        doubts.append(f"Body Part Examined {code(part)} is not the chest")
    if view and view not in FRONTAL_VIEW_POSITIONS:
        doubts.append(f"View Position {code(view)} is not frontal")
    if (view_code := _view_code(dataset)) and view_code not in FRONTAL_VIEW_CODES:
        doubts.append(f"View Code {view_code if view_code.isdigit() else code(view_code)} is not frontal")
    rows, _, columns = text(dataset, "PatientOrientation").partition("\\")
    if re.fullmatch("[AP][FHLR]{0,2}", rows) and re.fullmatch("[AFHLPR]{1,3}", columns):
        doubts.append(f"Patient Orientation {rows}\\{columns} is that of a lateral view")
    if intent == "FOR PROCESSING":  # PS3.3 C.8.11.1.1.1
        doubts.append("Presentation Intent Type is FOR PROCESSING: raw data of the detector, not made to be looked at")
    return doubts


def _view_code(dataset: Dataset) -> str:
    """The code of the first item of View Code Sequence (PS3.3 C.8.11.5, 0054,0220)."""
    with suppress(Exception):  # as above
        for item in dataset.get("ViewCodeSequence") or ():
            return str(item.get("CodeValue") or "").strip()
    return ""
