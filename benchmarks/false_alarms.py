"""How often a real chest X-ray is doubted, and a wrong picture is not.

The pictures go the way of `cxr-trt score`, from file to warnings. Those that are no chest X-rays as they should be are
made from the same images, or come with pydicom.
"""

import csv
from collections import Counter
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from pydicom.data import get_testdata_file

from benchmarks.study import Result, cxr14_option
from cxr_trt.images.checks import picture_doubts
from cxr_trt.images.worker import answer
from cxr_trt.markdown import markdown_table

PACKAGES = ("opencv-python-headless", "pydicom")
Picture = npt.NDArray[np.uint8]
IMAGE_SIZE = 512  # pixels
MAX_FALSE_ALARMS = 0.01  # share of real chest X-rays
WRONG: dict[str, Callable[[Picture], Picture]] = {
    "their negatives": lambda image: 255 - image,
    "the same upside down": lambda image: image[::-1],
    "the same turned by 90 degrees": lambda image: np.rot90(image),
}
FILES = {
    "RG1_UNCR.dcm": "a chest",
    "RG3_UNCR.dcm": "a leg",
    "CT_small.dcm": "a slice of computed tomography",
    "MR_small.dcm": "a slice of magnetic resonance",
}


TEXT = """\
# False alarms

**{headline}**

What the checks for a frontal chest X-ray say about {images:,} real ones, a subset of ChestX-ray14, and about pictures
that are none. The mean chest with which they compare was made from the split `train`; the other two splits are unseen.
No file is left out because of a doubt: it is a warning in the table of scores.

{pictures}

{sentences}

{files}
"""


def warnings_of(path: Path) -> tuple[list[str], Picture]:
    """What `cxr-trt score` would say of a file that it can read, and the picture, uint8 [size, size]."""
    facts, pixels = answer(path, None, IMAGE_SIZE)
    return facts["warnings"], np.frombuffer(pixels, np.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE)


def groups_of(row: dict[str, str]) -> tuple[str, ...]:
    """The rows of the table to which an image belongs."""
    return "all", f"split {row['split']}", f"view position {row['view_position']}"


def dicom_file(name: str) -> Path:
    """A file of the packages pydicom-data and pydicom."""
    known = Path(str(distribution("pydicom-data").locate_file("data_store/data"))) / name
    return known if known.exists() else Path(str(get_testdata_file(name)))


@click.command()
@cxr14_option
@click.option("--every", type=click.IntRange(1), default=1, help="Take every N-th image.")
def measure(data: Path, every: int) -> Result:
    """Check all images, and changed ones."""
    with (data / "labels.csv").open(encoding="utf-8") as stream:
        images = list(csv.DictReader(stream))[::every]
    number, doubted, sentences = Counter[str](), Counter[str](), Counter[str]()
    for row in images:
        warnings, image = warnings_of(data / "images" / row["image"])
        number.update(groups_of(row))
        sentences.update(warnings)
        if warnings:
            doubted.update(groups_of(row))
        for name, change in WRONG.items():
            number[name] += 1
            doubted[name] += bool(picture_doubts(np.ascontiguousarray(change(image))))
    groups = [*sorted(number.keys() - WRONG.keys()), *WRONG]
    return {
        "images": len(images),
        "pictures": {name: {"number": number[name], "doubted": doubted[name]} for name in groups},
        "sentences": dict(sentences.most_common()),
        "files": {name: warnings_of(dicom_file(name))[0] for name in FILES},
    }


def problems(result: Result) -> list[str]:
    """Whether real chest X-rays are doubted too often."""
    share = _share(result["pictures"]["all"])
    return [] if share < MAX_FALSE_ALARMS else [f"{share:.2%} of the real chest X-rays are doubted"]


def _share(own: dict[str, int]) -> float:
    return own["doubted"] / own["number"]


def page(result: Result) -> str:
    """The page of a result."""
    pictures: dict[str, dict[str, int]] = result["pictures"]
    rows = [(name, str(own["number"]), str(own["doubted"]), f"{_share(own):.2%}") for name, own in pictures.items()]
    sentences = [(sentence, str(count)) for sentence, count in result["sentences"].items()]
    files = [(name, FILES[name], "; ".join(warnings) or "-") for name, warnings in result["files"].items()]
    seen = ", ".join(f"{_share(pictures[name]):.0%} of {name}" for name in WRONG)
    return TEXT.format(
        headline=f"{_share(pictures['all']):.2%} of the real chest X-rays are doubted; so are {seen}.",
        images=result["images"],
        pictures=markdown_table(("pictures", "number", "doubted", "share"), rows),
        sentences=markdown_table(("warning about a real chest X-ray", "images"), sentences),
        files=markdown_table(("DICOM file of pydicom", "shows", "warnings"), files),
    )
