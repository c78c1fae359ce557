"""The page on what is read of DICOM files, from the docstrings of the steps: `python docs/dicom.py` writes it."""

import inspect
import re
from pathlib import Path

from cxr_trt.images.dicom_display import STEPS as DISPLAY_STEPS
from cxr_trt.images.dicom_pixels import OBJECTS_WITHOUT_IMAGE
from cxr_trt.images.dicom_pixels import STEPS as PIXEL_STEPS

PAGE = Path(__file__).parent / "reference" / "dicom.md"
CASES = ("Does", "Missing", "Contradictory", "Impossible")
HEAD = """\
# What is read of a DICOM file

<!-- written by `python docs/dicom.py` -->

From the file to the picture that a display would show, in this order (PS3.3 C.11, PS3.4 N.2). Where the standard and
the data contradict each other, the picture follows the data as viewers do. Whatever is guessed or left out stands in
the row's `warnings`.
"""
TAIL = """\
Colour becomes BT.601 luma. At the end, a picture must be finite and of the size that the file declares, and it is not
one grey unless its stored values are, or differ by less than the display can show.

## What is skipped

Objects that hold no image are no errors: they get no row, and the summary counts them by kind.

| SOP Class UID | kind |
|---|---|
{kinds}
| Manufacturer's Model Name `cxr-trt` | results of cxr-trt |
"""


def render() -> str:
    """The page."""
    sections = [HEAD]
    for number, step in enumerate((*PIXEL_STEPS, *DISPLAY_STEPS), start=1):
        text = inspect.getdoc(step) or ""
        first = text.partition("\n\n")[0].rstrip(".")
        rows = [f"| {case.lower()} | {_case(text, case)} |" for case in CASES]
        sections.append(
            "\n".join(
                [f"## {number}. {step.__name__.replace('_', ' ')}\n", f"{first}.\n", "| | |", "|---|---|", *rows, ""]
            )
        )
    kinds = "\n".join(
        f"| `{uid}{'…' if uid.endswith('.') else ''}` | {kind} |" for uid, kind in OBJECTS_WITHOUT_IMAGE.items()
    )
    return "\n".join([*sections, TAIL.format(kinds=kinds)])


def _case(text: str, case: str) -> str:
    found = re.search(rf"^{case}: (.*?)(?=^\w+:|\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise SystemExit(f"the docstring says nothing of {case!r}: {text[:60]}")
    return " ".join(found[1].split())


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
