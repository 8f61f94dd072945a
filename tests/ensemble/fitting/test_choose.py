"""`python -m ensemble.choose` on run folders made by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from core.config.values import flat
from core.data.tables import read_table
from core.data.tables.labels_csv import write_labels
from core.runs.folder import RunFolder
from ensemble.choose import Config
from ensemble.evaluate import main as evaluate
from ensemble.predict.ensemble_json import read_recipe
from tests.helpers.calls import output_of, refusal
from tests.helpers.synthetic.runs import MODEL, NAMES, Command, Runs, guesses, labels_of, make_run


def test_weights_scores_and_files(command: Command, runs: Runs, tmp_path: Path) -> None:
    paths, labels, guessed = runs
    out = tmp_path / "made" / "e.json"
    printed = output_of(command, "--runs", *paths, "--folds", 3, "--output", out)
    document = json.loads(out.read_text())
    assert sorted(document["classes"]) == sorted(NAMES)
    members = document["members"]
    assert [member["name"] for member in members] == ["one", "two"]
    expected = [f"../one/{MODEL}_fold{fold}.safetensors" for fold in (1, 2)]
    assert members[0]["checkpoints"] == expected
    weights = [member["weight"] for member in members]
    assert sum(weights) == pytest.approx(1)

    # the blend, image by image and class by name, whatever the order of files and columns
    truth = pd.read_csv(labels, index_col="ImageID")
    oof = pd.read_csv(tmp_path / "made" / "e_oof.csv", index_col="ImageID")
    assert list(oof.index) == list(truth.index)
    blend = weights[0] * guessed[0] + weights[1] * guessed[1]
    np.testing.assert_allclose(oof[NAMES], blend.loc[truth.index], rtol=1e-7)

    # scores against scikit-learn on the tables as they were made
    made_from = document["made_from"]
    strategies, chosen = made_from["strategies"], made_from["strategy"]
    tables = [one.loc[truth.index] for one in (*guessed, guessed[0] + guessed[1])]
    *alone, mean = [
        np.mean([average_precision_score(truth[name], one[name]) for name in NAMES])
        for one in tables
    ]
    assert strategies["single best"]["own_rows"]["mAP"] == pytest.approx(max(alone))
    assert strategies["single best"]["weights"] == list(np.eye(2)[int(np.argmax(alone))])
    assert strategies["equal mean"]["own_rows"]["mAP"] == pytest.approx(mean)
    # nothing is fitted there, so that held-out rows score the same
    assert strategies["equal mean"]["held_out"]["mAP"] == pytest.approx(mean)
    assert strategies[chosen]["weights"] == weights
    gain = strategies["whole procedure"]["over_single_best"]["mAP"]
    held_out = strategies["whole procedure"]["held_out"]["mAP"]
    assert gain == pytest.approx(held_out - strategies["single best"]["held_out"]["mAP"])
    assert f"gains {gain:+.3f} " in printed
    assert f"Chosen: {chosen}" in printed
    assert f"{max(alone):.3f}" in printed
    assert f"ensemble.calibrate --predictions {tmp_path}/made/e_oof.csv\n" in printed
    written = pd.read_csv(tmp_path / "made" / "e_labels.csv", index_col="ImageID")
    pd.testing.assert_frame_equal(written, truth[list(written)])
    shown = printed.split("\n\n", 1)[1].split("\nweights  ")[0]
    assert max(map(len, shown.splitlines())) <= 100

    # and infer reads it: a run's weight is shared by its folds
    checkpoints, shares, _ = read_recipe(out)
    by_run = dict.fromkeys(("one", "two"), 0.0)
    for checkpoint, share in zip(checkpoints, shares, strict=True):
        assert checkpoint.is_file()
        by_run[checkpoint.resolve().parent.name] += share
    assert list(by_run.values()) == pytest.approx(weights)


def test_the_same_call_again_gives_the_same_files(
    command: Command, runs: Runs, tmp_path: Path
) -> None:
    out, oof = tmp_path / "e.json", tmp_path / "e_oof.csv"
    flags = ["--runs", *runs[0], "--monitor", "mAUROC", "--output", out]
    assert command(*flags)[0] == 0
    before = out.read_bytes(), oof.read_bytes()
    assert "e.json exists" in command(*flags)[2]
    assert command(*flags, "--overwrite")[0] == 0
    assert (out.read_bytes(), oof.read_bytes()) == before
    out.unlink()
    assert "e_oof.csv exists" in command(*flags)[2]
    assert not out.exists()


def test_unfinished_folds_and_what_all_have(command: Command, runs: Runs, tmp_path: Path) -> None:
    paths, labels, tables = runs
    RunFolder(paths[1], MODEL).files(3).state.unlink()
    flags = ["--runs", *paths]
    error = refusal(command, *flags)
    assert "30 images are only in one of" in error
    assert "--common" in error
    frame = pd.read_csv(labels)
    frame.drop(columns="Mass").to_csv(tmp_path / "fewer.csv", index=False)
    printed = output_of(command, *flags, "--common", "--labels", tmp_path / "fewer.csv")
    assert f"Only fold 1, 2 of 3 of {paths[1]} is finished and used." in printed
    assert f"1 class of {paths[0]} not in {tmp_path}/fewer.csv: Mass" in printed
    assert "60 images, " in printed
    oof = pd.read_csv(tmp_path / "e_oof.csv", index_col="ImageID")
    assert oof.shape == (60, 2)
    document = json.loads((tmp_path / "e.json").read_text())
    assert [len(member["checkpoints"]) for member in document["members"]] == [2, 2]
    weights = [member["weight"] for member in document["members"]]
    blend = weights[0] * tables[0] + weights[1] * tables[1]
    np.testing.assert_allclose(oof, blend.loc[oof.index, oof.columns], rtol=1e-7)


def with_fold_1_alone(folder: Path, labels: Path, frame: pd.DataFrame, seed: int) -> Path:
    """A run of two folds, divided by this seed, of which the first one is trained."""
    make_run(folder, labels, frame, 2, seed=1)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"seed": seed}))
    RunFolder(folder, MODEL).files(2).state.unlink()
    return folder


def test_runs_of_one_fold_alone_are_merged(command: Command, runs: Runs, tmp_path: Path) -> None:
    _, labels, tables = runs
    paths = [with_fold_1_alone(tmp_path / f"half{n}", labels, tables[n], seed=42) for n in (0, 1)]
    printed = output_of(command, "--runs", *paths)
    half, whole = len(tables[0]) // 2, len(tables[0])
    assert f"{half} of {whole} images are in the trained folds." in printed
    oof = pd.read_csv(tmp_path / "e_oof.csv", index_col="ImageID")
    first = pd.read_csv(RunFolder(paths[0], MODEL).files(1).predictions, index_col="ImageID")
    assert sorted(oof.index) == sorted(first.index)
    # what calibrates them
    written = pd.read_csv(tmp_path / "e_labels.csv", index_col="ImageID")
    assert list(written.index) == list(oof.index)
    other = with_fold_1_alone(tmp_path / "other", labels, tables[1].iloc[::-1], seed=0)
    error = refusal(command, "--runs", paths[0], other, "--output", tmp_path / "f.json")
    assert "other has --folds 2 --seed 0. Only" in error
    assert "half0 has --folds 2 --seed 42. Only" in error
    assert "--common" in error


def test_labels_are_read_as_the_runs_read_them(
    command: Command, runs: Runs, tmp_path: Path
) -> None:
    paths, labels, _ = runs
    frame = pd.read_csv(labels).rename(columns={"PatientID": "Person", "ImageID": "Scan"})
    frame.loc[frame.index < 5, "Mass"] = -1
    # an official split: the labels are those of its own CSV
    frame.to_csv(tmp_path / "val.csv", index=False)
    settings = {"val_csv": str(tmp_path / "val.csv"), "uncertain": "one", "folds": 7}
    settings |= {"image_column": "Scan", "patient_column": "Person"}
    guessed = guesses(labels_of(), 2, 3)
    for name in ("three", "four"):
        make_run(tmp_path / name, labels, guessed, 1, 4, **settings)
    flags = ["--runs", tmp_path / "three", tmp_path / "four", "--folds", 2]
    printed = output_of(command, *flags, "--output", tmp_path / "v.json")
    classes = json.loads((tmp_path / "v.json").read_text())["classes"]
    assert "Only fold" not in printed
    written = pd.read_csv(tmp_path / "v_labels.csv")
    np.testing.assert_array_equal(written[classes], frame[classes].replace(-1, 1))
    assert set(written["PatientID"]) == set(frame["Person"])
    # different runs are reported
    config = tmp_path / "four" / "config.json"
    config.write_text(config.read_text().replace('"one"', '"zero"'))
    assert "give --uncertain to read" in refusal(command, *flags, "--output", tmp_path / "w.json")
    given = ["--uncertain", "ignore", "--output", tmp_path / "w.json"]
    assert command(*flags, *given)[0] == 0
    assert pd.read_csv(tmp_path / "w_labels.csv")[classes].isna().sum().sum() == 5
    other = ["--runs", paths[0], tmp_path / "four", "--output", tmp_path / "x.json"]
    assert "with --labels" in refusal(command, *other)


def test_labels_of_the_runs_themselves(
    command: Command, call: Command, runs: Runs, tmp_path: Path
) -> None:
    paths, labels, _ = runs
    table = read_table(labels, None)
    for path in paths:
        write_labels(path / "labels.csv", table)
    kept = labels.read_bytes()
    labels.unlink()
    flags = ["--runs", *paths, "--folds", 2, "--output"]
    printed = output_of(command, *flags, tmp_path / "e.json")
    assert "has no labels.csv" not in printed
    written = pd.read_csv(tmp_path / "e_labels.csv")
    assert written["ImageID"].tolist() == table.ids
    np.testing.assert_array_equal(written[list(table.class_names)], table.targets)
    # the next commands find them, and those of a run, beside the predictions
    for own, images in ((tmp_path / "e_oof.csv", 90), (paths[0] / f"{MODEL}_fold1_val.csv", 45)):
        output = tmp_path / f"{images}.json"
        printed = output_of(call, evaluate, "--predictions", own, "--output", output)
        assert f"{images} images" in printed
    # of an official split that includes its training images
    part = guesses(labels_of(), 2, 5).iloc[:30]
    make_run(tmp_path / "val", labels, part, 1, 5, val_csv=str(labels))
    write_labels(tmp_path / "val" / "labels.csv", table)
    split = ["--runs", tmp_path / "val", "--folds", 2, "--output", tmp_path / "v.json"]
    assert "\n30 images, " in output_of(command, *split)
    # one with other labels of an image, and one of an earlier version
    table.targets[3, 0] = 1 - table.targets[3, 0]
    write_labels(paths[1] / "labels.csv", table)
    assert "have different labels for 1 images: give the file to score" in refusal(
        command, *flags, tmp_path / "f.json"
    )
    (paths[1] / "labels.csv").unlink()
    assert "is missing (searched from" in refusal(command, *flags, tmp_path / "f.json")
    labels.write_bytes(kept)
    assert f"{paths[1]} is of an earlier version without labels.csv: {labels} is read" in output_of(
        command, *flags, tmp_path / "f.json"
    )


def test_flags_are_an_interface() -> None:
    reading = "uncertain blank image_column patient_column"
    names = f"folders runs labels {reading} common monitor folds seed output overwrite"
    assert " ".join(flat(Config())) == names
