import csv
import json

import numpy as np
import pytest

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.spec import Specification
from cxr_trt.tables.labels import read_labelled_scores
from cxr_trt.tables.rows import Row, columns
from cxr_trt.tables.writing import write_table

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.random((40, 14)).astype(np.float32)
LABELS = RNG.integers(0, 2, (40, 14))
NAMES = [f"{i:08}_000" for i in range(40)]


def write_scores(path, names, errors=()):
    rows = []
    for i, name in enumerate(names):
        failed = name in errors
        values = None if failed else tuple(map(float, PROBABILITIES[i]))
        rows.append(Row(name, "0", 1, 1, "PNG", values, (), 'torn,\n"x"' if failed else None, "e"))
    write_table(path, path.suffix, rows, Specification())
    return path


def write_labels(path, names, patients=None, labels=LABELS, columns=FINDINGS):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", *(["patient_id"] if patients else []), *columns])
        for i, name in enumerate(names):
            writer.writerow([name, *([patients[i]] if patients else []), *labels[i][: len(columns)]])
    return path


@pytest.fixture
def labels(tmp_path):
    return write_labels(tmp_path / "labels.csv", [f"{n}.png" for n in NAMES], [i // 2 for i in range(40)])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("pattern", ["{}.png", "a/b/{}.dcm", "{}"])
def test_paths_match_exactly_or_by_name_without_suffix(tmp_path, labels, suffix, pattern):
    scores = write_scores(tmp_path / f"s.{suffix}", [pattern.format(n) for n in reversed(NAMES)])
    matched = read_labelled_scores(scores, labels)
    np.testing.assert_array_equal(matched.scores.astype(np.float32), PROBABILITIES)
    np.testing.assert_array_equal(matched.labels, LABELS[::-1])
    assert matched.patients == [str(i // 2) for i in range(40)][::-1]


def test_only_image_suffixes_are_taken_off(tmp_path):
    names = [f"1.2.840.{i}" for i in range(40)]
    scores = write_scores(tmp_path / "s.csv", [f"x/{name}.dcm" for name in names])
    matched = read_labelled_scores(scores, write_labels(tmp_path / "l.csv", names))
    np.testing.assert_array_equal(matched.labels, LABELS)


def test_equal_names_in_two_folders_need_equal_paths(tmp_path):
    names = [f"{folder}/{i}.png" for folder in "ab" for i in range(20)]
    truth = write_labels(tmp_path / "l.csv", names)
    np.testing.assert_array_equal(read_labelled_scores(write_scores(tmp_path / "s.csv", names), truth).labels, LABELS)
    with pytest.raises(UsageError, match=r"l\.csv: 2 images have the name '0', so it is unclear .* '0\.png'"):
        read_labelled_scores(write_scores(tmp_path / "s.csv", ["0.png"]), truth)
    with pytest.raises(UsageError, match=r"s\.csv: 2 images have the name '0'"):
        read_labelled_scores(
            write_scores(tmp_path / "s.csv", ["a/0.png", "b/0.png"]), write_labels(tmp_path / "l.csv", ["0"])
        )
    with pytest.raises(UsageError, match="2 images have the name '0'"):
        read_labelled_scores(
            write_scores(tmp_path / "s.csv", ["0.png", "b/0.png"]), write_labels(tmp_path / "l.csv", ["0.png"])
        )


def test_areas_are_printed_and_written(cli, tmp_path, labels):
    names = [f"{n}.png" for n in NAMES[:-1]] + ["unknown.png"]
    scores = write_scores(tmp_path / "s.csv", names, errors=names[:3])
    arguments = ("evaluate", scores, labels, "--json", tmp_path / "r" / "result.json", "--resamples", 100, "--seed", 3)
    result = cli(*arguments)
    assert result.exit_code == 1, result.output
    found = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (found["n"], found["patients"], found["seed"], found["resamples"]) == (36, 19, 3, 100)
    assert (found["scores_with_errors"], found["scores_without_labels"], found["labels_without_scores"]) == (3, 1, 4)
    assert list(found["findings"]) == list(FINDINGS)
    assert found["mean_low"] < found["mean_auc"] < found["mean_high"]
    assert found["findings"]["Mass"]["positives"] == LABELS[3:39, 4].sum()
    assert f"| **mean** |  | {found['mean_auc']:.4f} | " in result.stdout
    assert "100 resamples of 19 patients, seed 3" in result.stderr
    assert "1 row of SCORES left out: not in LABELS" in result.stderr
    again = cli(*arguments)
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)


def test_without_patients_images_are_resampled_and_it_says_so(cli, tmp_path):
    names = [f"{n}.png" for n in NAMES]
    scores, labels = write_scores(tmp_path / "s.csv", names), write_labels(tmp_path / "l.csv", names)
    result = cli("evaluate", scores, labels, "--json", tmp_path / "r.json", "--resamples", 10)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r.json").read_text())["resampled"] == "images"
    assert "resamples of images, as there is no patient_id" in result.stderr


def changed(row, column, value):
    labels = LABELS.astype(object)
    labels[row, column] = value
    return labels


def test_bad_tables_are_refused_in_one_sentence(tmp_path):
    names = [f"{n}.png" for n in NAMES]
    scores = write_scores(tmp_path / "s.csv", names)
    table = tmp_path / "l.csv"
    for rows, options, sentence in (
        (names, {"labels": changed(1, 4, -1)}, r"l.csv: Mass of '00000001_000.png' is -1; it must be 0 or 1"),
        (names, {"labels": changed(1, 4, "")}, "is empty; it must be 0 or 1"),
        (names, {"labels": changed(1, 4, "yes")}, "cannot be read as a table"),
        (names, {"columns": [f"{name} (old)" for name in FINDINGS]}, r"l.csv: has none of the findings Atelectasis, "),
        (names, {"patients": ["", *range(39)]}, "patient_id of '00000000_000.png' is empty"),
        ([names[0], *names[:-1]], {}, "'00000000_000.png' has 2 rows"),
        ([], {}, "has no rows"),
        ([f"x{n}" for n in names], {}, "no image of .*s.csv is in .*l.csv"),
    ):
        with pytest.raises(UsageError, match=sentence) as caught:
            read_labelled_scores(scores, write_labels(table, rows, **options))
        assert "\n" not in str(caught.value)


def test_nih_own_label_file(cli, tmp_path):
    names = [f"{n}.png" for n in NAMES]
    rows = [
        f"{name},{'|'.join(f for f, positive in zip(FINDINGS, row, strict=True) if positive) or 'No Finding'},{i // 2}"
        for i, (name, row) in enumerate(zip(names, LABELS, strict=True))
    ]
    table = tmp_path / "Data_Entry_2017.csv"
    table.write_text("\n".join(["Image Index,Finding Labels,Patient ID", *rows]))
    matched = read_labelled_scores(write_scores(tmp_path / "s.csv", [names[0], *(f"a/{n}" for n in names[1:])]), table)
    np.testing.assert_array_equal(matched.labels, LABELS)
    assert matched.patients == [str(i // 2) for i in range(40)]
    assert matched.matching == (1, 39, 0)
    result = cli("evaluate", tmp_path / "s.csv", table, "--resamples", 10)
    assert "images matched by path: 1, by file name alone: 39, not at all: 0" in result.stderr
    for row, sentence in (
        (f"{names[0]},Mass|Tumor,1", "'Tumor' of '00000000_000.png' is none of the 14 findings"),
        (names[0], "'00000000_000.png' has no Finding Labels; the file is cut off or damaged"),
        (f"{names[0]},Mass,1\n{names[0]},Mass,1", "'00000000_000.png' has 2 rows"),
    ):
        table.write_text(f"Image Index,Finding Labels,Patient ID\n{row}\n")
        with pytest.raises(UsageError, match=sentence):
            read_labelled_scores(tmp_path / "s.csv", table)


def test_a_spreadsheet_with_semicolons_and_a_binary_file(cli, tmp_path, labels):
    text = labels.read_text()
    for content, sentence in (
        (text.replace(",", ";").encode(), "its columns are separated by semicolons; save it as CSV with commas"),
        (text.replace(",", "\t").encode(), "its columns are separated by tabs; save it as CSV with commas"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x1b[31m", "not a table but a binary file"),
    ):
        labels.write_bytes(content)
        result = cli("evaluate", write_scores(tmp_path / "s.csv", ["a.png"]), labels)
        assert result.exit_code == 2
        assert sentence in result.stderr
        assert "\x1b" not in result.stderr


def test_missing_broken_and_empty_score_tables(tmp_path, labels):
    with pytest.raises(UsageError, match=r"none\.csv: no such table"):
        read_labelled_scores(tmp_path / "none.csv", labels)
    (tmp_path / "s.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read_labelled_scores(tmp_path / "s.parquet", labels)
    with pytest.raises(UsageError, match="every row is an error row"):
        read_labelled_scores(write_scores(tmp_path / "s.csv", ["a.png"], errors=["a.png"]), labels)
    header = columns(FINDINGS)
    (tmp_path / "s.csv").write_text(f"{','.join(header)}\n{NAMES[0]}.png{',' * (len(header) - 1)}\n")
    with pytest.raises(UsageError, match=r"Atelectasis of '00000000_000.png' is empty; it must be a number"):
        read_labelled_scores(tmp_path / "s.csv", labels)
