import os

import pytest

from cxr_trt.errors import ImageError, UsageError
from cxr_trt.images.files import find_files
from cxr_trt.images.load import read_file

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path):
    for name, content in {
        "b.png": b"",
        "a/b.PNG": b"",
        "a/b.jpg": b"",
        "a/no_suffix": PNG,
        "a/dicom.000": bytes(128) + b"DICM",
        "a/notes.txt": b"hello",
        "a/.hidden.png": PNG,
        ".cache/x.png": PNG,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def names(selection):
    return [source.name for source in selection.sources]


def test_a_folder_is_searched_recursively_in_order(folder):
    selection = find_files([folder])
    assert names(selection) == ["b.png", "a/b.PNG", "a/b.jpg", "a/dicom.000", "a/no_suffix"]
    assert selection.skipped == 2


def test_names_are_relative_to_the_common_folder(folder):
    assert names(find_files([folder / "a" / "b.jpg"])) == ["b.jpg"]
    assert names(find_files([folder / "b.png", folder / "a"]))[:2] == ["b.png", "a/b.PNG"]


def test_a_file_named_twice_is_scored_once(folder):
    assert len(find_files([folder, folder / "b.png", folder / "a" / ".." / "b.png"]).sources) == 5


def test_a_named_file_is_taken_whatever_it_is(folder):
    assert names(find_files([folder / "a" / "notes.txt"])) == ["notes.txt"]


def test_loops_are_not_followed_and_pipes_are_not_opened(folder):
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder)
    assert len(find_files([folder]).sources) == 5


def test_a_link_to_nothing_becomes_an_error_row(folder):
    (folder / "dangling.png").symlink_to(folder / "none.png")
    assert "dangling.png" in names(find_files([folder]))


def test_a_locked_folder_becomes_an_error_row(as_nobody):
    (as_nobody / "locked").mkdir(mode=0)
    (as_nobody / "a.png").touch()
    selection = find_files(as_nobody)
    assert names(selection) == ["a.png", "locked"]
    with pytest.raises(ImageError, match="cannot be listed"):
        read_file(selection.sources[1].path)


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    assert names(find_files([tmp_path])) == [r"caf\xe9.png"]


def test_nothing_to_score(folder, tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        find_files([folder / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no PNG, JPEG or DICOM file there"):
        find_files([tmp_path / "empty"])
