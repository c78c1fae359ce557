"""The site that `make docs` builds: strict, whole, and without a request to anywhere else."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from pages import FENCE, PAGES, ROOT, name

from cxr_trt.cli import COMMANDS
from cxr_trt.commands.sources import SHIPPED

DOCS = ROOT / "docs"
REQUESTS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
LINKS_THAT_LOAD = (
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
    "modulepreload",
)


def sphinx(source, target):
    """Build as `make docs` does."""
    pytest.importorskip("sphinx", reason="needs pip install 'cxr-trt[dev]'")
    (options,) = re.findall(r"-m sphinx (.*) docs build/site$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = [sys.executable, "-m", "sphinx", *options.split(), source, target]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    process = sphinx(DOCS, target)
    assert process.returncode == 0, process.stderr
    return target


def test_mistakes_fail_the_build(tmp_path):
    """A dead link, a dead anchor, a picture that is not there, and a page that the navigation lacks."""
    pages = {
        "index": "# Index\n\n```{toctree}\npage\n```\n",
        "page": "# Page\n\n[a page](nowhere.md) [a heading](index.md#no-heading) ![a picture](nowhere.png)\n",
        "new": "# New\n",
    }
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCS / "conf.py", tmp_path / "docs")
    for page, text in pages.items():
        (tmp_path / "docs" / f"{page}.md").write_text(text)
    process = sphinx(tmp_path / "docs", tmp_path / "site")
    assert process.returncode == 1
    warnings = [line for line in process.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 4
    for text in ("new.md: WARNING: document isn't included in any toctree", "nowhere.md", "no-heading", "nowhere.png"):
        assert [text in line for line in warnings].count(True) == 1, text


def test_every_page_is_there(site):
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert len(pages) > 10
    assert pages <= {path.relative_to(site) for path in site.rglob("*.html")}
    assert "score_files" in (site / "reference" / "python.html").read_text()


class Loaded(HTMLParser):
    """The addresses that a browser loads without being asked."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in REQUESTS:
            self.found.append(given.get(REQUESTS[tag]))
        elif tag == "link" and set((given.get("rel") or "").split()) & set(LINKS_THAT_LOAD):
            self.found.append(given.get("href"))
        self.found += addresses(given.get("style") or "") + (given.get("srcset") or "").split()


def addresses(css):
    return [found[1] for found in re.finditer(r"(?:url\(|@import)\s*['\"]?([^'\")\s;]+)", css)]


def is_external(address):
    return re.match(r"(https?:)?//", address or "", re.IGNORECASE) is not None


def test_external_addresses_are_seen():
    """What the next test looks for, in each of its forms."""
    for text in (
        '<script src="https://a.org/a.js">',
        '<link rel="preload stylesheet" href="//a.org/a.css">',
        '<img src="HTTP://a.org/a.png">',
        '<p style="background: url(https://a.org/a.png)">',
    ):
        assert any(map(is_external, Loaded(text).found)), text
    assert is_external(addresses("@import 'https://a.org/font.css';")[0])
    assert not any(map(is_external, Loaded('<a href="https://a.org"><script src="../a.js?v=1"></script>').found))


def test_the_site_loads_nothing_from_elsewhere(site):
    loaded = {path: Loaded(path.read_text()).found for path in site.rglob("*.html")}
    loaded |= {path: addresses(path.read_text()) for path in site.rglob("*.css")}
    assert sum(map(len, loaded.values())) > 100
    external = {path.name: address for path, found in loaded.items() for address in found if is_external(address)}
    assert not external
    for path, found in loaded.items():
        for address in filter(None, found):
            if not address.startswith(("data:", "#", "%")):
                assert (path.parent / re.split(r"[?#]", address)[0]).exists(), f"{path.name}: {address}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "plugins/README.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page):
    text = FENCE.sub("", (ROOT / page).read_text())
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        file, _, heading = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings], (
            link
        )


def load(script):
    spec = importlib.util.spec_from_file_location(script[:-3], DOCS / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", ["commands.py", "dicom.py", "systems.py"])
def test_written_pages_are_up_to_date(script):
    module = load(script)
    assert module.PAGE.read_text() == module.render(), f"run `python docs/{script}`"


def test_the_readme_has_the_systems_of_today():
    text = (ROOT / "README.md").read_text()
    assert load("systems.py").render_readme(text) == text, "run `python docs/systems.py`"


def test_no_table_of_published_results_mixes_splits_or_numbers_of_findings():
    systems = load("systems.py")
    sections = re.split(r"^### ", systems.render().split("\n## ")[1], flags=re.MULTILINE)[1:]
    rows = [row for system in systems.SYSTEMS for row in system.published]
    shown = 0
    for section in sections:
        aucs = [float(auc) for auc in re.findall(r"\| (0\.\d+) \|", section)]
        if section.startswith("No published result"):
            assert not aucs
            continue
        findings, split = re.match(r"(\d+) findings, (.*)", section).groups()
        members = [row for row in rows if (str(row.findings), systems.SPLIT_TITLES[row.split]) == (findings, split)]
        assert aucs == sorted((row.mean_auc for row in members), reverse=True)
        shown += len(aucs)
    assert shown == len(rows)


def test_the_aucs_that_pages_name_are_those_of_the_evaluation():
    evaluation = json.loads((ROOT / "cxr_trt" / "models" / "edge-evaluation.json").read_text())
    mean, low, high = (f"{evaluation[f'mean_{part}']:.3f}" for part in ("auc", "low", "high"))
    texts = {name(page): page.read_text() for page in PAGES if page.parent.name != "studies"}
    named = {page: re.findall(r"mean AUC\D{0,12}(0\.\d{3})\b", text) for page, text in texts.items()}
    assert named["README.md"]
    assert {auc for aucs in named.values() for auc in aucs} == {mean}
    assert set(re.findall(r"(0\.\d{3}) to (0\.\d{3})", texts["README.md"])) == {(low, high)}


@pytest.mark.parametrize("network", SHIPPED)
def test_a_model_card_has_the_aucs_of_the_evaluation(network):
    models = ROOT / "cxr_trt" / "models"
    text = (models / f"{network}-card.md").read_text()
    measured = json.loads((models / f"{network}-evaluation.json").read_text())
    assert f"Mean AUC **{measured['mean_auc']:.3f}** ({measured['mean_low']:.3f} to" in text
    for finding, area in measured["findings"].items():
        assert f"| {finding} | {area['positives']} | {area['auc']:.3f} |" in text


def test_the_readme_names_every_command():
    table = (ROOT / "README.md").read_text().split("\n## Commands\n")[1].split("\n## ")[0]
    assert set(re.findall(r"`cxr-trt ([a-z-]+)`", table)) == set(COMMANDS)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_browser_asks_for_nothing_and_searches_without_a_network(chromium, site):
    page, asked = chromium.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "search.html").as_uri() + "?q=calibrate")
    page.wait_for_selector("#search-results li")
    assert len(asked) > 3
    assert not [url for url in asked if not url.startswith("file:")]
