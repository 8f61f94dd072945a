"""Run without known patients: mark on its files, and resume."""

import shutil
from pathlib import Path

import pandas as pd

from core.models.checkpoint import load_facts
from ensemble.export import main as export
from tests.conftest import Call, Train
from tests.helpers.training.small_run import MODEL, flags

BY_IMAGE = "folds by image: a patient may be on both sides"


def test_folds_by_image(phantom: Path, tmp_path: Path, train: Train, call: Call) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "images").symlink_to(phantom / "images")
    table = pd.read_csv(phantom / "train.csv")
    table.rename(columns={"PatientID": "Fall"}).to_csv(data / "train.csv", index=False)
    command = flags(data, out, "--run_folds", 1, "--epochs", 1, "--warmup_head_epochs", 0)
    code, printed, error = train(*command)
    assert code == 0, error
    assert "--patient_column (perhaps Fall)" in printed
    assert f"\n{BY_IMAGE}\n" in printed
    assert BY_IMAGE in (out / "report.html").read_text()
    checkpoint = out / f"{MODEL}_fold1.safetensors"
    words = ["--checkpoints", checkpoint, "--format", "folder", "--output", tmp_path / "hub"]
    assert call(export, *words)[0] == 0
    assert BY_IMAGE in (tmp_path / "hub" / "README.md").read_text()
    # as a later version does that knows more names
    table.rename(columns={"PatientID": "MRN"}).to_csv(data / "train.csv", index=False)
    folds = (out / "folds.csv").read_bytes()
    code, printed, error = train(*command)
    assert code == 0, error
    assert "finished before" in printed
    assert f"Warning: the run in {out} was begun with {BY_IMAGE} ({data}/train.csv)." in printed
    assert (out / "folds.csv").read_bytes() == folds
    shutil.rmtree(out)
    code, printed, error = train(*command)
    assert code == 0, error
    assert BY_IMAGE not in printed + (out / "report.html").read_text()
    assert load_facts(checkpoint)["by_image"] == ""


def test_patients_of_the_paths_stay_where_a_column_is_known_since(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    table = pd.read_csv(phantom / "train.csv")
    people = table.pop("PatientID")
    names = list(map(str, table["ImageID"]))
    numbers = pd.factorize(people)[0].tolist()
    table["ImageID"] = [f"patient{n:05}/{name}" for n, name in zip(numbers, names, strict=True)]
    for name, new in zip(names, table["ImageID"], strict=True):
        (data / "images" / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(phantom / "images" / name, data / "images" / new)
    table.to_csv(data / "train.csv", index=False)
    command = flags(data, out, "--run_folds", 1, "--epochs", 1, "--warmup_head_epochs", 0)
    code, printed, error = train(*command)
    assert code == 0, error
    assert "Patients are read from the image paths" in printed
    folds = (out / "folds.csv").read_bytes()
    for mrn in (people, people.where(people.index > 0)):
        table.assign(MRN=mrn).to_csv(data / "train.csv", index=False)
        code, printed, error = train(*command)
        assert code == 0, error
        assert f"Patients are those of the run in {out}" in printed
        assert "finished before" in printed
        assert (out / "folds.csv").read_bytes() == folds
    # other labels are another run as before
    table.assign(MRN=people, Mass=1 - table["Mass"]).to_csv(data / "train.csv", index=False)
    code, _, error = train(*command)
    assert (code, "differs in the labels" in error) == (2, True)
