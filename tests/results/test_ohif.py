"""The DICOM results in OHIF itself: releases from npm, in Chromium, with the study as local files.

The browser reaches nothing but the files of the release, on the loopback interface.
"""

import shutil
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydicom import dcmread

pytestmark = pytest.mark.slow

RELEASES = ("3.11.1", "3.13.2")  # July 2025 and 2026; 48 MB each
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
CONFIGURATION = b"""window.config = {
    routerBasename: "/", extensions: [], modes: [], showStudyList: true, investigationalUseDialog: {option: "never"},
    defaultDataSourceName: "dicomlocal",
    dataSources: [{
        namespace: "@ohif/extension-default.dataSourcesModule.dicomlocal",
        sourceName: "dicomlocal",
        configuration: {friendlyName: "local files"},
    }],
};"""
FAILURE = "Something went wrong"
NOTE_FAILURES = f"""window.failures = [];
new MutationObserver(() => {{
    const text = document.body ? document.body.innerText : "";
    if (text.includes("{FAILURE}")) window.failures.push(text);
}}).observe(document, {{subtree: true, childList: true, characterData: true}});"""
SECONDS = 120
REDRAW_SECONDS = 15
SETTLING_SECONDS = 8  # OHIF fails on a click while it makes its first picture, whatever the study holds


class Application(SimpleHTTPRequestHandler):
    """The files of a release; any other path is the application itself, which looks at the address."""

    def do_GET(self):
        name = self.path.partition("?")[0]
        if name == "/app-config.js":
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript")
            self.end_headers()
            self.wfile.write(CONFIGURATION)
            return
        if not name.rpartition("/")[2].count("."):
            self.path = "/index.html"
        super().do_GET()

    def log_message(self, *arguments):
        pass


@contextmanager
def served(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Application, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module", params=RELEASES)
def release(request, tmp_path_factory):
    """The folder of a release of OHIF."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm: apt-get install npm")
    folder = tmp_path_factory.mktemp("ohif")
    command = [npm, "pack", "--silent", f"@ohif/app@{request.param}"]
    if subprocess.run(command, cwd=folder, capture_output=True, timeout=300).returncode:
        pytest.skip(f"needs @ohif/app {request.param} of the npm registry, which cannot be reached")
    with tarfile.open(folder / f"ohif-app-{request.param}.tgz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "dist"


@pytest.fixture(scope="module")
def study(tmp_path_factory, radiographs, center_bundle):
    """A radiograph, and its DICOM results in the folder dicom."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder)
    command = [sys.executable, "-m", "cxr_trt", "score", folder / "RG1_UNCR.dcm", "-e", center_bundle]
    command += ["-o", folder / "s.csv", "--dicom-results", folder / "dicom"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def playwright():
    api = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as running:
        yield running


class Viewer:
    """OHIF with the study of some files open."""

    def __init__(self, playwright, address, files):
        self.browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        self.page = self.browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(1000 * SECONDS)
        self.page.route("**/*", lambda route: _only(route, address))
        self.page.add_init_script(NOTE_FAILURES)
        self.page.goto(f"{address}/local")
        self.page.locator("input[type=file]").first.wait_for(state="attached")
        self.page.locator("input[type=file]").first.set_input_files(files)
        self.page.get_by_text("CompressedSamples").first.click()
        self.page.get_by_text("Basic Viewer").first.click()
        self.page.wait_for_url("**/viewer/**")
        self.page.wait_for_timeout(1000 * SETTLING_SECONDS)

    def open(self, series, shows):
        """Open a series by its description, and wait for words in the picture.

        On a busy machine OHIF can draw a picture before it has the words, and does not draw it again by itself. So the
        window is changed a little from time to time, which draws it.
        """
        self.page.get_by_text(series).first.dblclick()
        for second in range(SECONDS):
            if self.page.get_by_text(shows).count():
                return
            self.page.wait_for_timeout(1000)
            if second % REDRAW_SECONDS == REDRAW_SECONDS - 1:
                self._drag_over_the_picture()
        pytest.fail(f"{shows!r} did not appear in {SECONDS} seconds after opening {series!r}")

    def _drag_over_the_picture(self):
        mouse = self.page.mouse
        mouse.move(800, 600)
        mouse.down()
        mouse.move(810, 600)
        mouse.up()

    @property
    def failures(self):
        return self.page.evaluate("window.failures")


def _only(route, address):
    if route.request.url.startswith((address, "blob:", "data:")):
        route.continue_()
    else:
        route.abort()


@pytest.fixture
def view(release, playwright):
    opened = []
    with served(release) as address:

        def open_study(*files):
            opened.append(Viewer(playwright, address, files))
            return opened[-1]

        yield open_study
        for viewer in opened:
            viewer.browser.close()


def test_the_study_its_heat_maps_and_its_report_open(view, study):
    viewer = view(study / "RG1_UNCR.dcm", *(study / "dicom").iterdir())
    viewer.open("cxr-trt heat maps", "(1/3)")
    viewer.open("cxr-trt report", "Probability: ")
    shown = viewer.page.inner_text("body")
    assert shown.count("Probability: ") == 14
    assert viewer.failures == []


def test_a_report_without_coordinates_fails_so_that_this_test_would_notice(view, study, tmp_path):
    report = dcmread(study / "dicom" / "RG1_UNCR.dcm.report.dcm")
    pending = list(report.ContentSequence)
    while pending:
        item = pending.pop()
        pending += item.get("ContentSequence", ())
        if item.ValueType == "NUM" and "ContentSequence" in item:
            del item.ContentSequence
    report.save_as(tmp_path / "report.dcm")
    viewer = view(study / "RG1_UNCR.dcm", tmp_path / "report.dcm")
    viewer.page.get_by_text("cxr-trt report").first.dblclick()
    viewer.page.wait_for_function("window.failures.length > 0")
