import csv
import json

import cv2
import numpy as np
import pytest

from cxr_trt.errors import UsageError
from cxr_trt.evaluate.localization import IOBB_THRESHOLDS, IOU_THRESHOLDS, MEASURES, hits, localize
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle, Region, strongest_region
from cxr_trt.results.raw_maps import read_raw_maps
from cxr_trt.tables.boxes import read_boxes

WHOLE = Rectangle(0, 0, 1000, 800)


def spots(*places, cells=16):
    """A class map with bumps (row, column, height)."""
    y, x = np.mgrid[:cells, :cells]
    return sum(h * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 3) for row, column, h in places).astype(np.float32)


def test_the_region_lies_around_the_highest_spot_only():
    region = strongest_region(spots((4, 4, 1.0), (11, 12, 0.95)), WHOLE)
    y, x = region.peak
    assert (y, x) == pytest.approx((4.5 / 16 * 1000, 4.5 / 16 * 800), abs=4)
    box = region.box
    assert (box.y + box.height / 2, box.x + box.width / 2) == pytest.approx((y, x), abs=4)
    assert box.height / 1000 == pytest.approx(box.width / 800)
    # exp(-r2 / 3) > 180/255 within 1.02 cells of the centre
    assert box.height / 1000 * 16 == pytest.approx(2 * 1.02, abs=0.3)


def test_spots_that_touch_are_one_region():
    alone = strongest_region(spots((8, 4, 1.0)), WHOLE).box
    joined = strongest_region(spots((8, 4, 1.0), (8, 6, 1.0)), WHOLE).box
    assert joined.width > 1.5 * alone.width
    assert joined.height == pytest.approx(alone.height, rel=0.3)


def test_a_constant_map_is_everywhere():
    assert strongest_region(np.zeros((14, 14), np.float32), WHOLE).box == WHOLE


def test_a_map_that_covers_a_part_has_its_region_there():
    whole, part = (strongest_region(spots((4, 9, 1.0)), r).box for r in (WHOLE, Rectangle(500, 400, 500, 400)))
    assert part == pytest.approx(Rectangle(500 + whole.y / 2, 400 + whole.x / 2, whole.height / 2, whole.width / 2))


def test_measures_by_hand():
    region = Region(Rectangle(10, 20, 40, 30), (15.0, 22.0))
    found = dict(zip(MEASURES, hits(region, Rectangle(30, 30, 40, 40)), strict=True))
    both, area, other = 20 * 20, 40 * 30, 40 * 40
    assert [found[f"IoU {t}"] for t in IOU_THRESHOLDS] == [both / (area + other - both) > t for t in IOU_THRESHOLDS]
    assert [found[f"IoBB {t}"] for t in IOBB_THRESHOLDS] == [both / area > t for t in IOBB_THRESHOLDS]
    assert found["IoU 0.1"]
    assert not found["IoU 0.2"]
    assert found["IoBB 0.3"]
    assert not found["IoBB 0.4"]
    assert not found["pointing"]
    assert hits(region, Rectangle(15, 22, 1, 1))[-1]
    assert not hits(region, Rectangle(14, 22, 1, 1))[-1]
    assert not any(hits(region, Rectangle(60, 20, 40, 30)))
    assert all(hits(region, region.box))


def test_accuracies_and_intervals_against_a_loop_over_patients():
    rng = np.random.default_rng(0)
    hit, findings, patients = rng.random((60, 17)) < 0.4, rng.choice([0, 2, 7], 60), rng.integers(0, 25, 60)
    result = localize(FINDINGS, hit, findings, patients, resamples=120, seed=5)
    members = [np.flatnonzero(patients == number) for number in np.unique(patients)]
    generator, drawn = np.random.default_rng(5), []
    for _ in range(120):
        rows = np.concatenate([members[i] for i in generator.integers(len(members), size=len(members))])
        drawn.append([hit[rows][findings[rows] == finding].mean(0) for finding in (0, 2, 7)])
    drawn = np.array(drawn)
    exact = np.array([hit[findings == finding].mean(0) for finding in (0, 2, 7)])
    assert list(result.findings) == [FINDINGS[i] for i in (0, 2, 7)]
    for row, (count, accuracies) in enumerate(result.findings.values()):
        assert count == (findings == (0, 2, 7)[row]).sum()
        for column, accuracy in enumerate(accuracies.values()):
            assert accuracy.value == pytest.approx(exact[row, column])
            expected = np.percentile(drawn[:, row, column], (2.5, 97.5))
            assert (accuracy.low, accuracy.high) == pytest.approx(expected)
    for column, accuracy in enumerate(result.mean.values()):
        assert accuracy.value == pytest.approx(exact[:, column].mean())
        expected = np.percentile(drawn[:, :, column].mean(1), (2.5, 97.5))
        assert (accuracy.low, accuracy.high) == pytest.approx(expected)


@pytest.fixture
def here(cli, tmp_path, monkeypatch, cheap_bundle):
    """X-rays with one bright square, scored by an engine whose class maps are the grey; boxes around the squares."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xrays").mkdir()
    rng = np.random.default_rng(0)
    boxes, labels = [["image", "finding", "x", "y", "width", "height"]], [["image", "patient_id", *FINDINGS]]
    for i in range(8):
        picture = np.full((600, 900), 30, np.uint8)
        y, x = (int(rng.integers(80, length - 250)) for length in picture.shape)
        picture[y : y + 150, x : x + 150] = 220
        cv2.imwrite(f"xrays/{i}.png", picture)
        boxes.append([f"{i}.jpg", FINDINGS[4 + i % 2], x, y, 150, 150])
        labels.append([f"{i}.png", i // 2, *([0, 1] * 7)])
    boxes.append(["elsewhere.jpg", "Mass", 1, 1, 5, 5])
    for name, rows in (("boxes.csv", boxes), ("labels.csv", labels)):
        with (tmp_path / name).open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    options = ("-e", cheap_bundle, "-o", "s.csv", "--heatmaps", "maps", "--raw-maps")
    assert cli("score", "xrays", *options).exit_code == 0
    for path in (tmp_path / "maps").rglob("maps.npz"):
        # this engine's maps cover the whole image, whatever its specification says
        with np.load(path) as file:
            content = {**file, "rectangle": np.array([0.0, 0.0, 600.0, 900.0])}
        np.savez(path, **content)
    return tmp_path


@pytest.fixture
def evaluate(cli, here):
    def evaluate(*arguments, code=0):
        result = cli("evaluate", "s.csv", "labels.csv", "--resamples", 20, *arguments)
        assert result.exit_code == code, result.output
        return result

    return evaluate


def test_the_command_finds_the_squares(evaluate, here):
    result = evaluate("--boxes", "boxes.csv", "--maps", "maps", "--json", "r.json")
    assert "1 box left out, on images that were not scored" in result.stderr
    found = json.loads((here / "r.json").read_text())["localization"]
    assert (found["boxes"], found["patients"]) == (8, 4)
    assert list(found["findings"]) == ["Mass", "Nodule"]
    assert found["mean"]["pointing"]["value"] == 1
    assert found["mean"]["IoU 0.5"]["value"] == 1
    assert found["mean"]["IoBB 0.6"]["value"] == 1
    assert "| **mean** | 8 | 1.00 (1.00 to 1.00)" in result.stdout


def test_the_command_also_reports_as_wang_et_al_do(evaluate, here):
    """The maps are one bright square: its box is found at both thresholds, and is the only one."""
    options = ("--boxes", "boxes.csv", "--maps", "maps")
    result = evaluate(*options, "--wang", "--json", "w.json")
    content = json.loads((here / "w.json").read_text())
    found, false = (content["localization_wang2017"][name] for name in ("accuracy", "false_positives"))
    assert found["mean"]["IoU 0.5"]["value"] == 1
    assert (found["boxes"], false["boxes"]) == (8, 8)
    assert false["mean"]["IoU 0.1"]["value"] == 0
    assert false["mean"]["IoBB 0.9"]["value"] > 0
    assert "As Wang et al. 2017: false positives per X-ray:\n\n| finding" in result.stdout

    plain = evaluate(*options, "--json", "p.json")
    assert "Wang" not in plain.stdout
    assert json.loads((here / "p.json").read_text())["localization"] == content["localization"]
    assert "--wang needs --boxes" in evaluate("--wang", code=2).stderr


def test_nihs_own_list_is_read(tmp_path):
    path = tmp_path / "BBox_List_2017.csv"
    path.write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00013118_008.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661,,,\n"
        "00014716_007.png,Infiltrate,686.101694915254,131.543498111162,185.491525423729,313.491525423729,,,\n"
    )
    first, second = read_boxes(path)
    assert (first.image, first.finding) == ("00013118_008.png", "Atelectasis")
    assert first.rectangle == pytest.approx((547.019, 225.085, 79.186, 86.780), abs=1e-3)
    assert second.finding == "Infiltration"


def test_nihs_list_and_the_subsets_agree(cxr14, tmp_path):
    import gzip

    path = tmp_path / "boxes.csv"
    path.write_bytes(gzip.decompress((cxr14 / "metadata" / "BBox_List_2017.csv.gz").read_bytes()))
    boxes = read_boxes(path)
    assert len(boxes) == 984
    original = {(box.image.split(".")[0], box.finding): box.rectangle for box in boxes}
    for box in read_boxes(cxr14 / "boxes.csv"):
        expected = np.array(original[box.image.split(".")[0], box.finding]) / 2
        np.testing.assert_allclose(box.rectangle, expected, atol=0.01)


def test_boxes_of_other_findings_are_left_out_and_named(evaluate, here):
    text = (here / "boxes.csv").read_text()
    (here / "more.csv").write_text(text.replace("Nodule", "NODULE") + "0.jpg,Rib,1,1,5,5\n")
    result = evaluate("--boxes", "more.csv", "--maps", "maps", "--json", "more.json")
    assert "boxes of findings that SCORES lacks were left out: Rib\n" in result.stderr
    evaluate("--boxes", "boxes.csv", "--maps", "maps", "--json", "r.json")
    found, expected = (json.loads((here / name).read_text())["localization"] for name in ("more.json", "r.json"))
    assert found == expected

    path = here / "maps" / "0.png" / "maps.npz"
    with np.load(path) as file:
        content = {**file, "findings": file["findings"][::-1]}
    np.savez(path, **content)
    refused = evaluate("--boxes", "boxes.csv", "--maps", "maps", code=2).stderr
    assert "its class maps are not of the findings of s.csv; score the X-ray again" in refused


def test_what_cannot_be_used_is_refused_in_one_sentence(evaluate, here):
    assert "go together" in evaluate("--boxes", "boxes.csv", code=2).stderr
    (here / "huge.csv").write_text("image,finding,x,y,width,height\n0.png,Mass,800,100,300,100\n")
    assert "reaches beyond its 900 x 600 pixels" in evaluate("--boxes", "huge.csv", "--maps", "maps", code=2).stderr
    assert "make it with" in evaluate("--boxes", "boxes.csv", "--maps", "nowhere", code=2).stderr
    for content, sentence in (
        ("image,finding,x,y,width\n", "has no column height"),
        (
            "image,finding,x,y,width,height\n0.png,Rib,1,1,5,5\n",
            "b.csv: its findings (Rib) are none of s.csv; name them as there: Atelectasis,",
        ),
        ("image,finding,x,y,width,height\n0.png,Mass,1,1,0,5\n", "its width and height must be above 0"),
        ("image,finding,x,y,width,height\n0.png,Mass,1,nan,5,5\n", "its width and height must be above 0"),
        ("image,finding,x,y,width,height\nz.png,Mass,1,1,5,5\n", "none of its images is in s.csv"),
        ("", "cannot be read as a table of boxes"),
    ):
        (here / "b.csv").write_text(content)
        assert sentence in evaluate("--boxes", "b.csv", "--maps", "maps", code=2).stderr
    damaged = here / "maps" / "0.png" / "maps.npz"
    for content in (b"", b"PK\x03\x04 no zip", damaged.read_bytes()[:3000]):
        damaged.write_bytes(content)
        with pytest.raises(UsageError, match="holds no class maps"):
            read_raw_maps(here / "maps", "0.png")
