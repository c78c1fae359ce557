import csv
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from cheap_engine import cheap_bundle

from cxr_trt.calibrate.calibration import Calibration, FindingCalibration
from cxr_trt.calibrate.fit import Platt, Threshold
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle, map_rectangle
from cxr_trt.hashing import to_hashed_json
from cxr_trt.images import decode
from cxr_trt.images.files import find_files
from cxr_trt.results.drawing import BAR_MEANING, BOX_COLOUR, BOX_MEANING, COLOUR_MAP, frame, heat_map, overlay
from cxr_trt.results.writer import write_results
from cxr_trt.score.pipeline import Result
from cxr_trt.spec import Specification
from cxr_trt.tables.rows import NOTICE, Row


@pytest.mark.parametrize(("view_set", "cells", "offset"), [("ten-crop", 16, 0), ("center", 14, 32)])
@pytest.mark.parametrize("cell", [(0, 0), (3, 10), (13, 13)])
def test_the_hottest_cell_is_brightest_where_it_lies(view_set, cells, offset, cell):
    class_map = np.zeros((cells, cells), np.float32)
    class_map[cell] = 5
    picture = overlay(np.zeros((512, 512), np.uint8), class_map, Specification(views=view_set))
    assert picture.shape == (512, 512, 3)
    brightness = picture.sum(2, dtype=int) * (picture.std(2) > 0)  # without the grey line around what was seen
    y, x = (coordinates.mean() for coordinates in np.nonzero(brightness == brightness.max()))
    assert abs(y - (offset + 32 * cell[0] + 15.5)) <= 16
    assert abs(x - (offset + 32 * cell[1] + 15.5)) <= 16
    assert picture[300, 200].max() < 10  # far from every hot cell the X-ray shows through


def test_a_constant_map_leaves_the_xray_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    picture = overlay(image, np.full((16, 16), 3.0, np.float32), Specification())
    np.testing.assert_array_equal(picture, np.repeat(image[:, :, None], 3, axis=2))


def test_colours_are_laid_over_the_picture_in_bgr():
    """The published colours of inferno, sRGB: at the highest value (252, 255, 164)."""
    class_map = np.zeros((16, 16), np.float32)
    class_map[4:8, 4:8] = 1
    picture = overlay(np.full((512, 512), 100, np.uint8), class_map, Specification())
    highest = 0.6 * np.array([164, 255, 252]) + 0.4 * 100
    np.testing.assert_allclose(picture[192, 192], highest, atol=2)
    np.testing.assert_array_equal(picture[500, 500], (100, 100, 100))


def test_a_shrunk_picture_shows_the_same():
    """The rectangle is that of the file's own size: its central square is found in whole pixels there."""
    spec = Specification(views="center", fit="center-crop")
    class_map = np.zeros((14, 14), np.float32)
    class_map[5, 9] = 1
    large = overlay(np.zeros((600, 1400), np.uint8), class_map, spec)
    small = overlay(np.zeros((300, 700), np.uint8), class_map, spec, (600, 1400))
    shrunk = cv2.resize(large, (700, 300), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - small)[60:240, 240:440].max() < 12
    assert (large[:, : (1400 - 600) // 2] == 0).all()


def test_the_colours_are_perceptually_uniform():
    """Lightness, the L of CIELAB, rises by the same at every step, as a thresholded rainbow's does not."""
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], COLOUR_MAP)
    lightness = cv2.cvtColor((ramp / 255).astype(np.float32), cv2.COLOR_BGR2LAB)[:, 0, 0]
    steps = np.diff(lightness)
    assert steps.min() > -0.1
    assert steps[8:-8].max() < 2.5 * steps.mean()
    jet = cv2.cvtColor(
        (cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_JET) / 255).astype(np.float32),
        cv2.COLOR_BGR2LAB,
    )
    assert np.diff(jet[:, 0, 0]).min() < -0.5


@pytest.mark.parametrize("shape", [(512, 512), (1024, 600), (10, 900), (3, 3)])
def test_the_frame_holds_the_picture_untouched_and_text(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    framed = frame(picture, (-1.5, 2.25), "Mass 0.731", ["Research use only"])
    top = next(y for y in range(len(framed)) if (framed[y, : shape[1]] == picture[0]).all())
    np.testing.assert_array_equal(framed[top : top + shape[0], : shape[1]], picture)
    assert framed[:top].max() == 255
    other = frame(picture, (-1.5, 2.25), "Mass 0.732", ["Research use only"])
    assert (framed[:top] != other[:top]).any()


def row(name):
    return Row(name, None, None, None, None, None, (), "e", "e")


class Recorder:
    """A `ResultWriter` that only remembers what it was to write."""

    def __init__(self, fails_on=None):
        self.written, self.fails_on = [], fails_on

    def write(self, result):
        if result.row.path == self.fails_on:
            raise OSError("full")
        self.written.append(result.row.path)


def test_results_come_in_order_after_every_writer_has_written_them():
    writers = Recorder(), Recorder()
    results = [Result(row(str(i))) for i in range(20)]
    for i, result in enumerate(write_results(iter(results), writers)):
        assert result is results[i]
        assert all(result.row.path in writer.written for writer in writers)
    assert writers[0].written == writers[1].written == [str(i) for i in range(20)]


def test_what_fails_while_writing_is_raised_after_the_results_before_it():
    passed = []
    with pytest.raises(OSError, match="full"):
        passed.extend(result.row.path for result in write_results([Result(row(n)) for n in "abc"], [Recorder("c")]))
    assert passed == ["a", "b"]


@pytest.fixture
def score(cli, tmp_path, radiographs):
    def score(bundle, *options):
        outputs = ("-o", tmp_path / "s.csv", "--heatmaps", tmp_path / "maps", "--top", 2)
        result = cli("score", radiographs / "RG1_UNCR.dcm", "-e", bundle, *outputs, *options)
        assert result.exit_code == 0, result.stderr
        return result.stderr, tmp_path / "maps" / "RG1_UNCR.dcm"

    return score


def test_pictures_and_raw_maps_of_a_radiograph(score, center_bundle, tmp_path):
    _, folder = score(center_bundle, "--raw-maps")
    with (tmp_path / "s.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    probabilities = np.array([float(row[name]) for name in FINDINGS])
    first, second = np.argsort(-probabilities)[:2]
    names = {"maps.npz", f"1-{FINDINGS[first]}.png", f"2-{FINDINGS[second]}.png"}
    assert {path.name for path in folder.iterdir()} == names
    height = len(cv2.imread(str(folder / f"1-{FINDINGS[first]}.png")))
    assert 768 < height < 870  # 1955 x 1841 pixels, at most 768, and the frame
    with np.load(folder / "maps.npz") as maps:
        assert maps["class_maps"].shape == (14, 14, 14)
        assert tuple(maps["findings"]) == FINDINGS
        assert tuple(maps["size"]) == (1955, 1841)
        expected = map_rectangle(Specification(views="center"), 1955, 1841)
        np.testing.assert_array_equal(maps["rectangle"], expected)
        pooled = maps["class_maps"].max((1, 2)) + 0.7 * maps["class_maps"].min((1, 2))
        np.testing.assert_allclose(1 / (1 + np.exp(-pooled)), probabilities, atol=1e-5)


def test_full_size_is_the_files_own_and_other_options_draw_anew(score, cheap_bundle):
    message, _ = score(cheap_bundle)
    assert "heat maps: " in message
    message, folder = score(cheap_bundle, "--full-size")
    assert "earlier run" not in message
    (path,) = folder.glob("1-*.png")
    assert cv2.imread(str(path)).shape[0] > 1955
    message, _ = score(cheap_bundle, "--full-size")
    assert "1 of them in an earlier run" in message
    message, folder = score(cheap_bundle, "--raw-maps")
    assert "earlier run" not in message
    assert (folder / "maps.npz").exists()
    _, folder = score(cheap_bundle)
    assert not (folder / "maps.npz").exists()


def test_heat_maps_of_any_findings_are_known_again_and_replaced(score, tmp_path):
    five = cheap_bundle(tmp_path / "five.cxr", findings=("Lung Opacity", "Air/Fluid", "肺炎", "Fracture", "Mass"))
    _, folder = score(five)
    made = sorted(path.name for path in folder.iterdir())
    assert made == ["1-Mass.png", "2-Fracture.png"]
    picture = cv2.imread(str(folder / "2-Fracture.png"), cv2.IMREAD_UNCHANGED)
    assert decode((folder / "2-Fracture.png").read_bytes()).pixels.shape == picture.shape[:2]

    (folder / "effusion.png").write_bytes((folder / "2-Fracture.png").read_bytes())
    cv2.imwrite(str(folder / "3-Opacity.png"), picture)  # somebody's own picture, without the mark
    selection = find_files([folder])
    assert [source.name for source in selection.sources] == ["3-Opacity.png", "effusion.png"]
    assert selection.skipped == {"heat maps of cxr-trt": 2}

    one = cheap_bundle(tmp_path / "one.cxr", findings=("Air/Fluid",))
    _, folder = score(one, "--overwrite")
    assert sorted(path.name for path in folder.iterdir()) == ["1-Air_Fluid.png", "3-Opacity.png", "effusion.png"]


def test_a_caption_keeps_its_probability_however_long_the_name_is():
    picture, maps = np.zeros((300, 200), np.uint8), np.zeros((2, 2), np.float32)
    drawn = []
    for name in ("Mass", "W" * 64):
        for probability in (0.111, 0.999):
            row = Row("a.png", "", 200, 300, "PNG", (probability,), (), None, "")
            drawn.append(heat_map(row, picture, maps, 0, Specification(findings=(name,))))
    for one, other in (drawn[:2], drawn[2:]):
        assert (one != other).any()
        assert not one[:, -3:].any()


@pytest.mark.parametrize("side", [64, 300, 512, 700, 723, 768, 1024, 1500, 2600])
def test_no_note_is_cut_off_at_any_size(side, monkeypatch):
    """Every text that is drawn ends inside the frame, and together they are all the notes."""
    drawn = []

    def put(canvas, text, position, font, size, colour, thickness, kind):
        (width, _), _ = cv2.getTextSize(text, font, size, thickness)
        drawn.append((text, position[0] + width, canvas.shape[1], position[1], canvas.shape[0]))

    monkeypatch.setattr("cxr_trt.results.drawing.cv2.putText", put)
    warnings = ("demonstration model trained on few X-rays, not for results", "no chest? " * 20, "x" * 300)
    row = Row("ward/" + "n" * 200 + ".png", "", side, side, "PNG", (0.5,), warnings, None, "")
    heat_map(row, np.zeros((side, side), np.uint8), np.eye(4, dtype=np.float32), 0, Specification(findings=("Mass",)))
    assert all(right <= width and 0 < y < height for _, right, width, y, height in drawn)
    everything = "".join(text for text, *_ in drawn).replace(" ", "")
    for text in (NOTICE, *warnings, row.path, BAR_MEANING):
        assert text.replace(" ", "") in everything


def test_the_lower_half_of_a_map_is_clear():
    class_map = np.arange(256, dtype=np.float32).reshape(16, 16)
    image = np.full((512, 512), 90, np.uint8)
    picture = overlay(image, class_map, Specification())
    assert (picture[:220] == 90).all()
    assert (picture[400:] != 90).any()


def test_one_scale_gives_equal_values_equal_colours():
    maps = [np.full((16, 16), 2.0, np.float32) for _ in range(2)]
    maps[1][3, 3] = 9
    image = np.full((512, 512), 90, np.uint8)
    one, other = (overlay(image, class_map, Specification(), scale=(0, 10)) for class_map in maps)
    np.testing.assert_array_equal(one[400:], other[400:])
    assert (one[400:] != 90).any()


def test_heat_maps_by_score_finding_and_format(score, cheap_bundle):
    message, folder = score(cheap_bundle, "--findings", "hernia", "--findings", "Mass", "--heatmap-format", "jpeg")
    assert sorted(path.name for path in folder.iterdir()) == ["1-Hernia.jpg", "2-Mass.jpg"]
    assert "2 pictures drawn" in message
    assert find_files(folder.parent.parent / "s.csv").sources  # a file that is named is taken
    with pytest.raises(UsageError, match="heat maps of cxr-trt"):
        find_files(folder)
    _, folder = score(cheap_bundle, "--heatmaps-above", "1")
    assert list(folder.iterdir()) == []
    _, folder = score(cheap_bundle)
    assert len(list(folder.iterdir())) == 2


@pytest.fixture
def calibrated_bundle(cheap_bundle, tmp_path):
    """A copy of the cheap engine, with thresholds of 0 for Mass, 1 for Hernia, and none for the others."""
    bundle = shutil.copytree(cheap_bundle, tmp_path / "calibrated.cxr")
    engine = read_manifest(bundle).fingerprint
    fits = {
        name: FindingCalibration(20, Platt(1.0, 0.0), Threshold(score, 1.0, 1.0))
        for name, score in (("Mass", 0.0), ("Hernia", 1.0))
    }
    left_out = {name: "too few" for name in FINDINGS if name not in fits}
    calibration = Calibration(engine, "platt", "a test", 40, FINDINGS, fits, left_out)
    (bundle / "calibration.json").write_text(calibration.to_json())
    return bundle


def test_heat_maps_above_the_calibrated_threshold(score, calibrated_bundle, cheap_bundle, cli, radiographs, tmp_path):
    """Of the findings that the table calls positive, and of no finding without a threshold."""
    options = ("--top", 14, "--heatmaps-above", "calibrated")
    _, folder = score(calibrated_bundle, *options)
    assert [path.name.split("-")[1] for path in folder.iterdir()] == ["Mass.png"]
    with (tmp_path / "s.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert [name for name in FINDINGS if row[f"{name}_positive"] == "yes"] == ["Mass"]
    command = ("score", radiographs / "RG1_UNCR.dcm", "-e", cheap_bundle, "-o", tmp_path / "o.csv")
    refused = cli(*command, "--heatmaps", tmp_path / "other", *options)
    assert refused.exit_code == 2
    assert "the engine has no calibration; fit one with `cxr-trt calibrate`" in refused.stderr
    refused = cli(*command, "--heatmaps", tmp_path / "other", "--heatmaps-above", "1.5")
    assert "neither a score from 0 to 1 nor" in refused.stderr


def test_another_calibration_draws_anew(score, calibrated_bundle):
    score(calibrated_bundle, "--heatmaps-above", "calibrated")
    assert "earlier run" in score(calibrated_bundle, "--heatmaps-above", "calibrated")[0]
    file = calibrated_bundle / "calibration.json"
    fields = {name: value for name, value in json.loads(file.read_text()).items() if name != "sha256"}
    fields["fits"]["Hernia"]["threshold"]["score"] = 0.0
    file.write_text(to_hashed_json(fields))
    message, folder = score(calibrated_bundle, "--heatmaps-above", "calibrated")
    assert "earlier run" not in message
    assert sorted(path.name for path in folder.iterdir()) == ["1-Hernia.png", "2-Mass.png"]


def test_boxes_are_drawn_over_the_map_of_their_finding(score, cheap_bundle, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,finding,x,y,width,height\nRG1_UNCR.dcm,Hernia,460,490,920,980\n")
    options = ("--findings", "Hernia", "--findings", "Mass")
    _, folder = score(cheap_bundle, *options)
    plain = {name: cv2.imread(str(folder / name)) for name in ("1-Hernia.png", "2-Mass.png")}
    message, folder = score(cheap_bundle, *options, "--boxes", boxes)
    assert "earlier run" not in message
    with_box = cv2.imread(str(folder / "1-Hernia.png"))
    np.testing.assert_array_equal(cv2.imread(str(folder / "2-Mass.png")), plain["2-Mass.png"])
    blue = np.argwhere((with_box == BOX_COLOUR).all(2))
    assert np.ptp(blue, axis=0) == pytest.approx((980 * 768 / 1955, 920 * 768 / 1955), abs=4)
    scale = 768 / 1955
    assert blue[:, 1].min() == pytest.approx(460 * scale, abs=3)
    top = len(with_box) - 768
    assert blue[:, 0].min() - top == pytest.approx(490 * scale, abs=3)
    boxes.write_text("image,finding,x,y,width,height\nRG1_UNCR.dcm,Hernia,10,10,920,980\n")
    message, _ = score(cheap_bundle, *options, "--boxes", boxes)
    assert "earlier run" not in message


def test_a_picture_says_what_its_box_is(monkeypatch):
    drawn = []
    monkeypatch.setattr("cxr_trt.results.drawing.cv2.putText", lambda canvas, text, *rest: drawn.append(text))
    row = Row("a.png", "", 300, 300, "PNG", (0.5,), (), None, "")
    spec = Specification(findings=("Mass",))
    for boxes in ((), [Rectangle(10, 10, 50, 50)]):
        drawn.clear()
        heat_map(row, np.zeros((300, 300), np.uint8), np.eye(4, dtype=np.float32), 0, spec, None, boxes)
        assert (BOX_MEANING in " ".join(drawn)) == bool(boxes)


def test_boxes_of_nothing_that_is_scored_are_refused(cli, cheap_bundle, radiographs, tmp_path):
    command = ("score", radiographs / "RG1_UNCR.dcm", "-e", cheap_bundle, "-o", tmp_path / "s.csv")
    boxes = tmp_path / "boxes.csv"
    mistakes = {"other.png,Mass": "none of its images is in the X-rays", "RG1_UNCR.dcm,Rib": "are none of the X-rays"}
    for line, sentence in mistakes.items():
        boxes.write_text(f"image,finding,x,y,width,height\n{line},1,1,9,9\n")
        refused = cli(*command, "--heatmaps", tmp_path / "maps", "--boxes", boxes)
        assert refused.exit_code == 2
        assert sentence in refused.stderr


def test_a_finding_has_a_scale_of_its_own(score, cheap_bundle):
    options = ("--findings", "Hernia", "--findings", "Mass", "--heatmap-range", -5, 5)
    _, folder = score(cheap_bundle, *options)
    plain = [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    _, folder = score(cheap_bundle, *options, "--finding-range", "mass", -9, 9)
    own = [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    np.testing.assert_array_equal(own[0], plain[0])
    assert (own[1] != plain[1]).any()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_what_is_written_is_announced_beforehand(score, cheap_bundle, kind):
    message, folder = score(cheap_bundle, "--heatmap-format", kind, "--raw-maps")
    pictures, megabytes = re.search(r"heat maps: at most (\d+) pictures, about ([\d.]+) MB, in ", message).groups()
    written = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    assert int(pictures) == 2
    assert 0.4 * float(megabytes) < written < float(megabytes)


def test_too_little_room_is_said_beforehand(score, cheap_bundle, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=100_000))
    message, _ = score(cheap_bundle)
    assert "warning: only 0.1 MB are free there" in message


def test_options_about_heat_maps_need_some(cli, cheap_bundle, radiographs, tmp_path):
    command = ("score", radiographs / "RG1_UNCR.dcm", "-e", cheap_bundle, "-o", tmp_path / "s.csv")
    for options in (["--heatmaps-above", "0.5"], ["--findings", "Mass"], ["--boxes", "b.csv"], ["--raw-maps"]):
        refused = cli(*command, *options)
        assert refused.exit_code == 2
        assert f"{options[0]} is about heat maps; add --heatmaps FOLDER" in refused.stderr
    refused = cli(*command, "--heatmaps", tmp_path / "maps", "--heatmap-range", 2, 1)
    assert "a colour scale from 2 to 1 has no colours" in refused.stderr


def test_a_finding_that_the_engine_lacks_is_named(cli, cheap_bundle, radiographs, tmp_path):
    command = ("score", radiographs / "RG1_UNCR.dcm", "-e", cheap_bundle, "-o", tmp_path / "s.csv")
    result = cli(*command, "--heatmaps", tmp_path / "maps", "--findings", "Flu")
    assert result.exit_code == 2
    assert "--findings Flu: the engine has no such finding" in result.stderr
