"""The codes that a structured report uses, and where each comes from.

A finding of ChestX-ray14 has a standard code if pydicom's dictionary of PS3.16 (`pydicom.sr.codedict`) has one with the
meaning that the finding has there. All other findings have private codes, made from their names. A near match never
stands in for a missing code: pydicom's "Cardiomegaly" (287272002) is also listed there as "Enlarged septal foramen of
heart", and "Mediastinal emphysema" is not an emphysema of the lung.
"""

import hashlib
import re

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cxr_trt.findings import finding_key

PRIVATE_DESIGNATOR = "99CXRTRT"  # PS3.16 8.2: designators of private coding schemes start with 99

PRIVATE_SCHEME = CodingSchemeIdentificationItem(
    designator=PRIVATE_DESIGNATOR, name="Findings of cxr-trt", responsible_organization="cxr-trt"
)
"""Explains PRIVATE_DESIGNATOR in a report (PS3.3 C.12.1.1.7, Coding Scheme Identification Sequence)."""

FINDING_CODES: dict[str, Code] = {
    "Atelectasis": Code("ATELECTASIS", PRIVATE_DESIGNATOR, "Atelectasis"),
    "Cardiomegaly": Code("CARDIOMEGALY", PRIVATE_DESIGNATOR, "Cardiomegaly"),
    "Effusion": codes.SCT.PleuralEffusion,  # CID 645
    "Infiltration": codes.cid6104.Infiltrate,
    "Mass": codes.cid6104.Mass,
    "Nodule": codes.cid6104.Nodule,
    "Pneumonia": Code("PNEUMONIA", PRIVATE_DESIGNATOR, "Pneumonia"),
    "Pneumothorax": codes.cid6105.Pneumothorax,
    "Consolidation": Code("CONSOLIDATION", PRIVATE_DESIGNATOR, "Consolidation"),
    "Edema": codes.SCT.PulmonaryEdema,  # CID 3700
    "Emphysema": Code("EMPHYSEMA", PRIVATE_DESIGNATOR, "Emphysema"),
    "Fibrosis": codes.SCT.Fibrosis,  # CID 6335
    "Pleural_Thickening": Code("PLEURAL_THICK", PRIVATE_DESIGNATOR, "Pleural thickening"),
    "Hernia": Code("HERNIA", PRIVATE_DESIGNATOR, "Hernia"),
}
"""By finding of ChestX-ray14."""
_CODES_BY_KEY = {finding_key(name): code for name, code in FINDING_CODES.items()}
_TAKEN_VALUES = {code.value for code in FINDING_CODES.values()}
MAX_CODE_LENGTH = 16  # characters of a code value (SH, PS3.5 6.2)


def finding_code(finding: str) -> Code:
    """The code of a finding of any network; always the same for the same name.

    Without a code in FINDING_CODES, the private code value is the name in capitals with underscores, if that has at
    most 16 letters and digits of ASCII; otherwise its beginning and 8 digits of its hash.
    """
    key = finding_key(finding)
    if key in _CODES_BY_KEY:
        return _CODES_BY_KEY[key]
    value = key.replace(" ", "_").upper()
    if len(value) > MAX_CODE_LENGTH or value in _TAKEN_VALUES or not re.fullmatch("[A-Z0-9_]+", value):
        start = re.sub("[^A-Z0-9_]+", "", value)[: MAX_CODE_LENGTH - 9]
        value = f"{start}_{hashlib.sha256(key.encode()).hexdigest()[:8].upper()}"
    return Code(value, PRIVATE_DESIGNATOR, finding.replace("_", " "))


PROBABILITY: Code = codes.DCM.Probability  # PS3.16 annex D
NO_UNITS: Code = codes.UCUM.NoUnits  # PS3.16 CID 7181
PROCEDURE: Code = codes.cid100.XRUnspecifiedBodyRegion  # nobody has checked that it is a chest
COMMENT: Code = codes.DCM.Comment
SOURCE_IMAGE: Code = codes.DCM.SourceImageForImageProcessingOperation  # PS3.16 CID 7202
