"""The planted bugs fit the sources; that tests see them is what `python -m benchmarks plugin-mutants` shows."""

import pytest

from benchmarks.catalogue import STUDIES
from benchmarks.plugin_mutants import BUGS, CHECKS, EQUIVALENT, PLUGINS, is_for, not_seen


@pytest.mark.parametrize(("name", "file", "old", "new"), BUGS, ids=[bug[0] for bug in BUGS])
def test_a_bug_can_be_planted_and_has_a_check(name, file, old, new):
    assert old in (PLUGINS / file).read_text()
    assert old != new or name == "none"
    assert any(is_for(check, name) for check in CHECKS)


def test_bugs_have_different_names():
    assert len({name for name, *_ in BUGS}) == len(BUGS)


def test_only_planted_bugs_are_argued_to_be_equivalent():
    assert EQUIVALENT.keys() <= {name for name, *_ in BUGS}


def test_the_committed_result_has_every_bug_and_none_survives_but_those():
    result = STUDIES["plugin-mutants"].result()
    assert result["bugs"].keys() == {name for name, *_ in BUGS}
    assert set(not_seen(result)) == EQUIVALENT.keys()
