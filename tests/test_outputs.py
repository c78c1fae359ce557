import fcntl
import os
from pathlib import Path

import pytest

from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_folder, check_output, locked, replacing


def test_a_folder_that_cannot_be_written_is_named(as_nobody):
    (as_nobody / "readable").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="readable: not writable"):
        check_output(as_nobody / "readable" / "a.csv", (".csv",), overwrite=False)
    with pytest.raises(UsageError, match="cannot be made"):
        check_folder(as_nobody / "readable" / "new")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UsageError, match=r"a\.csv is not a regular file"):
        check_output(tmp_path / "a.csv", (".csv",), overwrite=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(UsageError, match="No space left"), replacing(tmp_path / "a") as partial:
        partial.write_text("new, but ...")
        with open("/dev/full", "w") as full:  # noqa: PTH123
            full.write("x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"
    with (tmp_path / "a").open() as reader:
        with replacing(tmp_path / "a") as partial:
            partial.write_text("new")
        assert reader.read() == "old"  # another file in its place, not other bytes in it
    assert (tmp_path / "a").read_text() == "new"


def test_a_lock_is_refused_while_it_is_held_and_leaves_no_file(tmp_path):
    for _ in range(2):
        sentence = rf"a\.csv: process {os.getpid()} is writing there"
        with locked(tmp_path / "lock", tmp_path / "a.csv"), pytest.raises(UsageError, match=sentence):
            locked(tmp_path / "lock", tmp_path / "a.csv").__enter__()
        assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_in_the_moment_it_was_taken_is_taken_anew(tmp_path, monkeypatch):
    """Else its holder and whoever makes the file again would both go on."""
    real, calls = fcntl.flock, []

    def flock(stream, operation):
        real(stream, operation)
        calls.append(os.fstat(stream.fileno()).st_ino)
        if len(calls) == 1:
            (tmp_path / "lock").unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "lock"):
        assert len(calls) == 2
        assert Path(tmp_path / "lock").stat().st_ino == calls[-1]


def test_a_fixed_partial_name_is_used_again(tmp_path):
    (tmp_path / ".a.partial").write_text("of a killed process, and longer")
    with replacing(tmp_path / "a", tmp_path / ".a.partial") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"
