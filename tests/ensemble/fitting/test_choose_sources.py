"""`python -m ensemble.choose` on runs with labels of several CSVs, or of a part of one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble.calibrate import main as calibrate
from tests.helpers.calls import output_of, refusal
from tests.helpers.synthetic.runs import IMAGES, Command, guesses, labels_of, make_run

JOINT = {"Effusion": "Pleural Effusion", "Mass": "Mass", "No_Finding": "Normal"}


def two_sources(folder: Path) -> tuple[list[Path], pd.DataFrame]:
    """CSVs of 60 and 30 images, the second without Mass; and all labels by their joint names."""
    frame = labels_of()
    first, second = frame.iloc[:60], frame.iloc[60:].drop(columns="Mass")
    # the same names of images and patients in both
    second = second.assign(
        ImageID=first["ImageID"][:30].to_numpy(), PatientID=first["PatientID"][:30].to_numpy()
    )
    csvs = [folder / "nih.csv", folder / "own.csv"]
    first.to_csv(csvs[0], index=False)
    second.rename(columns={"No_Finding": "Normal"}).to_csv(csvs[1], index=False)
    parts = [
        part.assign(ImageID=f"{name}/" + part["ImageID"], PatientID=f"{name}/" + part["PatientID"])
        for name, part in (("nih", first), ("own", second))
    ]
    joint = frame.assign(**pd.concat(parts)[["ImageID", "PatientID"]]).rename(columns=JOINT)
    joint["Mass"] = joint["Mass"].where(np.arange(IMAGES) < 60)
    return csvs, joint


def runs_of(folder: Path, joint: pd.DataFrame, **settings: Any) -> list[Path]:
    frame = labels_of()
    paths = [folder / "one", folder / "two"]
    for seed, path in enumerate(paths):
        guessed = (
            guesses(frame, 2, seed).set_axis(joint["ImageID"].to_numpy()).rename(columns=JOINT)
        )
        make_run(path, Path("nowhere.csv"), guessed, 2, seed, **settings)
    return paths


def test_labels_of_two_sources_are_joined_as_the_runs_did(
    command: Command, call: Command, tmp_path: Path
) -> None:
    csvs, joint = two_sources(tmp_path)
    settings = {"train_csv": [str(csv) for csv in csvs], "val_csv": []}
    paths = runs_of(tmp_path, joint, **settings)
    out = tmp_path / "e.json"
    assert "90 images, 45 patients, 3 classes" in output_of(command, "--runs", *paths)
    written = pd.read_csv(tmp_path / "e_labels.csv")
    classes = [str(name) for name in written if name in JOINT.values()]
    assert sorted(classes) == sorted(JOINT.values())
    expected = joint.set_index("ImageID").loc[written["ImageID"]]
    np.testing.assert_array_equal(written[classes], expected[classes])
    assert written["PatientID"].tolist() == expected["PatientID"].tolist()
    oof = pd.read_csv(tmp_path / "e_oof.csv")
    assert oof["ImageID"].tolist() == written["ImageID"].tolist()
    assert json.loads(out.read_text())["made_from"]["labels"] == f"{csvs[0]}, {csvs[1]}"
    # it is what the next command finds
    flags = ["--predictions", tmp_path / "e_oof.csv", "--folds", 2, "--output", tmp_path / "c.json"]
    assert "90 images, 45 patients, 3 classes" in output_of(call, calibrate, *flags)
    # and is not replaced unasked
    out.unlink()
    (tmp_path / "e_oof.csv").unlink()
    assert "e_labels.csv exists" in refusal(command, "--runs", *paths)


def test_a_patient_column_of_each_csv(command: Command, tmp_path: Path) -> None:
    csvs, joint = two_sources(tmp_path)
    second = pd.read_csv(csvs[1]).rename(columns={"PatientID": "Who"})
    second.to_csv(csvs[1], index=False)
    settings = {"train_csv": [str(csv) for csv in csvs], "patient_column": ["", "Who"]}
    paths = runs_of(tmp_path, joint, **settings)
    assert "90 images, 45 patients, 3 classes" in output_of(command, "--runs", *paths)
    joint.to_csv(tmp_path / "joint.csv", index=False)
    flags = ["--runs", *paths, "--labels", tmp_path / "joint.csv", "--overwrite"]
    assert "trained with one --patient_column for each" in refusal(command, *flags)
    assert "90 images" in output_of(command, *flags, "--patient_column", "PatientID")


def test_runs_with_other_labels_are_reported(command: Command, tmp_path: Path) -> None:
    csvs, joint = two_sources(tmp_path)
    settings: dict[str, Any] = {"train_csv": [str(csv) for csv in csvs], "val_csv": []}
    paths = runs_of(tmp_path, joint, **settings)
    config = paths[1] / "config.json"
    for other, sentence in (
        ({"views": "frontal"}, "was trained with --views frontal and"),
        ({"label_map": str(csvs[0])}, "was trained with --label_map"),
        (
            {"train_csv": settings["train_csv"][::-1]},
            "give the file to score against with --labels",
        ),
        ({"train_csv": [1]}, "Expected str, got int in .train_csv[0]"),
        ({"source": ["nih\0", "own"]}, "was changed after the run"),
        ({"source": "nih"}, "Expected array, got str in .source"),
    ):
        config.write_text(json.dumps(json.loads((paths[0] / "config.json").read_text()) | other))
        assert sentence in refusal(command, "--runs", *paths)
    # one file of all labels by the names of the predictions
    config.write_text((paths[0] / "config.json").read_text())
    joint.to_csv(tmp_path / "all.csv", index=False)
    given = ["--labels", tmp_path / "all.csv"]
    assert f"labels       {tmp_path}/e_labels.csv" in output_of(command, "--runs", *paths, *given)
