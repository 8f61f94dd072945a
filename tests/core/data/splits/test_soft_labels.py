"""Tables with soft labels: reading, folds, counts and samplers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.config.data import DataConfig, SourcesReading
from core.config.training import SplitConfig
from core.data.loading.samplers import images_by_class
from core.data.splits.folds import count_positives, read_folds, write_folds
from core.data.splits.prepare import PreparedData, prepare
from core.data.tables.labels_csv import read_labels_csv, write_labels
from core.data.tables.load import gather
from core.errors import UserError

NAN = float("nan")


@pytest.fixture
def hard(tmp_path: Path) -> Path:
    """train.csv of 40 images of 20 patients, with an image file for each of 60 names."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(60):
        (tmp_path / "images" / f"{number:02}.png").write_bytes(rng.bytes(50 + number))
    patients = [f"p{number // 2}" for number in range(40)]
    labels = {
        name: (rng.random(40) < share).astype(int) for name, share in (("A", 0.5), ("B", 0.2))
    }
    names = [f"{number:02}.png" for number in range(40)]
    frame = pd.DataFrame({"ImageID": names, "PatientID": patients, **labels})
    frame.to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def pseudo(folder: Path, patients: list[str] | None, name: str = "pseudo.csv") -> Path:
    """CSV of predictions for the last 20 images; two cells are rounded."""
    values = np.random.default_rng(1).random((20, 2)).round(3)
    values[0], values[1] = (1.0, 0.4), (0.3, 0.0)
    frame = pd.DataFrame(values, columns=["A", "B"])
    frame.insert(0, "ImageID", [f"{number}.png" for number in range(40, 60)])
    if patients is not None:
        frame.insert(1, "PatientID", patients)
    frame.to_csv(folder / name, index=False)
    return folder / name


def divide(folder: Path, *csvs: Path, log: list[str] | None = None, **more: Any) -> PreparedData:
    config = DataConfig(train_csv=csvs, train_dir=(folder / "images",), soft_labels=True, **more)
    lines: list[str] = [] if log is None else log
    return prepare(config, SplitConfig(folds=3), lines.append)


def test_a_cell_between_0_and_1_is_a_soft_label(hard: Path) -> None:
    path = hard / "own.csv"
    path.write_text("ImageID,A,B\n00.png,1,0.25\n01.png,0,-1\n02.png,5e-1,\n03.png,NA,1.0\n")
    data = DataConfig(train_csv=(path,), train_dir=(hard / "images",), soft_labels=True)
    table = gather(data)
    expected = [[1, 0.25], [0, NAN], [0.5, NAN], [NAN, 1]]
    np.testing.assert_array_equal(table.targets, np.array(expected, np.float32))
    expected = [[1, NAN], [0, NAN], [NAN, NAN], [NAN, 1]]
    np.testing.assert_array_equal(table.hard_targets, np.array(expected, np.float32))
    expected = [[1, 0], [0, NAN], [1, NAN], [NAN, 1]]
    np.testing.assert_array_equal(table.binary_targets, np.array(expected, np.float32))
    assert table.is_pseudo.tolist() == [False, False, True, False]
    positives, known = count_positives(table.targets)
    np.testing.assert_allclose(positives, [1.5, 1.25])
    assert known.tolist() == [3, 2]
    # images of A, of B, and those without a positive
    drawn = [rows.tolist() for rows in images_by_class(table.binary_targets)]
    assert drawn == [[0, 2], [3], [1]]
    data.reading = SourcesReading(uncertain="one")
    assert gather(data).targets[1, 1] == 1


@pytest.mark.parametrize(("value", "names_flag"), [("0.5", True), ("1.5", False)])
def test_other_values_are_refused(hard: Path, value: str, names_flag: bool) -> None:
    path = hard / "own.csv"
    path.write_text(f"ImageID,A\n00.png,1\n01.png,0\n02.png,{value}\n")
    data = DataConfig(train_csv=(path,), train_dir=(hard / "images",), soft_labels=not names_flag)
    with pytest.raises(UserError, match=rf"row 4 .* column 'A' holds '{value}'") as refused:
        gather(data)
    hint = ", or, for training only, a probability in --train_csv with --soft_labels"
    assert (hint in str(refused.value)) == names_flag


def test_soft_labels_of_the_validation_are_refused(hard: Path) -> None:
    soft = pseudo(hard, [f"q{number}" for number in range(20)])
    with pytest.raises(UserError, match=r"pseudo\.csv: row .* in --train_csv with --soft_labels"):
        divide(hard, hard / "train.csv", val_csv=(soft,))


def test_rounded_predictions_are_no_hard_labels(hard: Path) -> None:
    table = gather(DataConfig(train_csv=(pseudo(hard, None),), soft_labels=True), images=False)
    assert table.is_pseudo.all()
    np.testing.assert_allclose(table.targets[:2], [[1, 0.4], [0.3, 0]], atol=2e-6)


def test_values_near_0_and_1_stay_soft_in_float32(hard: Path) -> None:
    path = hard / "own.csv"
    path.write_text("ImageID,A,B\n00.png,0.99999999,1e-300\n01.png,1,0\n02.png,0,1\n")
    table = gather(DataConfig(train_csv=(path,), soft_labels=True), images=False)
    assert table.is_soft.tolist() == [[True, True], [False, False], [False, False]]
    np.testing.assert_allclose(table.targets[0], [1, 0], atol=2e-6)


@pytest.mark.parametrize(("rounded", "is_alone"), [(2, True), (3, False)])
def test_a_tenth_of_rounded_rows_does_not_make_hard_labels(
    rounded: int, is_alone: bool, hard: Path
) -> None:
    frame = pd.read_csv(pseudo(hard, [f"p{number}" for number in range(20)]), dtype=str)
    frame.loc[2 : 1 + rounded, ["A", "B"]] = ["1", "0"]
    # rows without a label do not count
    blank = frame.assign(ImageID=[f"{n:02}.png" for n in range(20)], A="", B="")
    both = pd.concat([blank[:15], frame])
    both.to_csv(hard / "pseudo.csv", index=False)
    table = gather(DataConfig(train_csv=(hard / "pseudo.csv",), soft_labels=True), images=False)
    assert len(table) == (20 if is_alone else 35)
    assert table.is_pseudo.all() == is_alone
    assert any("without a label are left out: 15" in note for note in table.notes) == is_alone


@pytest.mark.parametrize("known", [True, False], ids=["patients", "no patients"])
@pytest.mark.parametrize("given", [True, False], ids=["pseudo patients", "without"])
def test_pseudo_labels_leave_the_folds_as_they_are(hard: Path, known: bool, given: bool) -> None:
    train = hard / "train.csv"
    if not known:
        pd.read_csv(train).drop(columns="PatientID").to_csv(train, index=False)
    alone = divide(hard, train)
    patients = [f"p{number}" for number in range(10)] + [f"q{number}" for number in range(10)]
    both = divide(hard, train, pseudo(hard, patients if given else None))
    assert both.assignment[:40].tolist() == alone.assignment.tolist()
    assert (both.assignment[40:] < 0).all()
    np.testing.assert_array_equal(both.table.targets[:40], alone.table.targets)
    assert len(both.table) == 60


def test_pseudo_labels_of_validation_patients_do_not_train(hard: Path, tmp_path: Path) -> None:
    patients = [f"p{number}" for number in range(10)] + [f"q{number}" for number in range(10)]
    log: list[str] = []
    prepared = divide(hard, hard / "train.csv", pseudo(hard, patients), log=log)
    names = np.array([name.partition("/")[2] for name in prepared.table.ids])
    owner = np.array([f"p{int(name[:2]) // 2}" for name in names[:40]] + patients)
    for _, training, validation in prepared.rows():
        assert not set(owner[training]) & set(owner[validation])
        assert validation.max() < 40
        own = np.flatnonzero(np.isin(owner, owner[validation]))
        assert sorted([*training, *own]) == list(range(60))
        # some train here, and some do not
        assert 10 <= (training >= 40).sum() < 20
    assert any("20 have no hard label and are never validated (10 of them" in one for one in log)
    # and the same again from the file of a run
    write_folds(tmp_path / "folds.csv", prepared.table, prepared.assignment)
    again = read_folds(tmp_path / "folds.csv", prepared.table)
    assert again is not None
    assert again.tolist() == prepared.assignment.tolist()


@pytest.mark.parametrize("letter", ["p", ""], ids=["p", "no p"])
@pytest.mark.parametrize("column", ["PatientID", "subject_id"])
@pytest.mark.parametrize("of_train", ["p", ""], ids=["train p", "train no p"])
def test_patients_of_mimic_match_without_their_letter(
    letter: str, column: str, of_train: str, hard: Path
) -> None:
    frame = pd.read_csv(hard / "train.csv", dtype=str)
    frame["PatientID"] = of_train + frame["PatientID"].str.removeprefix("p")
    names = {"ImageID": "dicom_id", "PatientID": "subject_id"}
    frame = frame.rename(columns=names).assign(study_id="s1", fpath="f")
    frame.to_csv(hard / "train.csv", index=False)
    soft = pseudo(hard, [f"{letter}{number}" for number in range(20)])
    pd.read_csv(soft, dtype=str).rename(columns={"PatientID": column}).to_csv(soft, index=False)
    log: list[str] = []
    prepared = divide(hard, hard / "train.csv", soft, log=log)
    assert any("CXR-LT 2023 or 2024" in one for one in log)
    # image 40 + n is of the patient of images 2 n and 2 n + 1
    folds = prepared.assignment
    assert folds[40:].tolist() == [-2 - fold for fold in folds[:40:2]]


def test_other_columns_of_soft_labels_are_no_labels(hard: Path) -> None:
    soft = pseudo(hard, None)
    pd.read_csv(soft).assign(quality=np.linspace(0.5, 0.99, 20)).to_csv(soft, index=False)
    log: list[str] = []
    table = divide(hard, hard / "train.csv", soft, log=log).table
    assert table.class_names == ("A", "B")
    assert any("pseudo.csv that are not used: quality" in one for one in log)
    asked = divide(hard, hard / "train.csv", soft, labels="A,quality").table
    assert asked.class_names == ("A", "quality")
    pd.read_csv(soft).drop(columns=["A", "B"]).to_csv(soft, index=False)
    with pytest.raises(UserError, match="has soft labels alone, and none is in another CSV"):
        divide(hard, hard / "train.csv", soft)


def test_other_patients_are_reported(hard: Path) -> None:
    log: list[str] = []
    divide(hard, hard / "train.csv", pseudo(hard, [f"q{n}" for n in range(20)]), log=log)
    assert any("no patient of" in one and "pseudo.csv" in one for one in log)
    divide(hard, hard / "train.csv", pseudo(hard, [f"p{n}" for n in range(20)]), log=(log := []))
    assert not any("no patient of" in one for one in log)


def test_patients_of_two_csvs_are_left_out(hard: Path) -> None:
    frame = pd.read_csv(hard / "train.csv", dtype=str)
    # p9 is in both, as are two images of p0 and one of p9 in the CSV of soft labels
    frame[:20].to_csv(hard / "one.csv", index=False)
    frame[20:].replace("p19", "p9").to_csv(hard / "two.csv", index=False)
    soft = pseudo(hard, ["p9", "p0", "p0", *[f"q{number}" for number in range(17)]])
    log: list[str] = []
    prepared = divide(hard, hard / "one.csv", hard / "two.csv", soft, log=log)
    assert "pseudo/40.png" not in prepared.table.ids
    assert len(prepared.table) == 59
    assert (prepared.assignment[40:] < -1).sum() == 2
    assert any("1 image of" in one and "names of several people" in one for one in log)
    soft = pseudo(hard, ["p9"] * 20)
    with pytest.raises(UserError, match="names of several people"):
        divide(hard, hard / "one.csv", hard / "two.csv", soft)


def test_one_table_of_both_divides_as_two(hard: Path) -> None:
    patients = [f"p{number}" for number in range(10)] + [f"q{number}" for number in range(10)]
    train, soft = hard / "train.csv", pseudo(hard, patients)
    two = divide(hard, train, soft)
    rows = [pd.read_csv(path, dtype=str) for path in (soft, train)]
    # cells of 1 and 0 would be hard labels here
    rows[0] = rows[0].replace({"1.0": "0.999999", "0.0": "1e-6"})
    pd.concat(rows).to_csv(hard / "both.csv", index=False)
    one = divide(hard, hard / "both.csv")
    assert [*one.assignment[20:], *one.assignment[:20]] == two.assignment.tolist()


def test_prevalence_is_of_hard_labelled_images(hard: Path) -> None:
    alone = divide(hard, hard / "train.csv")
    both = divide(hard, hard / "train.csv", pseudo(hard, None))
    np.testing.assert_array_equal(alone.prevalence(), both.prevalence())
    assert alone.fingerprint() != both.fingerprint()


def test_a_copy_of_a_hard_labelled_image_is_left_out(hard: Path) -> None:
    (hard / "images" / "45.png").write_bytes((hard / "images" / "03.png").read_bytes())
    log: list[str] = []
    prepared = divide(hard, hard / "train.csv", pseudo(hard, None), log=log)
    assert "pseudo/45.png" not in prepared.table.ids
    assert len(prepared.table) == len(prepared.assignment) == 59
    assert any("1 image with soft labels alone left out" in one for one in log)


def test_soft_labels_alone_cannot_be_validated(hard: Path) -> None:
    with pytest.raises(UserError, match="add a CSV with hard labels"):
        divide(hard, pseudo(hard, None))


def test_the_digest_of_labels_knows_soft_ones(hard: Path) -> None:
    soft = pseudo(hard, None)
    first = divide(hard, hard / "train.csv", soft).digests()
    frame = pd.read_csv(soft)
    frame.loc[5, "A"] = 0.123
    frame.to_csv(soft, index=False)
    second = divide(hard, hard / "train.csv", soft).digests()
    assert {name for name in first if first[name] != second[name]} == {"labels"}


def test_labels_csv_has_hard_labels_alone(hard: Path, tmp_path: Path) -> None:
    prepared = divide(hard, hard / "train.csv", pseudo(hard, None))
    write_labels(tmp_path / "labels.csv", prepared.table)
    table = read_labels_csv(tmp_path)
    assert table.ids == prepared.table.ids[:40]
    np.testing.assert_array_equal(table.targets, prepared.table.targets[:40])


def test_a_cell_above_1_names_the_range_of_soft_labels(tmp_path: Path) -> None:
    csv = tmp_path / "train.csv"
    csv.write_text("ImageID,A\na.png,0.3\nb.png,1.2\n")
    config = DataConfig(train_csv=(csv,), soft_labels=True)
    with pytest.raises(UserError, match=r"holds '1\.2'.*--soft_labels, between 0 and 1"):
        gather(config, images=False)
