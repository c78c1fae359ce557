import pytest

from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_folder, check_output, replacing


def test_a_folder_that_cannot_be_written_is_named(as_nobody):
    (as_nobody / "readable").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="readable: not writable"):
        check_output(as_nobody / "readable" / "a.csv", (".csv",), overwrite=False)
    with pytest.raises(UsageError, match="cannot be made"):
        check_folder(as_nobody / "readable" / "new")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(UsageError, match="No space left"), replacing(tmp_path / "a") as partial:
        partial.write_text("new, but ...")
        with open("/dev/full", "w") as full:  # noqa: PTH123
            full.write("x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"
    with replacing(tmp_path / "a") as partial:
        partial.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
