"""What is written from the committed results is what they say."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from benchmarks import pages
from benchmarks.__main__ import main
from benchmarks.catalogue import STUDIES
from benchmarks.study import PAGES, RESULTS, ROOT


def load(study):
    try:
        study.load()
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        pytest.skip("needs pip install 'cxr-trt[export]'")


MEASURED = {name: study for name, study in STUDIES.items() if study.is_measured()}
UNMEASURED = {name: study for name, study in STUDIES.items() if not study.is_measured()}


@pytest.mark.parametrize("study", UNMEASURED.values(), ids=UNMEASURED)
def test_a_page_without_a_result_says_so(study):
    text = (PAGES / f"{study.name}.md").read_text()
    assert text == study.unmeasured_page()
    assert "Not measured yet" in text


@pytest.mark.parametrize("study", MEASURED.values(), ids=MEASURED)
def test_a_page_is_made_from_the_committed_result(study):
    load(study)
    assert (PAGES / f"{study.name}.md").read_text() == study.page(study.result())


@pytest.mark.parametrize("study", MEASURED.values(), ids=MEASURED)
def test_a_committed_result_has_no_problems(study):
    load(study)
    assert study.problems(study.result()) == []


@pytest.mark.parametrize("study", MEASURED.values(), ids=MEASURED)
def test_a_page_says_where_it_comes_from(study):
    text, result = (PAGES / f"{study.name}.md").read_text(), study.result()
    for part in (f"`python -m benchmarks {study.name}`", result["date"], result["commit"], result["machine"]):
        assert part in text


def test_every_result_and_page_belongs_to_a_study():
    assert {path.stem for path in RESULTS.glob("*.json")} == MEASURED.keys()
    assert {path.stem for path in PAGES.glob("*.md")} == {*STUDIES, "index"}


def test_pictures_are_there_and_no_others():
    named = {name for path in PAGES.glob("*.md") for name in _pictures(path.read_text())}
    assert {path.name for path in PAGES.glob("*.png")} == named


def _pictures(text):
    return [part.split(")")[0] for part in text.split("](")[1:] if part.split(")")[0].endswith(".png")]


def test_the_index_lists_all_studies():
    assert pages.INDEX.read_text() == pages.index()


def test_the_table_of_speed_in_the_readme_is_that_of_the_benchmark():
    readme = pages.README.read_text()
    between = readme.partition(pages.SPEED_BEGIN)[2].partition(pages.SPEED_END)[0]
    assert between.strip() == pages.speed_table()


def test_studies_are_listed_without_importing_them():
    code = "import sys; from benchmarks.__main__ import main; main(['--help'], standalone_mode=False)"
    check = "assert not {'torch', 'openvino', 'cv2'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in STUDIES)


def test_a_page_is_written_again_without_measuring(tmp_path):
    result = STUDIES["growth"].result()
    (tmp_path / "growth.json").write_text(json.dumps({**result, "date": "another day"}))
    done = CliRunner().invoke(main, ["growth", "--page-only", "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    expected = STUDIES["growth"].page(result).replace(result["date"], "another day")
    assert (tmp_path / "growth.md").read_text() == expected


def test_what_is_not_as_it_should_be_is_exit_code_1(tmp_path):
    pytest.importorskip("matplotlib", reason="needs pip install 'cxr-trt[plots]'")
    result = STUDIES["soak"].result()
    result["growth"]["threads"] = 0.5
    (tmp_path / "soak.json").write_text(json.dumps(result))
    done = CliRunner().invoke(main, ["soak", "--page-only", "--output", str(tmp_path)])
    assert done.exit_code == 1
    assert "threads grew by 50.0%" in done.output


def test_a_study_that_needs_chestxray14_says_where_it_was_looked_for(tmp_path):
    done = CliRunner().invoke(main, ["views", "--data", str(tmp_path / "none"), "--output", str(tmp_path)])
    assert done.exit_code == 2
    assert f"{tmp_path / 'none'} is not there" in done.output


def test_a_study_says_what_it_lacks(monkeypatch):
    """As where only the base dependencies are installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.map_training", raising=False)
    done = CliRunner().invoke(main, ["map-training"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: map-training needs PyTorch, timm, ")
    assert done.output.endswith("and torch is not installed: pip install -e '.[dev]'\n")
