import os
import subprocess
import sys
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


def test_only_one_writer_gets_in_at_a_time(tmp_path):
    for _ in range(2):
        with (
            locked(tmp_path / "lock", tmp_path / "a.csv"),
            pytest.raises(UsageError, match=r"a\.csv: another process is writing there; wait for it or stop it$"),
            locked(tmp_path / "lock", tmp_path / "a.csv"),
        ):
            pass


HOLD = """
import sys, time
from pathlib import Path
from cxr_trt.outputs import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_another_process_holds_the_lock_until_it_is_killed(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"^{tmp_path}: another process"), locked(tmp_path / "lock"):
            pass
    finally:
        other.kill()
        other.communicate()
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()


def test_what_cannot_be_locked_is_not_taken_for_another_writer(as_nobody):
    (as_nobody / "readable").mkdir(mode=0o500)
    (as_nobody / "owned").touch(mode=0o400)
    for path, sentence in (
        (as_nobody / "readable" / "lock", "readable: not writable"),
        (Path("/proc/lock"), "/proc: not writable"),
        (as_nobody / "owned", "owned: cannot be written"),
    ):
        with pytest.raises(UsageError, match=sentence), locked(path):
            pass


def test_a_fixed_partial_name_is_used_again(tmp_path):
    (tmp_path / ".a.partial").write_text("of a killed process, and longer")
    with replacing(tmp_path / "a", tmp_path / ".a.partial") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"
