"""Wang et al.'s localization against NumPy written from the paper's text, pixel by pixel."""

import cv2
import numpy as np
import pytest

from cxr_trt.evaluate.localization import IOBB_THRESHOLDS, IOU_THRESHOLDS, OVERLAPS
from cxr_trt.evaluate.wang import compare_map, localize_as_wang
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import REGION_PARTS_PER_CELL, Rectangle

CELLS = 12
SIDE = CELLS * REGION_PARTS_PER_CELL  # pixels of the refined map, here those of the X-ray too
XRAY = Rectangle(0, 0, SIDE, SIDE)


def isolated_regions(mask):
    """The pixels of each connected region, by walking from pixel to pixel."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    while left:
        region, waiting = set(), [left.pop()]
        while waiting:
            y, x = waiting.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
        yield np.array(sorted(region))


def boxes_of_the_paper(class_map):
    """Masks of the boxes: "normalized to [0, 255] and then thresholded by {60, 180} individually", "to cover the
    isolated regions"."""
    fine = cv2.resize(class_map, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    grey = 255 * (fine - fine.min()) / (fine.max() - fine.min())
    boxes = set()
    for threshold in (60, 180):
        for region in isolated_regions(grey >= threshold):
            (top, left), (bottom, right) = region.min(0), region.max(0) + 1
            boxes.add((top, bottom, left, right))
    return [mask(*box) for box in boxes]


def mask(top, bottom, left, right):
    covered = np.zeros((SIDE, SIDE), bool)
    covered[top:bottom, left:right] = True
    return covered


def expected_of_the_paper(class_map, drawn):
    found, false = [], []
    detected = boxes_of_the_paper(class_map)
    for kind, thresholds in (("IoU", IOU_THRESHOLDS), ("IoBB", IOBB_THRESHOLDS)):
        for t in thresholds:
            agree = np.array(
                [
                    [(d & g).sum() / ((d | g) if kind == "IoU" else d).sum() > t for d in detected]
                    for g in (mask(*box) for box in drawn)
                ]
            )
            found.append(agree.any(1))
            false.append(int((~agree.any(0)).sum()))
    return np.array(found).T, false


def random_map(rng):
    return cv2.GaussianBlur(rng.random((CELLS, CELLS)).astype(np.float32), (3, 3), 0)


def random_box(rng):
    top, left = rng.integers(0, SIDE - 30, 2)
    height, width = rng.integers(8, 30, 2)
    return int(top), int(top + height), int(left), int(left + width)


def rectangle(top, bottom, left, right):
    return Rectangle(top, left, bottom - top, right - left)


def test_found_boxes_and_false_positives_are_those_of_the_papers_text():
    rng, seen = np.random.default_rng(0), []
    for count in (1, 1, 2, 3, 1, 2, 1, 1, 2, 1):
        class_map, drawn = random_map(rng), [random_box(rng) for _ in range(count)]
        own = compare_map(class_map, XRAY, [rectangle(*box) for box in drawn], 4, "p")
        found, false = expected_of_the_paper(class_map, drawn)
        np.testing.assert_array_equal(own.found, found)
        assert list(own.false_positives) == false
        seen.append((found.mean(), np.mean(false), len(boxes_of_the_paper(class_map))))
    shares, false, boxes = np.array(seen).T
    assert 0 < shares.mean() < 1
    assert false.std() > 0
    assert boxes.min() >= 2


def test_a_second_region_that_is_not_the_strongest_counts():
    y, x = np.mgrid[:CELLS, :CELLS]
    spots = [h * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2) for row, column, h in ((2, 2, 1.0), (8, 9, 0.6))]
    own = compare_map(sum(spots).astype(np.float32), XRAY, [Rectangle(58, 66, 20, 20)], 0, "p")
    result = dict(zip(OVERLAPS, own.found[0], strict=True))
    assert result["IoU 0.3"]
    assert result["IoBB 0.5"]
    false = dict(zip(OVERLAPS, own.false_positives, strict=True))
    assert false["IoBB 0.5"] == 2  # the strongest spot, above 60 and above 180


def test_a_flat_map_is_one_box_of_the_whole():
    own = compare_map(np.zeros((CELLS, CELLS), np.float32), XRAY, [Rectangle(0, 0, SIDE, SIDE / 2)], 0, "p")
    assert dict(zip(OVERLAPS, own.found[0], strict=True))["IoU 0.4"]
    assert dict(zip(OVERLAPS, own.false_positives, strict=True))["IoU 0.6"] == 1


def test_accuracy_is_per_box_and_false_positives_are_per_xray():
    rng = np.random.default_rng(1)
    xrays = [
        compare_map(random_map(rng), XRAY, [rectangle(*random_box(rng)) for _ in range(count)], finding, f"p{number}")
        for number, (finding, count) in enumerate([(0, 3), (0, 1), (2, 2), (0, 1), (2, 1)])
    ]
    result = localize_as_wang(FINDINGS, xrays, resamples=0)
    for finding in (0, 2):
        own = [xray for xray in xrays if xray.finding == finding]
        boxes, accuracy = result.accuracy.findings[FINDINGS[finding]]
        assert boxes == sum(len(xray.found) for xray in own)
        number, false = result.false_positives.findings[FINDINGS[finding]]
        assert number == len(own)
        for column, name in enumerate(OVERLAPS):
            expected = np.concatenate([xray.found for xray in own])[:, column].mean()
            assert accuracy[name].value == pytest.approx(expected)
            assert false[name].value == pytest.approx(np.mean([xray.false_positives[column] for xray in own]))
    both = [result.accuracy.findings[FINDINGS[finding]][1]["IoBB 0.1"].value for finding in (0, 2)]
    assert result.accuracy.mean["IoBB 0.1"].value == pytest.approx(np.mean(both))
