"""Errors of `python -m ensemble.choose`: one line, exit code 2, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.calls import refusal
from tests.helpers.synthetic.runs import MODEL, Command, Runs


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(path)).to_csv(path, index=False)


def setting(path: Path, **values: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


VAL = f"{MODEL}_fold2_val.csv"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda one: shutil.rmtree(one), "is not a run folder"),
        (lambda one: (one / "config.json").write_text("{"), "is not valid JSON"),
        (lambda one: (one / "config.json").write_text("{}"), "missing required field model"),
        (lambda one: setting(one, folds="2"), "Expected int, got str in .folds"),
        (lambda one: setting(one, folds=10**9), "Expected int <= 1000 in .folds"),
        (lambda one: setting(one, model="../two/toy"), "was changed after the run"),
        (lambda one: setting(one, model="other"), "has no finished fold"),
        (
            lambda one: (one / f"{MODEL}_fold2.safetensors").unlink(),
            "fold2.safetensors of a finished fold is missing",
        ),
        (lambda one: (one / VAL).unlink(), "fold2_val.csv of a finished fold is missing"),
        (lambda one: (one / VAL).write_text("ImageID,Mass\na,2\n"), "not a probability"),
        (lambda one: edit(one / VAL, lambda f: f.drop(columns="Mass")), "Mass only in one of"),
        (lambda one: shutil.copy(one / f"{MODEL}_fold1_val.csv", one / VAL), "45 image(s) of"),
        (lambda one: edit(one / VAL, lambda frame: frame.iloc[1:]), "1 image of"),
    ],
)
def test_a_broken_run_is_one_sentence_and_nothing_is_written(
    command: Command, runs: Runs, tmp_path: Path, change: Callable[[Path], object], expected: str
) -> None:
    paths, _, _ = runs
    change(paths[0])
    assert expected in refusal(command, "--runs", *paths)
    assert not [*tmp_path.glob("*e*.json"), *tmp_path.glob("*oof*")]


@pytest.mark.parametrize("gone", ["labels.csv", "map.csv"])
def test_paths_of_another_folder_lead_to_labels(
    command: Command, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    paths, labels, _ = runs
    for path in paths:
        setting(path, train_csv="labels.csv" if gone == "labels.csv" else str(labels))
        setting(path, label_map=None if gone == "labels.csv" else gone)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    error = refusal(command, "--runs", *paths, "--folds", 2)
    assert f"{gone}, the labels of {paths[0]}, is missing" in error
    assert "--labels" in error
    assert not any(elsewhere.iterdir())
    assert command("--runs", *paths, "--folds", 2, "--labels", labels)[0] == 0


def test_flags_that_cannot_be_meant(command: Command, runs: Runs, tmp_path: Path) -> None:
    paths, labels, _ = runs
    config, env, beside = paths[0] / "config.json", paths[0] / "env.json", tmp_path / "b_oof.csv"
    env.write_text("{}")
    shutil.copy(labels, beside)
    read = (config, labels, env, beside)
    before = [path.read_bytes() for path in read]
    detour = paths[1] / ".." / "one" / "config.json"
    good = ["--runs", *paths]
    for arguments, sentence in (
        ([], "no runs are given"),
        (["--runs", paths[0], paths[0] / ".." / "one"], "given more than once"),
        ([*good, "--folds", 60], "only 45 patients"),
        ([*good, "--output", tmp_path / "e.csv"], "must end in .json"),
        ([*good, "--output", detour, "--overwrite"], "would overwrite the input file"),
        ([*good, "--output", env, "--overwrite"], "which --overwrite does not replace"),
        ([*good, "--output", labels / "e.json"], "lies below a file"),
        (
            [*good, "--labels", beside, "--output", tmp_path / "b.json", "--overwrite"],
            "b_oof.csv: choose another path",
        ),
    ):
        assert sentence in refusal(command, *arguments)
        assert not (tmp_path / "e.json").exists()
    assert [path.read_bytes() for path in read] == before
