"""What becomes of each hostile file; the table in docs/ is made of the same cases."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import CASES, SCORED

pytest.importorskip("PIL.Image", reason="needs Pillow to write CMYK: pip install pillow")


@pytest.fixture(scope="module")
def outcomes():
    command = [sys.executable, Path(__file__).with_name("hostile.py")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in process.stderr, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("title", CASES)
def test_a_hostile_file_is_one_row(outcomes, title):
    expected = CASES[title][2]
    assert expected in outcomes[title]
    assert outcomes[title].startswith("scored, " if expected == SCORED else "error row: ")


def test_pictures_are_those_of_the_plain_file(outcomes):
    assert outcomes["JPEG with EXIF orientation"].startswith("scored, 36 x 40")
    assert outcomes["PNG, animated"].startswith("scored, 40 x 36")
