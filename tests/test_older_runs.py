"""Run folders and checkpoints of earlier versions load, resume, finish and predict the same.

`older_runs/0.1.0` was written by commit 141fae5: of each method a run with a finished first fold
and a second one stopped in the middle of an epoch, and the results of that commit for both.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.models.checkpoint import load_facts
from core.training.resume import is_finished
from tests.conftest import Call, Train
from tests.helpers.training.small_run import MODEL, module
from tests.helpers.training.stopped_training import stopped_at

OLDER = Path(__file__).with_name("older_runs") / "0.1.0"
METHODS = ("standard_head", "csra_db_cas", "label_coupling")
# the flags that the run of each method was started with; label_coupling's came from a JSON file
COMMON = (
    "--preset small --train_csv data/train.csv --train_dir data/images --model test_efficientnet "
    "--no-pretrained --img_size 32 --batch_size 2 --folds 2 --epochs 3 --num_workers 0 "
    "--log_every 1"
)
MORE = {
    "standard_head": "--backbone_lr 1e-4",
    "csra_db_cas": "--warmup_head_epochs 2 --loss_options gamma=1",
    "label_coupling": "--lr 1e-4 --rotation 5 --seed 42 --warmup_epochs 1 --logit_adjust 0",
}


def flags_of(method: str) -> list[str]:
    """The command line that the older run was started with."""
    return f"{COMMON} {MORE[method]} --out_dir {method}".split()


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the older runs, as the working folder: their paths are relative to it."""
    folder = tmp_path / "older"
    shutil.copytree(OLDER, folder)
    monkeypatch.chdir(folder)
    return folder


def assert_close(ours: Path, recorded: Path) -> None:
    """Two tables of predictions agree to 1e-5."""
    first, second = (pd.read_csv(path, index_col="ImageID") for path in (ours, recorded))
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-5)


def assert_finished(folder: Path, method: str) -> None:
    """The run in `folder` ended as the earlier version ended it.

    Another processor differs in the last digit of a loss. csra_db_cas trains its backbone with
    batch norm over two images, which turns that digit into the first one within an epoch: the test
    is then skipped after the epochs before it.
    """
    recorded = OLDER / "finished" / method
    assert_close(folder / f"{MODEL}_fold1_val.csv", recorded / f"{MODEL}_fold1_val.csv")
    ours, theirs = (pd.read_csv(path / "metrics.csv") for path in (folder, recorded))
    keys = ["fold", "epoch", "phase"]
    pd.testing.assert_frame_equal(ours[keys], theirs[keys])
    assert is_finished(folder / f"{MODEL}_fold2.state.safetensors")
    losses, expected = ours["train_loss"], theirs["train_loss"]
    head = theirs["phase"] == "head"
    np.testing.assert_allclose(losses[head], expected[head], rtol=0, atol=1e-4)
    if method == "csra_db_cas" and not losses[head].equals(expected[head]):
        pytest.skip("another processor: the last digits of the head phase differ")
    assert_close(folder / f"{MODEL}_fold2_val.csv", recorded / f"{MODEL}_fold2_val.csv")
    assert ours["best"].tolist() == theirs["best"].tolist()
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_predicts_the_same(method: str, older: Path, infer: Call) -> None:
    output = older / "predictions.csv"
    code, _, error = infer(
        *("--checkpoints", f"{method}/{MODEL}_fold1.safetensors", "--image_dir", "data/images"),
        *("--no-use_tta", "--output", output),
    )
    assert code == 0, error
    assert_close(output, OLDER / "finished" / method / "predictions.csv")


@pytest.mark.fault("a run of an older version is resumed")
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("standard_head", flags_of("standard_head")),
        ("csra_db_cas", ["--config", "csra_db_cas/config.json"]),
        (
            "label_coupling",
            [*flags_of("label_coupling"), "--config", "label_coupling/config.json"],
        ),
        *((method, ["--out_dir", method]) for method in METHODS),
    ],
    ids=["flags", "config", "both", *METHODS],
)
def test_a_run_resumes(
    method: str, words: list[str], older: Path, train_plain: Callable[[str], Train]
) -> None:
    before = json.loads((older / method / "config.json").read_text())
    code, printed, error = train_plain(method)(*words)
    assert code == 0, error
    assert printed.count("finished before") == 1
    assert json.loads((older / method / "config.json").read_text()) == before
    assert_finished(older / method, method)


def test_later_defaults_detection_and_folds_do_not_refuse_an_older_run(
    older: Path, train_plain: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As later versions may have them: another seed, other labels by detection, other folds."""

    def detect_less(*_: Any) -> tuple[tuple[str, ...], list[str]]:
        return ("Mass",), []

    def reverse(targets: np.ndarray, *_: Any) -> np.ndarray:
        return np.arange(len(targets))[::-1] // 6

    small = module("standard_head", "config").PRESETS["small"]

    def with_other_defaults() -> Any:
        config = small()
        config.split.seed, config.optim.head_lr, config.loop.ema_decay = 7, 0.5, 0.1
        return config

    monkeypatch.setitem(module("standard_head", "config").PRESETS, "small", with_other_defaults)
    monkeypatch.setattr("core.data.csv.labels._detect_labels", detect_less)
    monkeypatch.setattr("core.data.splits.prepare.assign_folds", reverse)
    code, _, error = train_plain("standard_head")(*flags_of("standard_head"))
    assert code == 0, error
    assert_finished(older / "standard_head", "standard_head")


def test_a_run_that_began_offline_is_finished_from_random_weights(
    older: Path, train_plain: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 0.1 trained from random weights where it could not fetch any, and kept no record."""
    train, folder = train_plain("standard_head"), older / "standard_head"
    settings = json.loads((folder / "config.json").read_text())
    text = json.dumps(settings | {"pretrained": True}, indent=2)
    (folder / "config.json").write_text(text)
    # other settings have other states
    for path in folder.glob("*.state.safetensors"):
        path.unlink()
    (folder / f"{MODEL}_fold2.safetensors").unlink()
    monkeypatch.setattr("core.models.starting_weights._fetch", lambda _: None)
    code, _, error = train("--out_dir", folder)
    assert code == 2
    assert "cannot be downloaded" in error
    code, printed, error = train("--out_dir", folder, "--no-pretrained")
    assert code == 0, error
    assert "no record of the starting weights" in printed
    assert json.loads((folder / "env.json").read_text())["starting_weights"] is None
    assert load_facts(folder / f"{MODEL}_fold2.safetensors")["starting_weights"] is None
    assert (folder / "config.json").read_text() == text
    # nothing else is another setting by it
    code, _, error = train("--out_dir", folder, "--no-pretrained", "--weight_decay", 0.5)
    assert "weight_decay" in error
    assert "pretrained (" not in error


@pytest.mark.parametrize(
    ("method", "arguments", "sentence"),
    [
        ("standard_head", ["--epochs", "2"], "differs in epochs (3 there, 2 now)"),
        ("standard_head", ["--warmup_epochs", "5"], "--warmup_epochs must lie within 0 and 3, not"),
        ("standard_head", ["--train_csv", "other.csv"], "differs in train_csv"),
        ("standard_head", ["--labels", "Mass"], "differs in labels ( there, Mass now)"),
        ("csra_db_cas", [], "there is no setting 'drop_rate'"),
    ],
)
def test_a_flag_that_contradicts_the_run_is_refused(
    method: str,
    arguments: list[str],
    sentence: str,
    older: Path,
    train_plain: Callable[[str], Train],
) -> None:
    shutil.copy("data/train.csv", "other.csv")
    before = {path: path.read_bytes() for path in older.rglob("*") if path.is_file()}
    code, _, error = train_plain(method)(*arguments, "--out_dir", "standard_head")
    assert code == 2
    assert sentence in error
    after = {path: path.read_bytes() for path in older.rglob("*") if path.is_file()}
    assert {path for path in after if path.name != ".lock"} == set(before)
    assert all(after[path] == content for path, content in before.items())


def test_a_run_without_predictions_resumes_by_the_names_of_its_labels(
    older: Path, train_plain: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its first epoch by a version that detects other labels."""
    train = train_plain("standard_head")
    words = [*COMMON.split(), "--out_dir", "early"]
    stopped_at(train, 2, *words)
    environment = json.loads(Path("early/env.json").read_text())
    assert environment.pop("labels") == ["Effusion", "Mass"]
    Path("early/env.json").write_text(json.dumps(environment))
    monkeypatch.setattr("core.data.csv.labels._detect_labels", lambda *_: (("Mass",), []))
    code, _, error = train("--out_dir", "early")
    assert code == 2
    assert "differs in the labels" in error
    assert "name its labels by --labels" in error
    code, _, error = train("--out_dir", "early", "--labels", "Effusion,Mass")
    assert code == 0, error


def test_a_resume_from_another_folder_names_what_is_not_found(
    older: Path, train_plain: Callable[[str], Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(older / "data" / "images")
    code, _, error = train_plain("standard_head")("--out_dir", older / "standard_head")
    assert code == 2
    assert "there is no file data/train.csv below" in error
    assert "where the training was started" in error


@pytest.mark.parametrize("fold", ["9" * 25, "-5", "x", "3", None])
def test_folds_that_are_not_the_runs_are_computed_again(
    fold: str | None, older: Path, train_plain: Callable[[str], Train]
) -> None:
    """Those of a finished fold: no fold's number, another one's, or no file."""
    folds = older / "csra_db_cas" / "folds.csv"
    recorded = folds.read_text()
    folds.unlink()
    if fold:
        folds.write_text(recorded.replace(",1\n", f",{fold}\n", 1))
    code, _, error = train_plain("csra_db_cas")("--out_dir", "csra_db_cas", "--run_folds", 1)
    assert code == 0, error
    assert folds.read_text() == recorded
