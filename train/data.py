"""ChestX-ray14 as NIH ships it, or any table of images, labels and patients: names, labels and the split.

NIH's split (paper, sec. 4.1) has two lists, train_val (86,524 images) and test (25,596). The paper trains on 76,524
images of the first list and validates on 10,000, but does not say on which. `carve` draws whole patients by a seed, so
the validation set here is a reconstruction.
"""

import csv
import gzip
import hashlib
import io
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.findings import FINDINGS
from cxr_trt.systems.system import Split
from cxr_trt.tables.nih import IMAGE, LABELS, PATIENT, nih_labels
from cxr_trt.words import quantity
from train.errors import DataError

SPLITS = ("train", "val", "test")
TRAIN_VAL = "train_val"  # still to be divided
VALIDATION_SHARE = 10_000 / 86_524  # of train_val (paper, sec. 4.1)
UNKNOWN = 255  # in place of a label of 0 or 1
TRAITS = ("view position", "sex", "age")
TRAIT_COLUMNS = {"nih": ("View Position", "Patient Gender", "Patient Age"), "table": ("view_position", "sex", "age")}
MAX_AGE_YEARS = 120  # NIH's file has a few ages above 400
NIH_LISTS = {"train_val_list.txt": TRAIN_VAL, "test_list.txt": "test"}
RANDOM_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # Wang 2017, CheXNet, Yao 2017 and AG-CNN


@dataclass(frozen=True)
class DataSet:
    """Images in the order of the label file.

    names: file names [N].
    patients: identifiers [N].
    splits: one of SPLITS for each image [N].
    labels: uint8 [N, 14], 0, 1 or UNKNOWN, in the order of FINDINGS.
    traits: float32 [N, 3], in the order of TRAITS: 1 for AP and 0 for PA, 1 for male and 0 for female, and the age as
        (years - 50) / 20; NaN if unknown.
    laterals: file names of the lateral X-rays of the same studies [N], empty where there is none; () if the label file
        names none.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    splits: tuple[str, ...]
    labels: npt.NDArray[np.uint8]
    traits: npt.NDArray[np.float32]
    laterals: tuple[str, ...] = ()

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """The indices of the images of one split."""
        return np.array([row for row, name in enumerate(self.splits) if name == split], np.int64)

    @property
    def split_hash(self) -> str:
        """sha256 of the sorted lines `name<TAB>split`, so that the order of the file does not matter."""
        lines = sorted(f"{name}\t{split}\n" for name, split in zip(self.names, self.splits, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_data(labels: Path, lists: Path | None = None, seed: int = 0, split: Split = "official") -> DataSet:
    """Read labels and split.

    Args:
        labels: NIH's Data_Entry_2017_v2020.csv, or a table with `image`, `patient_id`, the 14 findings as 0, 1, or
            empty where unknown, and optionally `split` (train, val, test, or train_val for images still to be divided;
            without the column, all are), `view_position`, `sex`, `age`, and `lateral`, the file of the lateral X-ray of
            the same study. Both may be compressed (.gz).
        lists: the folder of NIH's train_val_list.txt and test_list.txt; by default that of NIH's label file. For a
            table, the lists replace `split`.
        seed: random seed for the validation set, which is carved out of train_val unless the table has one, or for a
            random split.
        split: "official" for what `lists` or the table say; a random split ignores them.

    Raises:
        DataError: a file or column is missing, a label is neither 0 nor 1, an image has two rows or is on two lists or
            on none, or a patient is on two sides of the split.
        UsageError: a label of NIH's file is unknown.
    """
    rows = _read_csv(labels)
    if IMAGE in rows[0]:
        _require(rows[0], (IMAGE, LABELS, PATIENT), labels)
        names, patients = [row[IMAGE] for row in rows], [row[PATIENT] for row in rows]
        values = np.array([nih_labels(row[LABELS], row[IMAGE], labels) for row in rows], np.uint8)
        lists = lists or (labels.parent if split == "official" else None)
        columns = TRAIT_COLUMNS["nih"]
    else:
        _require(rows[0], ("image", "patient_id", *FINDINGS), labels)
        names, patients = [row["image"] for row in rows], [row["patient_id"] for row in rows]
        values = np.array([_table_labels(row, labels) for row in rows], np.uint8)
        columns = TRAIT_COLUMNS["table"]
    _check_names(names, patients, labels)
    if split == "official":
        splits = _official(names, patients, rows, lists, labels, seed)
    elif lists:
        raise DataError(f"{lists}: the recipe's split is {split}, which NIH's lists are not; leave out --lists")
    else:
        splits = random_split(patients if split == "random by patient" else names, seed)
    traits = np.array([_traits(*(row.get(column, "") for column in columns)) for row in rows], np.float32)
    laterals = tuple(row["lateral"] for row in rows) if "lateral" in rows[0] else ()
    return DataSet(tuple(names), tuple(patients), tuple(splits), values, traits, laterals)


def _official(
    names: Sequence[str],
    patients: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    lists: Path | None,
    labels: Path,
    seed: int,
) -> list[str]:
    splits = _listed(names, lists, labels) if lists else _column(rows, labels)
    _check_patients(names, patients, splits)
    if "val" not in splits:
        return carve(patients, splits, seed)
    if TRAIN_VAL in splits:
        raise DataError(
            f"{labels}: has both val and train_val in its column split; use train instead of train_val, or remove val"
        )
    return splits


def random_split(groups: Sequence[str], seed: int) -> list[str]:
    """Divide images into train, val and test by RANDOM_SHARES, whole groups at a time.

    Args:
        groups: for each image its patient; or its own name, which puts images of one patient on several sides.
        seed: the order of groups is that of a hash of seed and name, the same on every machine.
    """
    sizes = Counter(groups)
    split_of, done = {}, 0
    for group in order_of_groups(sizes, seed):
        share = (done + sizes[group] / 2) / len(groups)
        split_of[group] = next((name for name, end in _ends_of_shares() if share < end), "test")
        done += sizes[group]
    return [split_of[group] for group in groups]


def _ends_of_shares() -> Iterable[tuple[str, float]]:
    return zip(RANDOM_SHARES, itertools.accumulate(RANDOM_SHARES.values()), strict=True)


def order_of_groups(groups: Iterable[str], seed: int) -> list[str]:
    """Groups in the order of a hash of seed and name, the same on every machine."""
    return sorted(groups, key=lambda group: _hashed(seed, group))


def _hashed(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def carve(patients: Sequence[str], splits: Sequence[str], seed: int) -> list[str]:
    """Divide what is not test into train and val by whole patients.

    Patients are taken in the order of a hash of seed and identifier, which is the same on every machine. Each patient
    that still fits into the share of validation images goes there.
    """
    sizes = Counter(patient for patient, split in zip(patients, splits, strict=True) if split != "test")
    room = round(sizes.total() * VALIDATION_SHARE)
    chosen = set()
    for patient in order_of_groups(sizes, seed):
        if sizes[patient] <= room:
            chosen.add(patient)
            room -= sizes[patient]
    return [
        split if split == "test" else "val" if patient in chosen else "train"
        for patient, split in zip(patients, splits, strict=True)
    ]


def find_images(folder: Path, names: Iterable[str]) -> list[Path]:
    """The file of each name: `folder/name`, or the one file of that name in a folder below (images_001/images).

    Raises:
        DataError: files are missing, or a name occurs twice.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    found: dict[str, list[Path]] = {}
    for parent, _, files in os.walk(folder):
        for file in files:
            found.setdefault(file, []).append(Path(parent, file))
    paths, missing = [], []
    for name in names:
        places = found.get(Path(name).name, [])
        if folder / name in places:
            paths.append(folder / name)
        elif len(places) == 1:
            paths += places
        elif places:
            raise DataError(f"{folder}: {name} is in {places[0].parent} and in {places[1].parent}; keep one")
        else:
            missing.append(name)
    if missing:
        count = quantity(len(missing), "image")
        raise DataError(f"{folder}: {count} missing, the first is {missing[0]}; download them again")
    return paths


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
            rows = list(csv.DictReader(text, strict=True))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such label file") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    if not rows:
        raise DataError(f"{path}: has no rows")
    for number, row in enumerate(rows, 2):
        if None in row.values():
            raise DataError(f"{path}: row {number} has too few columns; download the file again")
    return rows


def _require(row: Mapping[str, str], columns: Iterable[str], path: Path) -> None:
    if missing := [column for column in columns if column not in row]:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; give NIH's Data_Entry_2017_v2020.csv or a table with "
            "image, patient_id and the 14 findings"
        )


def _table_labels(row: Mapping[str, str], path: Path) -> list[int]:
    for finding in FINDINGS:
        if row[finding] not in ("0", "1", ""):
            raise DataError(f"{path}: {finding} of {row['image']} is {row[finding]!r}; it must be 0, 1 or empty")
    return [int(row[finding] or UNKNOWN) for finding in FINDINGS]


def _traits(view: str, sex: str, age: str) -> tuple[float, float, float]:
    years = float(age) if age.isdigit() and int(age) <= MAX_AGE_YEARS else math.nan
    return {"PA": 0.0, "AP": 1.0}.get(view, math.nan), {"F": 0.0, "M": 1.0}.get(sex, math.nan), (years - 50) / 20


def _check_names(names: Sequence[str], patients: Sequence[str], path: Path) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: {name} has {count} rows; an image must have one")
    if "" in patients:
        raise DataError(f"{path}: {names[patients.index('')]} has no patient, which the split needs")


def _listed(names: Sequence[str], folder: Path, labels: Path) -> list[str]:
    split_of: dict[str, str] = {}
    for file, split in NIH_LISTS.items():
        try:
            listed = (folder / file).read_text(encoding="utf-8").split()
        except OSError as error:
            raise DataError(
                f"{folder / file}: cannot be read ({error.strerror}); the official split needs both of NIH's lists"
            ) from error
        for name in listed:
            if name in split_of:
                raise DataError(f"{folder / file}: {name} is listed twice, here or also in the other list")
            split_of[name] = split
    if unlisted := next((name for name in names if name not in split_of), None):
        raise DataError(f"{labels}: {unlisted} is on neither of the lists in {folder}")
    if len(split_of) > len(names):
        odd = next(iter(split_of.keys() - set(names)))
        raise DataError(f"{folder}: {odd} and {len(split_of) - len(names) - 1} more listed images are not in {labels}")
    return [split_of[name] for name in names]


def _column(rows: Sequence[Mapping[str, str]], path: Path) -> list[str]:
    splits = [row.get("split", TRAIN_VAL) for row in rows]
    if unknown := set(splits) - {*SPLITS, TRAIN_VAL}:
        raise DataError(f"{path}: split {min(unknown)!r} is unknown; use {', '.join(SPLITS)} or {TRAIN_VAL}")
    return splits


def _check_patients(names: Sequence[str], patients: Sequence[str], splits: Sequence[str]) -> None:
    side: dict[str, tuple[str, str]] = {}
    for name, patient, split in zip(names, patients, splits, strict=True):
        other, first = side.setdefault(patient, (split, name))
        if other != split:
            raise DataError(f"patient {patient} is on two sides of the split: {first} in {other}, {name} in {split}")
