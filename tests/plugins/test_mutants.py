"""The planted bugs fit the sources; that tests see them is what `make plugin-mutants` shows."""

import pytest
from mutants import BUGS, CHECKS, EQUIVALENT, PLUGINS, is_for


@pytest.mark.parametrize(("name", "file", "old", "new"), BUGS, ids=[bug[0] for bug in BUGS])
def test_a_bug_can_be_planted_and_has_a_check(name, file, old, new):
    assert old in (PLUGINS / file).read_text()
    assert old != new or name == "none"
    assert any(is_for(check, name) for check in CHECKS)


def test_bugs_have_different_names():
    assert len({name for name, *_ in BUGS}) == len(BUGS)


def test_only_planted_bugs_are_argued_to_be_equivalent():
    assert EQUIVALENT.keys() <= {name for name, *_ in BUGS}


def test_the_table_has_every_bug_and_none_survives_but_those():
    lines = (PLUGINS / "MUTANTS.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    seen = {title.removesuffix(" (equivalent)"): set(found) - {"-", "passes"} for title, *found in rows}
    assert seen.keys() == {name for name, *_ in BUGS}
    assert {name for name, found in seen.items() if not found} == {*EQUIVALENT, "none"}
