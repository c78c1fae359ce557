import gzip
from collections import Counter

import numpy as np
import pytest

from cxr_trt.errors import CxrTrtError
from cxr_trt.findings import FINDINGS
from train.data import UNKNOWN, carve, find_images, random_split, read_data
from train.errors import DataError

NIH_HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID"
NIH_ROWS = ("1_0.png,Mass|Hernia,0,1", "1_1.png,No Finding,1,1", "2_0.png,Pleural_Thickening,0,2", "3_0.png,Mass,0,3")
TABLE_HEADER = ",".join(("image", "patient_id", "split", *FINDINGS))
ZEROS = ",0" * 14


@pytest.fixture
def nih(tmp_path):
    """Writes a data set as NIH ships it; returns the label file."""

    def write(rows=NIH_ROWS, header=NIH_HEADER, train_val="1_0.png\n1_1.png\n2_0.png", test="3_0.png"):
        (tmp_path / "labels.csv").write_text("\n".join((header, *rows)))
        (tmp_path / "train_val_list.txt").write_text(train_val)
        (tmp_path / "test_list.txt").write_text(test)
        return tmp_path / "labels.csv"

    return write


@pytest.fixture
def table(tmp_path):
    """Writes a table of images and labels; returns its path."""

    def write(rows, header=TABLE_HEADER):
        (tmp_path / "table.csv").write_text("\n".join((header, *rows)))
        return tmp_path / "table.csv"

    return write


def test_the_official_split(cxr14):
    data = read_data(cxr14 / "metadata" / "Data_Entry_2017_v2020.csv.gz")
    assert Counter(data.splits) == {"train": 76_524, "val": 10_000, "test": 25_596}
    assert data.labels.shape == (112_120, 14)
    assert data.labels.sum(0)[[0, 3, 13]].tolist() == [11_559, 19_894, 227]
    for file, count, splits in (("train_val_list.txt", 86_524, ("train", "val")), ("test_list.txt", 25_596, ("test",))):
        listed = (cxr14 / "metadata" / file).read_text().split()
        assert len(listed) == count
        assert set(listed) == {name for name, split in zip(data.names, data.splits, strict=True) if split in splits}
    sides = {split: {data.patients[row] for row in data.rows(split)} for split in ("train", "val", "test")}
    assert len(set.union(*sides.values())) == sum(map(len, sides.values())) == 30_805
    assert data.split_hash == "121adb093c0ee827377df3f7539c427e7ec01cbf3a7896deb031713dd6f880f0"


def test_a_table_with_its_own_split(cxr14):
    data = read_data(cxr14 / "labels.csv")
    assert Counter(data.splits) == {"train": 1868, "val": 319, "test": 870}
    assert data.labels[data.rows("test")].sum(0)[:3].tolist() == [236, 151, 258]
    assert len(find_images(cxr14 / "images", data.names)) == 3057


def test_traits_of_the_real_files(cxr14):
    nih = read_data(cxr14 / "metadata" / "Data_Entry_2017_v2020.csv.gz")
    table = read_data(cxr14 / "labels.csv")
    assert np.isfinite(nih.traits[:, :2]).all()
    assert nih.traits[:, :2].sum(0).tolist() == [44_810, 63_340]  # AP images, images of men
    row = {name.removesuffix(".png"): number for number, name in enumerate(nih.names)}
    same = [row[name.removesuffix(".jpg")] for name in table.names]
    np.testing.assert_array_equal(nih.traits[same], table.traits)


def test_unknown_traits_are_nan(table):
    header = TABLE_HEADER.replace("split", "split,view_position,sex,age")
    rows = [f"{i}.png,{i},train,{traits}{ZEROS}" for i, traits in enumerate(("AP,M,70", "PA,F,414", ",X,unknown"))]
    nan = np.nan
    expected = [[1, 1, 1], [0, 0, nan], [nan, nan, nan]]
    np.testing.assert_array_equal(read_data(table(rows, header)).traits, np.array(expected, np.float32))
    assert np.isnan(read_data(table([f"0.png,0,train{ZEROS}"])).traits).all()


def test_labels_in_nihs_spelling(nih):
    data = read_data(nih())
    expected = np.zeros((4, 14), int)
    expected[0, [4, 13]] = expected[2, 12] = expected[3, 4] = 1
    np.testing.assert_array_equal(data.labels, expected)
    assert data.patients == ("1", "1", "2", "3")
    assert data.splits[3] == "test"


def test_compressed_and_plain_are_equal(nih, tmp_path):
    plain = nih()
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read_data(tmp_path / "labels.csv.gz").split_hash == read_data(plain).split_hash


def test_carving_takes_whole_patients_and_depends_on_the_seed_alone():
    rng = np.random.default_rng(0)
    patients = [str(number) for number in rng.integers(700, size=3000)]
    splits = ["test" if int(patient) % 5 == 0 else "train_val" for patient in patients]
    carved = carve(patients, splits, 0)
    assert carved.count("val") == round((3000 - splits.count("test")) * 10_000 / 86_524)
    assert [split == "test" for split in carved] == [split == "test" for split in splits]
    in_split = {name: {p for p, s in zip(patients, carved, strict=True) if s == name} for name in ("train", "val")}
    assert in_split["train"].isdisjoint(in_split["val"])
    assert carve(patients[::-1], splits[::-1], 0) == carved[::-1]
    assert carve(patients, splits, 1) != carved


@pytest.mark.parametrize("header", [TABLE_HEADER, TABLE_HEADER.replace("split,", "")])
def test_a_table_without_validation_images_is_carved(table, header):
    split = "train_val," if "split" in header else ""
    data = read_data(table([f"{i}.png,{i},{split}{ZEROS[1:]}" for i in range(100)], header))
    assert Counter(data.splits) == {"train": 88, "val": 12}


def test_the_split_hash_is_of_names_and_splits(table):
    rows = [f"{i}.png,{i},{split}{ZEROS}" for i, split in enumerate(("train", "val", "test", "train"))]
    hash_ = read_data(table(rows)).split_hash
    assert read_data(table(rows[::-1])).split_hash == hash_
    assert read_data(table([*rows[:3], rows[3].replace("train", "val")])).split_hash != hash_


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"test": "3_0.png\n1_1.png"}, "1_1.png is listed twice"),
        ({"train_val": "1_0.png\n1_0.png\n1_1.png\n2_0.png"}, "1_0.png is listed twice"),
        (
            {"train_val": "1_0.png\n2_0.png", "test": "1_1.png\n3_0.png"},
            "patient 1 is on two sides of the split: 1_0.png in train",
        ),
        ({"train_val": "1_0.png\n2_0.png"}, "1_1.png is on neither of the lists"),
        ({"test": "3_0.png\n4_0.png"}, "4_0.png and 0 more listed images are not in"),
        (
            {"rows": (*NIH_ROWS[:3], "3_0.png,Mass|Pleural Thickening,0,3")},
            "'Pleural Thickening' of '3_0.png' is none of the 14 findings",
        ),
        ({"rows": (*NIH_ROWS[:3], "3_0.png,No Finding|Mass,0,3")}, "'No Finding' of '3_0.png' is none of the 14"),
        ({"rows": (*NIH_ROWS, NIH_ROWS[0])}, "1_0.png has 2 rows"),
        ({"rows": (*NIH_ROWS, "4_0.png,Ma")}, "row 6 has too few columns"),
        ({"rows": (*NIH_ROWS[:3], "3_0.png,Mass,0,")}, "3_0.png has no patient"),
        ({"rows": ()}, "has no rows"),
        ({"header": NIH_HEADER.replace("Patient ID", "Patient")}, "has no column Patient ID;"),
        ({"header": NIH_HEADER.replace("Image Index", "Image")}, "has no column image, patient_id, Atelectasis"),
    ],
)
def test_what_nihs_files_may_not_be(nih, changes, sentence):
    with pytest.raises(CxrTrtError, match=sentence) as caught:
        read_data(nih(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [f"1.png,1,train{ZEROS}", f"2.png,1,val{ZEROS}"],
            "patient 1 is on two sides of the split: 1.png in train, 2.png in val",
        ),
        ([f"1.png,1,train{ZEROS}", f"2.png,1,test{ZEROS}"], "patient 1 is on two sides"),
        ([f"1.png,1,train_val{ZEROS}", f"2.png,2,val{ZEROS}"], "has both val and train_val"),
        ([f"1.png,1,training{ZEROS}"], "split 'training' is unknown"),
        ([f"1.png,1,train,-1{ZEROS[2:]}"], "Atelectasis of 1.png is '-1'; it must be 0, 1 or empty"),
        ([f"1.png,1,train, {ZEROS[2:]}"], "Atelectasis of 1.png is ' '"),
    ],
)
def test_what_a_table_may_not_be(table, rows, sentence):
    with pytest.raises(DataError, match=sentence):
        read_data(table(rows))


def test_missing_files_are_named(nih, tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: no such label file"):
        read_data(tmp_path / "none.csv")
    labels = nih()
    (tmp_path / "test_list.txt").unlink()
    with pytest.raises(DataError, match=r"test_list\.txt: cannot be read \(No such file or directory\)"):
        read_data(labels)
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(labels.read_bytes())[:-20])
    with pytest.raises(DataError, match=r"broken\.csv\.gz: cannot be read as CSV"):
        read_data(tmp_path / "broken.csv.gz")


def test_images_are_found_in_folders_below(tmp_path):
    for file in ("a.png", "images_001/images/b.png", "images_002/images/c.png", "images_002/images/a.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    expected = [tmp_path / "images_002/images/c.png", tmp_path / "a.png", tmp_path / "images_001/images/b.png"]
    assert find_images(tmp_path, ["c.png", "a.png", "images_001/images/b.png"]) == expected
    with pytest.raises(DataError, match=r"2 images missing, the first is x\.png"):
        find_images(tmp_path, ["a.png", "x.png", "y.png"])
    with pytest.raises(DataError, match=r"a\.png is in .* and in .*; keep one"):
        find_images(tmp_path, ["images/a.png"])
    with pytest.raises(DataError, match="no such folder of images"):
        find_images(tmp_path / "none", ["a.png"])


def test_random_splits_divide_patients_or_images_by_their_shares():
    patients = [f"{number}" for number in range(2000) for _ in range(number % 5 + 1)]
    names = [f"{i}.png" for i in range(len(patients))]
    by_patient, by_image = random_split(patients, 0), random_split(names, 0)
    for splits in (by_patient, by_image):
        shares = {split: count / len(names) for split, count in Counter(splits).items()}
        assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.002)
    sides = {(patient, split) for patient, split in zip(patients, by_patient, strict=True)}
    assert len(sides) == 2000
    assert len({(patient, split) for patient, split in zip(patients, by_image, strict=True)}) > 3000
    assert random_split(patients[::-1], 0) == by_patient[::-1]
    assert random_split(patients, 1) != by_patient
    assert Counter(random_split(["a", "b", "c"], 0)) <= Counter(train=3, val=3, test=3)


def test_a_random_split_takes_the_place_of_lists_and_of_the_column(nih, table):
    rows = [f"{patient}_{i}.png,Mass,0,{patient}" for patient in range(100) for i in range(3)]
    labels = nih(rows, train_val="", test="")
    by_patient = read_data(labels, split="random by patient")
    assert len({*zip(by_patient.patients, by_patient.splits, strict=True)}) == 100
    by_image = read_data(labels, split="random by image")
    assert len({*zip(by_image.patients, by_image.splits, strict=True)}) > 100
    assert by_image.split_hash != by_patient.split_hash
    with pytest.raises(DataError, match="the recipe's split is random by image, which NIH's lists are not"):
        read_data(labels, labels.parent, split="random by image")
    own = table([f"{i}.png,{i},test{ZEROS}" for i in range(50)])
    assert Counter(read_data(own, split="random by patient").splits)["train"] == 35


def test_an_empty_label_is_unknown(table):
    data = read_data(table([f"1.png,1,train,,1{',0' * 12}", f"2.png,2,val{ZEROS}"]))
    assert data.labels[0].tolist() == [UNKNOWN, 1, *[0] * 12]
