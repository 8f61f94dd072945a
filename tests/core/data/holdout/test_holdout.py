"""Hold-out split: whole patients, stratified classes, unchanged rows."""

import csv
import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data.holdout.__main__ import main
from core.data.holdout.rows import write_rows
from core.data.splits.holdout import assign_holdout
from core.errors import UserError
from ensemble.calibrate import main as calibrate
from ensemble.choose import main as choose
from ensemble.evaluate import main as evaluate
from ensemble.explain import main as explain
from tests.conftest import Call, Train
from tests.helpers.training.small_run import MODEL, flags

SOURCES = Path(__file__).parents[1] / "sources"
OF_STUDIES = ["--train_csv", str(SOURCES / "mimic" / "mimic-cxr-2.0.0-chexpert.csv")]
OF_STUDIES += ["--patient_column", "subject_id"]


def many_patients(patients: int = 60) -> pd.DataFrame:
    """Three images of each patient; Effusion of every third, Rare of five of them."""
    frame = pd.DataFrame({"ImageID": [f"{place:03}.png" for place in range(3 * patients)]})
    owner = frame.index // 3
    frame["PatientID"] = [f"p{one:02}" for one in owner]
    frame["Effusion"] = (owner % 3 == 0).astype(int)
    frame["Rare"] = (owner < 5).astype(int)
    return frame


def read_both(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    train, holdout = (
        pd.read_csv(folder / f"{part}.csv", dtype=str) for part in ("train", "holdout")
    )
    return train, holdout


@pytest.mark.parametrize(("share", "rare"), [(0.2, 1), (0.5, 2), (0.8, 4), (0.15, 1)])
def test_patients_are_whole_and_classes_even(share: float, rare: int) -> None:
    frame = many_patients()
    targets = frame[["Effusion", "Rare"]].to_numpy(np.float32)
    for seed in range(3):
        held = assign_holdout(targets, frame["PatientID"].to_numpy(), share, seed)
        assert frame.assign(held=held).groupby("PatientID")["held"].nunique().max() == 1
        effusion, some_rare = (targets[held].sum(axis=0) / 3).tolist()
        assert abs(effusion - share * 20) < 1
        assert abs(some_rare - rare) <= 1
        assert 1 <= some_rare <= 4
        assert abs(held.sum() / 3 - share * 60) <= 1


def test_nih_keeps_each_share(real_data: Path) -> None:
    nih = pd.read_csv(real_data / "labels" / "nih_chestxray14.csv.gz", dtype={"PatientID": str})
    targets = nih.iloc[:, 2:].to_numpy(np.float32)
    held = assign_holdout(targets, nih["PatientID"].to_numpy(), 0.3)
    positives = targets.sum(axis=0)
    off = np.abs(targets[held].sum(axis=0) / positives - 0.3) / 0.3
    assert off[positives >= 500].max() < 0.01
    assert off.max() < 0.03
    assert nih.assign(held=held).groupby("PatientID")["held"].nunique().max() == 1


def test_rows_keep_their_text_whatever_their_order(tmp_path: Path, call: Call) -> None:
    frame = many_patients().assign(Note='a "b", c\nd', Age="007 ", Rare="1.00")
    frame.loc[::2, "Rare"] = "No"
    for name, rows in (("one", frame), ("other", frame.sample(frac=1, random_state=0))):
        rows.to_csv(tmp_path / f"{name}.csv", sep=";", index=False, quoting=csv.QUOTE_ALL)
        words = ["--train_csv", tmp_path / f"{name}.csv", "--output", tmp_path / name]
        code, out, error = call(main, *words)
        assert code == 0, error
        # the last line break is the file's own
        text = (tmp_path / f"{name}.csv").read_text()
        header = text.partition("\n")[0]
        parts = [(tmp_path / name / f"{part}.csv").read_text() for part in ("train", "holdout")]
        own = [part.removeprefix(f"{header}\n").split('"\n') for part in parts]
        rows_of_all = text.removeprefix(f"{header}\n").split('"\n')
        assert sorted([*own[0], *own[1]]) == sorted([*rows_of_all, ""])
        assert "held out" in out
        assert str(tmp_path / name / "holdout.csv") in out
    held = [
        set(pd.read_csv(tmp_path / name / "holdout.csv", sep=";")["ImageID"])
        for name in ("one", "other")
    ]
    assert held[0] == held[1]
    assert len(held[0]) == 36


def test_what_is_printed_is_what_is_written(tmp_path: Path, call: Call) -> None:
    with gzip.open(tmp_path / "all.csv.gz", "wt") as file:
        many_patients().to_csv(file, index=False)
    words = ["--train_csv", tmp_path / "all.csv.gz", "--share", 0.25, "--output", tmp_path / "new"]
    by_image = "split by image: a patient may be on both sides"
    assert by_image in call(main, *words, "--patient_column", "none")[1]
    many_patients().rename(columns={"PatientID": "Owner"}).to_csv(tmp_path / "all.csv", index=False)
    code, out, _ = call(main, "--train_csv", tmp_path / "all.csv", *words[2:], "--overwrite")
    assert code == 0
    assert "one patient may be in both files (training and held out) and" in out
    _, out, _ = call(main, *words, "--overwrite")
    assert by_image not in out
    for place, frame in enumerate(read_both(tmp_path / "new")):
        counts = {"images": len(frame), "patients": frame["PatientID"].nunique()}
        counts |= {name: (frame[name] == "1").sum() for name in ("Effusion", "Rare")}
        for name, count in counts.items():
            line = next(line.split() for line in out.splitlines() if line.startswith(name))
            assert int(line[1 + place]) == count


def test_seed_overwrite_and_equal_images(
    tmp_path: Path, call: Call, phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--train_csv", phantom / "train.csv", "--share", 0.5]
    assert call(main, *words)[0] == 0
    first = read_both(Path("holdout"))[1]["ImageID"].tolist()
    code, _, error = call(main, *words, "--seed", 7)
    assert code == 2
    assert "holdout is there already" in error
    assert call(main, *words, "--seed", 7, "--overwrite")[0] == 0
    assert read_both(Path("holdout"))[1]["ImageID"].tolist() != first
    # an image of a patient of one side is also one of a patient of the other
    train, held = read_both(Path("holdout"))
    one, other = train["ImageID"][0], held["ImageID"][0]
    images = shutil.copytree(phantom / "images", tmp_path / "images")
    shutil.copy(images / one, images / other)
    code, out, error = call(main, *words, "--seed", 7, "--overwrite", "--train_dir", images)
    assert code == 0, error
    assert "1 image equals another one of another patient" in out
    sides = [{one, other} & set(part["ImageID"]) for part in read_both(Path("holdout"))]
    assert set() in sides


@pytest.mark.parametrize("name", ["train.csv", "train_x.csv"])
def test_overwrite_leaves_other_tables_alone(name: str, tmp_path: Path, call: Call) -> None:
    many_patients().to_csv(tmp_path / "all.csv", index=False)
    out = tmp_path / "out"
    words = ["--train_csv", tmp_path / "all.csv", "--output", out]
    assert call(main, *words)[0] == 0
    (out / name).write_text("Image,Finding\na.png,1\n")
    code, _, error = call(main, *words, "--overwrite")
    assert code == 2
    assert f"{name} and holdout{name.removeprefix('train')} were not written by one" in error
    assert (out / name).read_text() == "Image,Finding\na.png,1\n"


@pytest.mark.parametrize(("source", "column"), [("vindr/image_labels_train.csv", "image_id")])
def test_a_known_source_keeps_all_rows_of_an_image(
    source: str, column: str, tmp_path: Path, call: Call
) -> None:
    words = ["--train_csv", SOURCES / source, "--share", 0.5, "--output", tmp_path / "new"]
    code, _, error = call(main, *words)
    assert code == 0, error
    before = pd.read_csv(SOURCES / source, dtype=str)
    train, held = read_both(tmp_path / "new")
    assert len(train) + len(held) == len(before)
    assert not {*train[column]} & {*held[column]}


def test_several_csvs_share_a_patient_out_once(tmp_path: Path, call: Call) -> None:
    many_patients().to_csv(tmp_path / "a.csv", index=False)
    many_patients(30).rename(columns={"Rare": "Mass"}).to_csv(tmp_path / "b.csv", index=False)
    csvs = [tmp_path / "a.csv", tmp_path / "b.csv"]
    words = ["--train_csv", *csvs, "--output", tmp_path / "new"]
    code, printed, error = call(main, *words, "--patient_column", "PatientID", "none")
    assert code == 0, error
    assert "split by image: a patient may be on both sides (source b)\n" in printed
    code, printed, error = call(main, *words, "--overwrite")
    assert code == 0, error
    assert "split by image" not in printed
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *("train_a.csv", "holdout_a.csv", "train_b.csv", "holdout_b.csv")
    }
    for name, patients in (("a", 60), ("b", 30)):
        train, held = (
            pd.read_csv(tmp_path / "new" / f"{part}_{name}.csv") for part in ("train", "holdout")
        )
        assert len(train) + len(held) == 3 * patients
        assert not {*train["PatientID"]} & {*held["PatientID"]}
        assert abs(len(held) - 0.6 * patients) <= 6


def test_classes_that_cannot_be_on_both_sides(tmp_path: Path, call: Call) -> None:
    frame = many_patients(6).assign(Once=0, Never=0)
    frame.loc[0, "Once"] = 1
    frame.to_csv(tmp_path / "t.csv", index=False)
    words = ["--train_csv", tmp_path / "t.csv", "--output", tmp_path / "new"]
    code, out, error = call(main, *words, "--share", 0.5)
    assert code == 0, error
    assert "held-out part has no positive of Once (1), which cannot be scored there" in out
    frame[["ImageID", "PatientID", "Once"]].to_csv(tmp_path / "t.csv", index=False)
    code, _, error = call(main, *words, "--share", 0.5, "--overwrite")
    assert code == 2
    assert "part would have no positive of any label: give another --seed or --share" in error
    # what was there before is still whole
    assert len(read_both(tmp_path / "new")[0]) == 9


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--share", "0"], "--share must be above 0, not 0.0"),
        (["--share", "1"], "--share must be below 1, not 1.0"),
        (["--share", "-.5"], "--share must be above 0"),
        (["--share", ".01"], "is 1/100 of the patients and needs at least 100 patients, not 60"),
        (["--patient_column", "One"], "is 1/5 of the patients and needs at least 5 patients"),
        (["--output", "t.csv"], "it is a folder, or lies below a file"),
        (["--train_dir", "a", "b"], "--train_dir has 2 values and --train_csv 1"),
        ([*OF_STUDIES, "--share", ".5"], "has a row per study"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    many_patients().assign(One="only").to_csv("t.csv", index=False)
    code, _, error = call(main, "--train_csv", "t.csv", "--patient_column", "PatientID", *words)
    assert (code, sentence in error) == (2, True), error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_csv_that_changes_while_it_is_read(tmp_path: Path) -> None:
    many_patients(2).to_csv(tmp_path / "t.csv", index=False)
    new = tmp_path / "train.csv", tmp_path / "holdout.csv"
    assert write_rows(tmp_path / "t.csv", "ImageID", {"000.png": True}, *new) == 5
    with pytest.raises(UserError, match=r"t\.csv was changed while it was read"):
        write_rows(tmp_path / "t.csv", "ImageID", {"000.png": True, "x.png": False}, *new)


def test_the_way_from_training_to_the_score(
    phantom: Path, tmp_path: Path, call: Call, train: Train, infer: Call
) -> None:
    data = tmp_path / "data"
    words = ["--train_csv", phantom / "train.csv", "--train_dir", phantom / "images"]
    assert call(main, *words, "--share", 0.3, "--output", data)[0] == 0
    (data / "images").symlink_to(phantom / "images")
    out, held, predicted = tmp_path / "out", data / "holdout.csv", tmp_path / "p.csv"
    code, _, error = train(*flags(data, out, "--epochs", 1))
    assert code == 0, error
    weights = sorted(out.glob(f"{MODEL}_fold?.safetensors"))
    images = ["--test_csv", held, "--image_dir", data / "images"]
    code, _, error = infer("--checkpoints", *weights, *images, "--output", predicted)
    assert code == 0, error
    assert pd.read_csv(predicted)["ImageID"].tolist() == read_both(data)[1]["ImageID"].tolist()
    labels = ["--predictions", predicted, "--labels", held]
    for command, more in (
        (evaluate, [*labels, "--train_csv", data / "train.csv"]),
        (calibrate, [*labels, "--folds", 2, "--output", tmp_path / "calibration.json"]),
        (choose, ["--runs", out, "--labels", data / "train.csv", "--output", tmp_path / "e.json"]),
        (explain, ["--checkpoints", weights[0], *images, "--classes", "Effusion"]),
    ):
        words = ["--output", tmp_path / "maps"] if command is explain else []
        code, _, error = call(command, *more, *words)
        assert code == 0, (command, error)
