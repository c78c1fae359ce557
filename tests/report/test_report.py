"""The HTML report: what is written, and what a real browser makes of it."""

import base64
import csv
import hashlib
import html
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_trt.calibrate.calibration import calibrated_column, positive_column
from cxr_trt.commands import report_inputs
from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.report.cases import read_cases
from cxr_trt.report.page import build_page
from cxr_trt.tables.rows import columns

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NASTY = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\u2028&amp;.png"


def run(*arguments):
    """A command in a process of its own, for what several tests share."""
    return subprocess.run([sys.executable, "-m", "cxr_trt", *arguments], capture_output=True, text=True)


@pytest.fixture
def call(cli):
    def call(*arguments, code=0):
        result = cli(*arguments)
        assert result.exit_code == code, result.output
        return result

    return call


def write_table(path, count, *, calibrated=False, errors=()):
    """`count` rows of random scores; the names tell their number."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        added = ["calibration", *map(calibrated_column, FINDINGS), *map(positive_column, FINDINGS)] * calibrated
        writer.writerow([*columns(FINDINGS), *added])
        for i in range(count):
            scores = np.round(rng.random(14) * 0.8, 4)
            warnings = (
                "research model" + ("; negative?" if i % 10 == 3 else "") + ("; no chest?" if i % 25 == 0 else "")
            )
            row = [f"folder/{i:05}.png", "0" * 64, 1024, 900, "PNG", *scores, warnings, "", "engine-1"]
            if calibrated:
                row += [
                    "fit-1",
                    *np.round(scores / 2, 4)[:13],
                    "",
                    *("yes" if s > 0.4 else "no" for s in scores[:13]),
                    "",
                ]
            writer.writerow(row)
        for name, reason in errors:
            writer.writerow(
                [
                    name,
                    "",
                    "",
                    "",
                    "",
                    *[""] * 14,
                    "",
                    reason,
                    "engine-1",
                    *[""] * len(added),
                ]
            )
    return path


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_cases_errors_and_warnings_are_told_apart(tmp_path):
    table = read_cases(write_table(tmp_path / "s.csv", 50, calibrated=True, errors=[(NASTY, "torn")]))
    assert (len(table.cases), table.errors) == (50, [(NASTY, "torn")])
    assert table.common_warnings == ("research model",)
    assert table.warnings == {"negative?": 5, "no chest?": 2}
    assert table.cases[3].warnings == ("negative?",)
    assert table.cases[0].size == (900, 1024)
    assert table.cases[0].calibrated[0] == pytest.approx(table.cases[0].scores[0] / 2, abs=1e-4)
    assert table.cases[0].positive[:2] == tuple(score > 0.4 for score in table.cases[0].scores[:2])
    assert (table.cases[0].calibrated[13], table.cases[0].positive[13]) == (None, None)
    assert (table.findings, table.engines, table.calibrations) == (FINDINGS, ("engine-1",), ("fit-1",))


def test_texts_from_outside_stay_texts(tmp_path):
    path = write_table(tmp_path / "s.csv", 2, errors=[(NASTY, NASTY)])
    path.write_text(path.read_text().replace("folder/00001.png", NASTY))
    page = build_page(NASTY, read_cases(path), {})
    assert data_of(page)["cases"][1]["path"] == NASTY
    assert page.count("<script") == 3
    assert "<img src=x" not in page
    assert page.count(html.escape(NASTY)) == 4


def test_the_policy_names_exactly_the_two_scripts(tmp_path):
    page = build_page("x", read_cases(write_table(tmp_path / "s.csv", 1)), {})
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts}
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    assert len(digests) == 2
    assert set(policy.split("script-src ")[1].split()) == digests
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "sourceMappingURL" not in page


def test_the_bundled_library_is_the_version_that_the_makefile_fetches():
    root = Path(__file__).parents[2]
    version = re.search(r"^TABULATOR := (\S+)$", (root / "Makefile").read_text(), re.MULTILINE)[1]
    folder = root / "cxr_trt" / "report" / "assets" / "tabulator"
    assert f"Tabulator v{version} " in (folder / "tabulator.min.js").read_text()[:80]
    assert "MIT License" in (folder / "LICENSE").read_text()


@pytest.fixture(scope="module")
def scored(tmp_path_factory, cheap_bundle):
    """Twelve X-rays of rising grey and a broken file, scored with maps, and the page of them."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "xrays" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        picture = rng.integers(0, 12, (400, 560)) + 30 + 10 * i
        picture[50:150, 300:420] += 60
        cv2.imwrite(str(folder / "xrays" / "sub" / f"{i:02}.png"), picture.astype(np.uint8))
    (folder / "xrays" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    options = ["-o", folder / "s.csv", "--heatmaps", folder / "maps", "--raw-maps"]
    assert run("score", folder / "xrays", "-e", cheap_bundle, *options).returncode == 1
    options = ["-o", folder / "r.html", "--images", folder / "xrays", "--heatmaps", folder / "maps"]
    assert run("report", folder / "s.csv", *options).returncode == 0
    return folder


def test_pictures_and_maps_are_those_of_the_files(scored):
    cases = {case["path"]: case for case in data_of((scored / "r.html").read_text())["cases"]}
    assert len(cases) == 12
    case = cases["sub/07.png"]
    jpeg = cv2.imdecode(np.frombuffer(base64.b64decode(case["picture"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    original = cv2.imread(str(scored / "xrays" / "sub" / "07.png"), cv2.IMREAD_GRAYSCALE)
    assert jpeg.shape == tuple(case["shape"]) == (274, 384)
    expected = cv2.resize(original, (384, 274), interpolation=cv2.INTER_AREA)
    assert np.abs(jpeg.astype(int) - expected).mean() < 4
    with np.load(scored / "maps" / "sub" / "07.png" / "maps.npz") as maps:
        class_maps, rectangle = maps["class_maps"], maps["rectangle"]
    np.testing.assert_allclose(case["rectangle"], rectangle / (400, 560, 400, 560))
    highest = sorted(range(14), key=lambda i: case["scores"][i], reverse=True)[:3]
    assert [item["finding"] for item in case["maps"]] == highest
    for item in case["maps"]:
        own = class_maps[item["finding"]]
        cells = np.frombuffer(base64.b64decode(item["cells"]), np.uint8).reshape(item["rows"], item["columns"])
        restored = item["low"] + cells / 255 * (item["high"] - item["low"])
        np.testing.assert_allclose(restored, own, atol=(own.max() - own.min()) / 500)


def test_a_finding_with_a_box_has_its_map_however_low_its_score(call, scored, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,finding,x,y,width,height\n07.png,Atelectasis,10,20,200,150\n")
    images = ["--images", scored / "xrays", "--heatmaps", scored / "maps", "--boxes", tmp_path / "boxes.csv"]
    call("report", scored / "s.csv", "-o", tmp_path / "r.html", *images)
    cases = {case["path"]: case for case in data_of((tmp_path / "r.html").read_text())["cases"]}
    assert [len(cases[f"sub/0{i}.png"]["maps"]) for i in (6, 7)] == [3, 4]
    assert [item["finding"] for item in cases["sub/07.png"]["maps"]][3] == FINDINGS.index("Atelectasis")


def test_a_changed_or_missing_file_has_no_picture(call, scored, tmp_path):
    shutil.copytree(scored / "xrays", tmp_path / "xrays")
    (tmp_path / "xrays" / "sub" / "03.png").unlink()
    shutil.copy(scored / "xrays" / "sub" / "05.png", tmp_path / "xrays" / "sub" / "04.png")
    shutil.copytree(scored / "maps", tmp_path / "maps")
    shutil.rmtree(tmp_path / "maps" / "sub" / "06.png")
    images = ["--images", tmp_path / "xrays", "--heatmaps", tmp_path / "maps"]
    result = call("report", scored / "s.csv", "-o", tmp_path / "r.html", *images, code=1)
    assert "1 X-ray: no picture (not among the images)" in result.stderr
    assert "1 X-ray: no picture (changed since it was scored)" in result.stderr
    assert "1 X-ray: no heat maps (no maps.npz)" in result.stderr
    cases = {case["path"]: case for case in data_of((tmp_path / "r.html").read_text())["cases"]}
    assert ["picture" in cases[f"sub/0{i}.png"] for i in (3, 4, 5, 6)] == [False, False, True, True]
    assert cases["sub/06.png"]["maps"] == []
    result = call("report", scored / "s.csv", "-o", tmp_path / "few.html", *images[:2], "--pictures", 2)
    assert (tmp_path / "few.html").read_text().count('"picture":') == 2


def test_what_cannot_be_used_is_refused(call, scored, tmp_path):
    assert "must end in .html" in call("report", scored / "s.csv", "-o", tmp_path / "r.pdf", code=2).stderr
    (tmp_path / "mine.html").write_text("<!doctype html><title>mine</title>")
    assert "--overwrite" in call("report", scored / "s.csv", "-o", tmp_path / "mine.html", code=2).stderr
    out = ("-o", tmp_path / "r.html")
    assert "needs --images too" in call("report", scored / "s.csv", *out, "--heatmaps", scored, code=2).stderr
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "another.png").write_bytes(next(scored.glob("maps/sub/00.png/*.png")).read_bytes())
    other = call("report", scored / "s.csv", *out, "--images", tmp_path / "others", code=2)
    assert "has no file of the table" in other.stderr
    assert not (tmp_path / "r.html").exists()


class Browser:
    """A page in a real Chromium that has no network, and what it complained about or asked for."""

    def __init__(self, playwright, path, **options):
        self.browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = self.browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.page = context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".tabulator-row")
        self.settle()

    def settle(self):
        """Until the table is built and drawn: a click on a row that is being drawn anew would be lost."""
        self.page.wait_for_function("() => document.getElementById('status').textContent !== ''")
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")

    def column(self, field):
        return self.page.locator(f".tabulator-row .tabulator-cell[tabulator-field='{field}']").all_inner_texts()

    def status(self, text):
        self.page.wait_for_function("text => document.getElementById('status').textContent === text", arg=text)


@pytest.fixture(scope="module")
def playwright():
    api = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as running:
        yield running


@pytest.fixture
def browse(playwright):
    opened = []

    def browse(path, **options):
        opened.append(Browser(playwright, path, **options))
        return opened[-1]

    yield browse
    for browser in opened:
        browser.browser.close()
        assert browser.complaints == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The page of 10,000 rows with calibration and an error."""
    folder = tmp_path_factory.mktemp("large")
    table = write_table(folder / "s.csv", 10_000, calibrated=True, errors=[(NASTY, "cut off"), ("b.dcm", "no pixels")])
    assert run("report", table, "-o", folder / "r.html").returncode == 0
    return folder / "r.html", read_cases(table).cases


def test_sort_and_filter_ten_thousand_rows(browse, large):
    path, cases = large
    browser = browse(path)
    page = browser.page
    browser.status("10000 of 10000 X-rays")
    assert page.locator(".tabulator-row").count() < 100  # only what is in sight is in the document
    highest = sorted((max(case.scores) for case in cases), reverse=True)
    assert [float(text) for text in browser.column("value")[:5]] == pytest.approx(highest[:5], abs=6e-4)

    page.select_option("#finding", label="Pleural Thickening")
    page.wait_for_function("() => document.querySelector('[tabulator-field=finding] span').textContent[0] === 'P'")
    page.wait_for_timeout(200)
    scores = sorted((case.scores[12] for case in cases), reverse=True)
    assert [float(text) for text in browser.column("value")[:5]] == pytest.approx(scores[:5], abs=6e-4)
    page.select_option("#sort", "value asc")
    page.wait_for_timeout(300)
    assert [float(text) for text in browser.column("value")[:5]] == pytest.approx(scores[::-1][:5], abs=6e-4)

    page.fill("#least", "0.5")
    browser.status(f"{sum(case.scores[12] >= 0.5 for case in cases)} of 10000 X-rays")
    page.select_option("#warning", label="no chest? (400)")
    browser.status(f"{sum(case.scores[12] >= 0.5 and 'no chest?' in case.warnings for case in cases)} of 10000 X-rays")
    page.click("button[type=reset]")
    browser.status("10000 of 10000 X-rays")
    page.check("#positive")
    browser.status(f"{sum(case.positive[np.argmax(case.scores)] is True for case in cases)} of 10000 X-rays")
    page.fill("#search", "0042")
    found = [case for case in cases if "0042" in case.path and case.positive[np.argmax(case.scores)]]
    browser.status(f"{len(found)} of 10000 X-rays")
    page.click("button[type=reset]")
    page.click(".tabulator-col[tabulator-field='path'] .tabulator-col-title")
    page.wait_for_timeout(300)
    assert browser.column("path")[:3] == [f"folder/{i:05}.png" for i in range(3)]
    cells = page.locator(".errors tbody td").all_text_contents()
    assert cells == [NASTY, "cut off", "b.dcm", "no pixels"]


@pytest.mark.parametrize("count", [1, 5, 18, 40])
def test_any_number_of_findings_fits_on_the_page(browse, tmp_path, count):
    findings = ("Enlarged cardiomediastinal silhouette, on any view of the chest", "<b>", *map(str, range(38)))[:count]
    table = tmp_path / "s.csv"
    scores = ",".join(f"{1 / (i + 2):.3f}" for i in range(count))
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", *findings], ["a.png", *scores.split(",")]])
    (tmp_path / "r.html").write_text(build_page("x", read_cases(table), {}))
    browser = browse(tmp_path / "r.html")
    page = browser.page
    page.locator(".distributions span").first.wait_for(state="attached")
    assert page.locator(".distributions span").all_text_contents() == list(findings)
    assert page.locator("#finding option").all_text_contents()[1:] == list(findings)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('.distributions button')].every(b => b.scrollWidth <= b.clientWidth)"
    )
    page.get_by_label("Open a.png").click()
    page.locator("#case-scores td").first.wait_for(state="attached")
    assert page.locator("#case-scores td:first-child").all_text_contents() == list(findings)


def test_hostile_names_stay_text_in_the_browser(browse, tmp_path):
    path = write_table(tmp_path / "s.csv", 3, errors=[(NASTY, NASTY)])
    path.write_text(path.read_text().replace("folder/00001.png", NASTY).replace("no chest?", NASTY))
    (tmp_path / "r.html").write_text(build_page(NASTY, read_cases(path), {}))
    browser = browse(tmp_path / "r.html")
    assert NASTY in browser.page.locator(".tabulator-row [tabulator-field=path] span").all_text_contents()
    browser.page.get_by_label(f"Open {NASTY}").click()
    browser.page.wait_for_selector("#case[open]")
    assert browser.page.locator("#case-title").text_content() == NASTY
    assert browser.page.title().startswith("<img")
    assert browser.page.locator("img[src=x]").count() == 0


def test_ten_thousand_rows_stay_fluid(browse, large):
    """Scrolled through from top to bottom, the document never holds more than what is near the view."""
    browser = browse(large[0])
    page = browser.page
    for place in range(0, 700_000, 70_000):
        page.evaluate("place => { document.querySelector('.tabulator-tableholder').scrollTop = place }", place)
        page.wait_for_timeout(60)
        assert 3 < page.locator(".tabulator-row").count() < 120


def test_open_a_case_with_its_maps(browse, scored):
    browser = browse(scored / "r.html")
    page = browser.page
    browser.status("12 of 12 X-rays")
    thumb = page.locator(".thumb").first
    assert thumb.locator("canvas").evaluate("canvas => getComputedStyle(canvas).opacity") == "0"
    thumb.hover()
    page.wait_for_function("() => getComputedStyle(document.querySelector('.thumb canvas')).opacity === '1'")
    painted = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v > 0)"
    assert thumb.locator("canvas").evaluate(painted)
    thumb.click()
    assert page.locator("#case").is_visible()
    assert page.inner_text("#case-title") == "sub/11.png"
    page.wait_for_timeout(300)
    assert page.locator("#case figure").count() == 4
    assert page.locator("#case figcaption").first.inner_text() == "without a map"
    assert page.locator("#case figcaption").nth(1).inner_text().startswith("Hernia 0.9")
    for index in range(3):
        assert page.locator("#case canvas").nth(index).evaluate(painted)
    assert page.locator("#case-scores tr").count() == 15
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#case-title") == "sub/10.png"
    page.keyboard.press("Escape")
    assert not page.locator("#case").is_visible()


def test_the_overlay_is_strongest_where_the_class_map_is(browse, scored):
    browser = browse(scored / "r.html")
    thumb = browser.page.locator(".thumb").first
    thumb.hover()
    place = thumb.locator("canvas").evaluate(
        """canvas => {
            const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const opacity = data.filter((_, i) => i % 4 === 3);
            const high = 0.8 * Math.max(...opacity);
            const at = [...opacity.keys()].filter(i => opacity[i] >= high);
            const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
            return [mean(at.map(i => Math.floor(i / width))) / height, mean(at.map(i => i % width)) / width];
        }"""
    )
    with np.load(scored / "maps" / "sub" / "11.png" / "maps.npz") as maps:
        own, (y, x, height, width) = maps["class_maps"][13], maps["rectangle"]
    low = np.median(own)  # where the colours begin
    rows, columns = np.nonzero(own >= low + 0.8 * (own.max() - low))
    expected = (y + (rows.mean() + 0.5) / 16 * height) / 400, (x + (columns.mean() + 0.5) / 16 * width) / 560
    assert place == pytest.approx(expected, abs=0.02)


def test_everything_with_the_keyboard(browse, scored):
    browser = browse(scored / "r.html")
    page = browser.page
    browser.status("12 of 12 X-rays")
    page.focus("button[type=reset]")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('thumb')"):
            break
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused).startswith("Open sub/11.png, Hernia 0.9")
    assert page.evaluate("getComputedStyle(document.activeElement.querySelector('canvas')).opacity") == "1"
    for _ in range(10):  # to rows that are not yet in the document
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(80)
    assert page.evaluate(focused).startswith("Open sub/01.png")
    page.keyboard.press("Enter")
    assert page.inner_text("#case-title") == "sub/01.png"
    page.keyboard.press("Escape")
    page.wait_for_timeout(150)
    assert page.evaluate(focused).startswith("Open sub/01.png")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, [role=img]')].filter(e =>
            !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).length"""
    )
    assert unnamed == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(browse, large, scheme):
    browser = browse(large[0], color_scheme=scheme)
    ratios = browser.page.evaluate(
        """() => {
            const linear = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
            const light = ([r, g, b]) =>
                .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
            const parse = text => text.match(/[\\d.]+/g).map(Number);
            const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
                if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
            const kinds = ['h1', '.notice', '.hint', 'dt', 'dd', '.controls label', '#status', '.tabulator-col-title',
                '.tabulator-cell span', '.errors td.error', 'footer p', '.distributions small'];
            return kinds.map(kind => { const e = document.querySelector(kind);
                const [a, b] = [parse(getComputedStyle(e).color), ground(e)].map(light).sort((x, y) => y - x);
                return [kind, (a + .05) / (b + .05)]; });
        }"""
    )
    assert [kind for kind, ratio in ratios if ratio < 4.5] == []  # WCAG 2.2, 1.4.3


def test_printing_shows_what_the_table_shows(browse, large):
    browser = browse(large[0])
    page = browser.page
    page.select_option("#warning", label="no chest? (400)")
    browser.status("400 of 10000 X-rays")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#print tbody tr").count() == 400
    assert page.locator("#print").is_visible()
    assert not page.locator("#table").is_visible()
    assert not page.locator(".controls").is_visible()
    assert len(page.pdf()) > 10_000


LONG = "does not look like an upright frontal chest X-ray: " + "a very long warning about this file " * 6


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A page of 40 rows, some with a long warning, with pictures, labels and boxes."""
    folder = tmp_path_factory.mktemp("labelled")
    table = write_table(folder / "s.csv", 40)
    text = table.read_text().replace("no chest?", LONG.strip())
    (folder / "xrays" / "folder").mkdir(parents=True)
    for i in range(40):
        picture = folder / "xrays" / "folder" / f"{i:05}.png"
        cv2.imwrite(str(picture), np.full((90, 100), 4 * i, np.uint8))
        digest = hashlib.sha256(picture.read_bytes()).hexdigest()
        text = text.replace(f"folder/{i:05}.png,{'0' * 64}", f"folder/{i:05}.png,{digest}")
    table.write_text(text)
    with (folder / "labels.csv").open("w") as stream:
        stream.write("image,Mass,Hernia\n" + "".join(f"{i:05}.png,{i % 2},{int(i % 3 == 0)}\n" for i in range(39)))
    (folder / "boxes.csv").write_text("image,finding,x,y,width,height\n00002.png,Mass,256,90,512,450\n")
    truth = ["--labels", folder / "labels.csv", "--boxes", folder / "boxes.csv"]
    done = run("report", table, "-o", folder / "r.html", "--images", folder / "xrays", *truth)
    assert done.returncode == 0, done.stderr
    return folder / "r.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_table_first_and_nothing_overflows(browse, labelled, scheme):
    browser = browse(labelled, color_scheme=scheme)
    page = browser.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    page.wait_for_selector(".tabulator-row")
    browser.settle()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    top = "selector => document.querySelector(selector).getBoundingClientRect().top"
    assert page.evaluate(top, "#table") < page.evaluate(top, "#summary-title")
    right = "document.querySelector('.tabulator-row [tabulator-field=value]').getBoundingClientRect().right"
    assert page.evaluate(right) <= 390
    assert not page.locator(".distributions").is_visible()
    page.select_option("#sort", "notes desc")
    page.wait_for_timeout(300)
    page.locator(".thumb").first.click()
    assert "very long warning" in page.inner_text("#case-notes") or "negative?" in page.inner_text("#case-notes")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.querySelector('#case'))")


def test_a_long_warning_ends_in_an_ellipsis(browse, labelled):
    page = browse(labelled).page
    page.select_option("#sort", "notes desc")
    page.select_option("#warning", "1")
    page.wait_for_timeout(300)
    cut = page.locator(".tabulator-row [tabulator-field=notes] > span").evaluate_all(
        """spans => spans.filter(s => s.scrollWidth > s.clientWidth).map(s => [getComputedStyle(s).textOverflow,
            s.getBoundingClientRect().right <= s.parentElement.getBoundingClientRect().right])"""
    )
    assert cut
    assert all(one == ["ellipsis", True] for one in cut)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_arrow_of_the_order_stands_out(browse, labelled, scheme):
    page = browse(labelled, color_scheme=scheme).page
    contrast = page.evaluate(
        r"""() => {
            const linear = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
            const light = text => { const [r, g, b] = text.match(/[\d.]+/g).map(v => linear(v / 255));
                return .2126 * r + .7152 * g + .0722 * b; };
            const contrast = (a, b) => {
                const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + .05) / (y + .05); };
            const ratio = state => {
                const col = document.querySelector(`.tabulator-col.tabulator-sortable[aria-sort=${state}]`);
                const arrow = getComputedStyle(col.querySelector('.tabulator-arrow'));
                const colour = parseFloat(arrow.borderTopWidth) ? arrow.borderTopColor : arrow.borderBottomColor;
                return contrast(colour, getComputedStyle(col).backgroundColor); };
            return [ratio('descending'), ratio('none')];
        }"""
    )
    assert contrast[0] > 4.5
    assert contrast[0] > 2 * contrast[1]


def test_the_header_and_the_control_agree_on_the_order(browse, labelled):
    page = browse(labelled).page
    for field, expected in (("path", "path asc"), ("path", "path desc"), ("finding", "finding asc")):
        page.click(f".tabulator-col[tabulator-field='{field}'] .tabulator-col-title")
        page.wait_for_timeout(200)
        assert page.input_value("#sort") == expected


def test_false_positives_and_negatives_come_first_where_there_are_labels(browse, labelled, large):
    browser = browse(labelled)
    page = browser.page
    page.select_option("#finding", label="Mass")
    page.select_option("#sort", "falsePositive desc")
    page.wait_for_timeout(300)
    rows = data_of(labelled.read_text())["cases"]
    mass = FINDINGS.index("Mass")
    truth = [(row["labels"][mass], row["scores"][mass]) for row in rows if "labels" in row]
    absent = sorted((score for label, score in truth if label is False), reverse=True)
    assert [float(text) for text in browser.column("value")[:5]] == pytest.approx(absent[:5], abs=6e-4)
    assert set(browser.column("label")[:5]) == {"absent"}
    page.select_option("#label", "present")
    page.select_option("#sort", "falseNegative desc")
    browser.status("19 of 40 X-rays")
    page.wait_for_timeout(300)
    present = sorted(score for label, score in truth if label)
    assert [float(text) for text in browser.column("value")[:5]] == pytest.approx(present[:5], abs=6e-4)
    assert page.locator(".distributions small").nth(mass).inner_text().startswith("AUC 0.")
    assert "label" not in browse(large[0]).page.inner_text("#controls").lower()


def test_the_state_is_in_the_address_and_the_list_can_be_saved(browse, labelled, tmp_path):
    browser = browse(labelled)
    page = browser.page
    page.select_option("#finding", label="Mass")
    page.fill("#least", "0.4")
    page.select_option("#sort", "path asc")
    page.wait_for_timeout(400)
    status, paths, address = page.inner_text("#status"), browser.column("path"), page.url
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(newline="", encoding="utf-8-sig") as stream:
        saved = list(csv.DictReader(stream))
    assert len(saved) == int(status.split()[0])
    assert [row["path"] for row in saved][: len(paths)] == paths
    page.goto("about:blank")
    page.goto(address)
    browser.status(status)
    page.wait_for_timeout(300)
    assert browser.column("path") == paths
    assert page.input_value("#finding") == str(FINDINGS.index("Mass"))


def test_the_table_is_one_tab_stop(browse, labelled):
    page = browse(labelled).page
    page.wait_for_timeout(200)
    assert page.locator(".thumb[tabindex='0']").count() == 1
    page.locator(".thumb[tabindex='0']").focus()
    first = page.evaluate("document.activeElement.dataset.number")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("first => ![undefined, first].includes(document.activeElement.dataset.number)", arg=first)
    assert page.locator(".thumb[tabindex='0']").count() == 1
    assert page.evaluate("document.activeElement.classList.contains('thumb')")
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.classList.contains('thumb')")


def test_zoom_opacity_maps_and_boxes(browse, scored, labelled):
    page = browse(scored / "r.html").page
    page.locator(".thumb").first.click()
    canvas = page.locator("#case canvas").first
    page.locator("#opacity").fill("0.3")
    assert canvas.evaluate("c => getComputedStyle(c).opacity") == "0.3"
    before = canvas.bounding_box()["width"]
    page.locator("#zoom").fill("3")
    assert canvas.bounding_box()["width"] == pytest.approx(3 * before, rel=0.1)
    page.uncheck("#map-on")
    assert not canvas.is_visible()
    other = browse(labelled).page
    other.fill("#search", "00002")
    other.wait_for_timeout(200)
    other.locator(".thumb").first.click()
    box, sheet = other.locator("#case .box").first.bounding_box(), other.locator("#case .sheet").first.bounding_box()
    assert box["x"] - sheet["x"] == pytest.approx(0.25 * sheet["width"], abs=2)
    assert box["width"] == pytest.approx(0.5 * sheet["width"], abs=2)
    assert box["height"] == pytest.approx(0.5 * sheet["height"], abs=2)


def test_the_page_of_a_run_that_is_going_on_comes_from_its_journal(call, scored, tmp_path):
    for journal in scored.glob("s.csv.journal*"):
        shutil.copy(journal, tmp_path)
    before = (tmp_path / "s.csv.journal").read_bytes()
    call("report", tmp_path / "s.csv", "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert len(data_of(page)["cases"]) == 12
    assert re.search(r"<dt>engine</dt><dd>onnxruntime [\d.]+, fp32, center, \w+ weights of checkpoint \w{16}, ", page)
    assert "The run was stopped at " in page
    assert (tmp_path / "s.csv.journal").read_bytes() == before
    call("report", tmp_path / "s.csv", "-o", tmp_path / "r.html")  # a page of its own is replaced


def test_a_run_that_is_going_on_or_was_killed_is_shown_as_such(call, cheap_bundle, tmp_path):
    (tmp_path / "xrays").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    cv2.imwrite(str(tmp_path / "xrays" / "000.png"), picture)
    for i in range(1, 400):
        shutil.copy(tmp_path / "xrays" / "000.png", tmp_path / "xrays" / f"{i:03}.png")
    table, page = tmp_path / "s.csv", tmp_path / "r.html"
    command = [sys.executable, "-m", "cxr_trt", "score", tmp_path / "xrays", "-e", cheap_bundle, "-o", table]
    run = subprocess.Popen([*command, "--workers", "1", "--quiet"])
    try:
        while (
            not (tmp_path / "s.csv.journal-wal").exists()
            or b"seconds_left" not in (tmp_path / "s.csv.journal-wal").read_bytes()
        ):
            assert run.poll() is None
            time.sleep(0.01)
        run.send_signal(signal.SIGSTOP)
        call("report", table, "-o", page)
        going = html.unescape(page.read_text())
        assert re.search(
            r"The run is going on\. At [\d-]+ [\d:]+ it had read \d+ of 400 files, 0 errors; [\d.]+ files/s", going
        )
        count = len(data_of(going)["cases"])
        assert 0 < count < 400
    finally:
        run.kill()
        run.wait()
    call("report", table, "-o", page)
    stopped = html.unescape(page.read_text())
    assert re.search(r"The run was stopped at .*, after \d+ of 400 files, 0 errors; the same command again", stopped)
    assert len(data_of(stopped)["cases"]) == count
    assert not table.exists()
    assert "cxr-trt report" in page.read_text()[:512]


def test_a_journal_that_changes_meanwhile_is_copied_again(tmp_path, monkeypatch):
    """SQLite moves its log into the database between the two copies: the first time, then no more."""
    journal, versions = tmp_path / "j", iter([1, 2, 3, 3])
    journal.write_bytes(b"rows")
    monkeypatch.setattr(report_inputs, "_version", lambda *files: next(versions))
    report_inputs.copy_journal(journal, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"rows"
    assert next(versions, None) is None
    versions = itertools.count()
    with pytest.raises(UsageError, match="changes too fast"):
        report_inputs.copy_journal(journal, tmp_path / "copy")


def test_a_parquet_table_alone_says_what_its_engine_is(call, scored, cheap_bundle, tmp_path):
    call("score", scored / "xrays", "-e", cheap_bundle, "-o", tmp_path / "s.parquet", code=1)
    (tmp_path / "s.parquet.journal").unlink()
    call("report", tmp_path / "s.parquet", "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert re.search(r"<dt>engine</dt><dd>onnxruntime [\d.]+, fp32, center, \w+ weights of checkpoint ", page)
    assert 'class="state"' not in page


def test_colours_of_each_map_or_one_scale_per_finding(browse, scored):
    page = browse(scored / "r.html").page
    data = data_of((scored / "r.html").read_text())
    maps = [item for case in data["cases"] for item in case["maps"] if item["finding"] == 13]
    common = np.median([item["median"] for item in maps]), max(item["high"] for item in maps)
    np.testing.assert_allclose(data["scales"][13], common)
    page.get_by_label("Open sub/03.png").click()
    case = next(case for case in data["cases"] if case["path"] == "sub/03.png")
    own = next(item for item in case["maps"] if item["finding"] == 13)
    ramp = page.locator("#case .ramp").first
    pixels = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 === 3)"
    opacity = np.array(page.locator("#case canvas").first.evaluate(pixels))
    assert (opacity == 0).mean() > 0.3  # the lower half of what the map covers is clear
    assert ramp.inner_text().split() == [f"{own['median']:.2f}", f"{own['high']:.2f}"]
    page.select_option("#scale", "common")
    assert ramp.inner_text().split() == [f"{value:.2f}" for value in common]
    changed = np.array(page.locator("#case canvas").first.evaluate(pixels))
    assert (changed != opacity).any()


def test_the_address_leads_to_an_open_xray(browse, labelled):
    browser = browse(labelled)
    page = browser.page
    page.fill("#search", "00002")
    browser.status("1 of 40 X-rays")
    page.locator(".thumb").first.click()
    address = page.url
    assert "xray=folder%2F00002.png" in address
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.hash.includes('xray')")
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("#case[open]")
    assert page.inner_text("#case-title") == "folder/00002.png"


def test_labels_and_boxes_stand_beside_the_scores(browse, labelled):
    browser = browse(labelled)
    page = browser.page
    page.select_option("#finding", label="Mass")
    page.fill("#search", "00002")
    browser.status("1 of 40 X-rays")
    page.wait_for_timeout(200)
    assert (browser.column("label"), browser.column("boxCount")) == (["absent"], ["1"])
    page.locator(".thumb").first.click()
    cells = dict(zip(*(page.locator(f"#case-scores td:nth-child({i})").all_inner_texts() for i in (1, 3)), strict=True))
    assert (cells["Mass"], cells["Hernia"], cells["Edema"]) == ("absent", "absent", "")
    assert re.search(r"<dt>mean AUC of 2 findings</dt><dd>0\.\d{3}</dd>", labelled.read_text())


@pytest.mark.slow
def test_a_hundred_thousand_rows_stay_fluid(browse, tmp_path):
    """Nothing takes Playwright's 30 s, and the document holds only the rows that are in sight."""
    table = write_table(tmp_path / "s.csv", 100_000)
    assert run("report", table, "-o", tmp_path / "r.html").returncode == 0
    browser = browse(tmp_path / "r.html")
    page = browser.page
    browser.status("100000 of 100000 X-rays")
    page.select_option("#finding", label="Mass")
    page.select_option("#sort", "value asc")
    page.fill("#search", "99")
    found = [i for i in range(100_000) if "99" in f"{i:05}"]
    browser.status(f"{len(found)} of 100000 X-rays")
    page.click("button[type=reset]")
    browser.status("100000 of 100000 X-rays")
    for place in range(0, 4_000_000, 400_000):
        page.evaluate("place => { document.querySelector('.tabulator-tableholder').scrollTop = place }", place)
        page.wait_for_timeout(60)
        assert 3 < page.locator(".tabulator-row").count() < 120
