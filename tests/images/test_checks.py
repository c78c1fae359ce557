import csv
import warnings

import cv2
import numpy as np
import pytest
from pydicom import Dataset

from cxr_trt.errors import ImageError
from cxr_trt.images import checks, decode
from cxr_trt.images.checks import is_coloured, picture_doubts
from cxr_trt.images.dicom_checks import tag_doubts
from cxr_trt.images.image import check_grey
from cxr_trt.images.preprocess import preprocess

UNLIKE = ["does not look like an upright frontal chest X-ray"]
NEGATIVE = ["looks like a negative, with black and white exchanged"]


def square(path, size=512):
    return preprocess(decode(path.read_bytes()).pixels, size)


def test_a_chest_is_not_doubted_and_a_leg_is(radiographs):
    for size in (512, 224):
        chest, leg = (square(radiographs / f"{name}_UNCR.dcm", size) for name in ("RG1", "RG3"))
        assert picture_doubts(chest) == []
        assert picture_doubts(chest[:, ::-1]) == []
        assert picture_doubts(leg) == UNLIKE
        assert picture_doubts(255 - chest) == NEGATIVE
        assert picture_doubts(chest[::-1]) in (UNLIKE, NEGATIVE)


def test_few_real_chest_x_rays_are_doubted_and_most_wrong_ones_are(cxr14):
    """On all 3,057 images; wrong ones are negatives, upside down, on their side."""
    with (cxr14 / "labels.csv").open() as stream:
        names = [row["image"] for row in csv.DictReader(stream)]
    images = [
        cv2.imread(str(cxr14 / "images" / name), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_REDUCED_GRAYSCALE_8)
        for name in names
    ]
    assert len(images) == 3057
    alarms = sum(bool(picture_doubts(image)) for image in images)
    assert 0 < alarms < 0.01 * len(images)
    for change, least in ((lambda x: 255 - x, 0.99), (lambda x: x[::-1], 0.95), (np.rot90, 0.6)):
        assert sum(bool(picture_doubts(np.ascontiguousarray(change(image)))) for image in images[:500]) >= least * 500


def test_empty_and_constant_pictures():
    assert picture_doubts(np.full((512, 512), 130, np.uint8)) == ["the picture is almost constant"]
    image = np.random.default_rng(0).integers(1, 256, (512, 512), np.uint8)
    image[:400] = 0
    assert picture_doubts(image) == ["the picture is almost empty, 78% of it is one grey"]


def view(value):
    item = Dataset()
    item.CodeValue = value
    return item


@pytest.mark.parametrize(
    ("tags", "doubts"),
    [
        ({}, []),
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}, []),
        ({"Modality": "CR", "BodyPartExamined": "", "ViewPosition": None}, []),
        ({"BodyPartExamined": "THORAX PA"}, []),
        ({"Modality": "CT"}, ["Modality CT is no radiograph"]),
        ({"BodyPartExamined": "FOOT"}, ["Body Part Examined FOOT is not the chest"]),
        ({"BodyPartExamined": "DOE JANE"}, ["Body Part Examined (not a term of the standard) is not the chest"]),
        ({"Modality": "MG", "ViewPosition": "LL"}, ["Modality MG is no radiograph", "View Position LL is not frontal"]),
        *[({"BodyPartExamined": part}, []) for part in ("TORAX AP", "tórax", "POITRINE", "RIBS", "胸部")],
        *[({"ViewCodeSequence": [view(value)]}, []) for value in ("399348003", "272479007", "R-10206", "R-40888", "")],
        ({"ViewCodeSequence": [view("399067008")]}, ["View Code 399067008 is not frontal"]),
        ({"ViewCodeSequence": [view("R-10236")]}, ["View Code (not a term of the standard) is not frontal"]),
        ({"PatientOrientation": ["L", "F"]}, []),
        ({"PatientOrientation": ["A", "F"]}, ["Patient Orientation A\\F is that of a lateral view"]),
        ({"PresentationIntentType": "FOR PRESENTATION"}, []),
        (
            {"PresentationIntentType": "FOR PROCESSING"},
            ["Presentation Intent Type is FOR PROCESSING: raw data of the detector, not made to be looked at"],
        ),
    ],
)
def test_dicom_attributes(tags, doubts):
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom does not like letters beyond ASCII here, but people write them
        for name, value in tags.items():
            setattr(dataset, name, value)
    assert tag_doubts(dataset) == doubts


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_is_told_from_grey_in_three_channels(dtype):
    largest = np.iinfo(dtype).max
    grey = np.random.default_rng(0).integers(0, largest, (80, 90, 1), dtype).repeat(3, 2)
    assert not is_coloured(grey)
    assert is_coloured(grey // np.array([1, 2, 3], dtype))
    file = cv2.imencode(".png", grey // np.array([1, 2, 3], dtype))[1].tobytes()
    assert "colour image, converted to grey" in decode(file).warnings


@pytest.mark.parametrize("shape", [(512, 512), (7, 5), (1, 9), (224, 299)])
def test_the_quick_look_for_an_empty_picture_never_misses_one(shape):
    """With just more than 60 % of one grey, wherever its pixels are: at the top, at the bottom, anywhere."""
    rng = np.random.default_rng(0)
    for arranged in (np.sort, lambda pixels: np.sort(pixels)[::-1], rng.permutation):
        pixels = rng.integers(1, 256, shape[0] * shape[1]).astype(np.uint8)
        pixels[: int(0.6 * pixels.size) + 1] = 0
        assert checks._may_be_empty(arranged(pixels).reshape(shape))
    noise = rng.integers(0, 256, (512, 512), np.uint8)
    assert not checks._may_be_empty(noise)


@pytest.mark.parametrize("pixels", [np.zeros((4, 5), np.float64), np.zeros((4, 5, 3), np.float32)])
def test_a_picture_is_float32_and_has_two_dimensions(pixels):
    with pytest.raises(ImageError, match="no grey"):
        check_grey(pixels)
