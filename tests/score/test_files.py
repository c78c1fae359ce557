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
    assert selection.skipped == {".txt files": 1, "hidden files": 1, "hidden folders": 1}


def test_own_heat_maps_are_skipped(folder):
    maps = folder / "maps" / "b.png"
    maps.mkdir(parents=True)
    for name in ("1-Effusion.png", "12-Pleural_Thickening.png", "3-Fracture.png"):
        (maps / name).write_bytes(PNG)
    selection = find_files([folder])
    assert [name for name in names(selection) if name.startswith("maps")] == ["maps/b.png/3-Fracture.png"]
    assert selection.skipped["heat maps of cxr-trt"] == 2
    assert names(find_files([maps / "1-Effusion.png"])) == ["1-Effusion.png"]


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
    selection = find_files([folder])
    assert len(selection.sources) == 5
    assert selection.skipped["links to folders"] == 1


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
    with pytest.raises(UsageError, match="no DICOM, PNG, JPEG or TIFF file; name"):
        find_files([tmp_path / "empty"])
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"no DICOM, PNG, JPEG or TIFF file, only \.txt files \(1\)"):
        find_files([tmp_path / "empty"])


def test_a_data_set_without_preamble_is_found_by_its_content(tmp_path):
    explicit = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100\x08\x00\x16\x00UI\x02\x001\x00\x08\x00\x20\x00DA\x00\x00"
    implicit = b"\x08\0\0\0\x04\0\0\0\x10\0\0\0\x08\0\x16\0\x02\0\0\x001\0\x10\0\x10\0\0\0\0\0"
    big = b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100\x00\x08\x00\x16UI\x00\x021\x00\x00\x08\x00\x20DA\x00\x00"
    for name, content in (("explicit", explicit), ("implicit", implicit), ("big", big)):
        (tmp_path / name).write_bytes(content + bytes(500))
    for name, content in (("zeros", bytes(900)), ("text", b"a sentence " * 90), ("short", b"\x08\x00\x05")):
        (tmp_path / name).write_bytes(content)
    selection = find_files([tmp_path])
    assert names(selection) == ["big", "explicit", "implicit"]
    assert selection.skipped == {"files without suffix": 3}
