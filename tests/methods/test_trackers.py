"""Trackers of a training: what they receive, and that they never end one."""

import getpass
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.trackers.tensorboard import TensorBoardTracker
from core.trackers.trackers import Trackers
from tests.conftest import Once, Train
from tests.helpers.training.small_run import MODEL, flags
from tests.helpers.training.stopped_training import stopped_at
from tests.helpers.training.tracked import mlflow_runs, wandb_runs

ALL = ("--logger", "tensorboard", "wandb", "mlflow")
FOLDS = ("fold1", "fold2")
INSTALL = "pip install -c constraints.txt -e"


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An environment that sends nothing, with a proxy that would see it if something were sent."""
    for name in ("WANDB_DIR", "WANDB_API_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, address)
        yield proxy


@pytest.fixture
def tracked(phantom: Path, train: Train, once: Once, network: socket.socket) -> Path:
    """A finished run with all trackers."""

    def make(folder: Path) -> None:
        code, printed, error = train(*flags(phantom, folder / "out", *ALL))
        assert code == 0, error
        assert f"--logger wandb: offline, in {folder / 'out' / 'wandb'}" in printed
        assert "Warning: --logger" not in printed
        with pytest.raises(BlockingIOError):
            network.accept()

    return once("tracked", make) / "out"


def numbers_of(out: Path) -> dict[str, pd.DataFrame]:
    """Every scalar of metrics.csv by fold: epochs by name."""
    table = pd.read_csv(out / "metrics.csv")
    folds = table.set_index("epoch").groupby("fold")
    return {f"fold{fold}": rows.drop(columns=["fold", "phase"]) for fold, rows in folds}


def test_each_tracker_has_every_scalar_of_metrics(tracked: Path) -> None:
    client, runs = mlflow_runs(tracked)
    offline = {one.id.partition("-")[2]: one for one in wandb_runs(tracked)}
    for fold, table in numbers_of(tracked).items():
        assert len(table.columns) >= 10
        rows = [row for row in offline[fold].rows if "mAP" in row]
        assert [row["_step"] for row in rows] == table.index.tolist()
        board = EventAccumulator(str(tracked / "tensorboard" / fold)).Reload()
        for name in map(str, table):
            values = table[name]
            np.testing.assert_allclose([row[name] for row in rows], values)
            history = client.get_metric_history(runs[fold].info.run_id, name)
            assert [one.step for one in history] == table.index.tolist()
            np.testing.assert_allclose([one.value for one in history], values)
            scalars = board.Scalars(name)
            np.testing.assert_allclose([one.value for one in scalars], values, rtol=1e-6)
    assert {*runs} == {*offline} == {*FOLDS, "all_folds"}
    parent = runs["all_folds"].info.run_id
    assert all(runs[fold].data.tags["mlflow.parentRunId"] == parent for fold in FOLDS)
    assert all(run.info.status == "FINISHED" for run in runs.values())


def test_settings_curves_pictures_and_the_final_table(tracked: Path, phantom: Path) -> None:
    client, runs = mlflow_runs(tracked)
    offline = {one.id.partition("-")[2]: one for one in wandb_runs(tracked)}
    for part in (*FOLDS, "all_folds"):
        assert offline[part].config["model"] == runs[part].data.params["model"] == MODEL
        assert runs[part].data.params["train_csv"] == str([str(phantom / "train.csv")])
    fold = {one.path for one in client.list_artifacts(runs["fold1"].info.run_id)}
    assert fold == {"precision_recall.csv", "training_images_augmented.png"}
    curves = pd.read_csv(
        client.download_artifacts(runs["fold1"].info.run_id, "precision_recall.csv")
    )
    assert curves["recall"].between(0, 1).all()
    assert {"Effusion", "Normal"} <= set(curves["class"])
    done = runs["all_folds"].info.run_id
    names = {one.path for one in client.list_artifacts(done)}
    assert {"Summary.csv", "Classes.csv", "Reliability.png"} <= names
    classes = pd.read_csv(client.download_artifacts(done, "Classes.csv"))
    assert len(classes) == 15
    keys = {key for row in offline["all_folds"].rows for key in row}
    assert {"Summary/_type", "Classes/_type", "Reliability/_type", "mAP"} <= keys
    assert runs["all_folds"].data.metrics["mAP"] == offline["all_folds"].rows[-1]["mAP"]
    pictures = [key for row in offline["fold1"].rows for key in row if "augmented" in key]
    assert pictures
    board = EventAccumulator(str(tracked / "tensorboard" / "all_folds")).Reload()
    assert "Classes/text_summary" in board.Tags()["tensors"]


def test_anonymous_runs_send_neither_pictures_nor_paths_nor_names(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "secret" / "out"
    words = ["--run_folds", 1, "--anonymous", "--epochs", 1, *ALL]
    assert train(*flags(phantom, out, *words))[0] == 0
    client, runs = mlflow_runs(out)
    shown = [run.text for run in wandb_runs(out)] + [str(run.data) for run in runs.values()]
    assert any("train.csv" in text for text in shown)
    for text in shown:
        for name in (str(phantom), str(tmp_path), socket.gethostname(), getpass.getuser()):
            assert not re.search(rf"\b{re.escape(name)}\b", text), name
    for run in runs.values():
        files = client.list_artifacts(run.info.run_id)
        assert {Path(one.path).suffix for one in files} == {".csv"}
    assert not [*out.glob("wandb/*/files/media/images/*")]
    for folder in out.glob("tensorboard/*"):
        assert EventAccumulator(str(folder)).Reload().Tags()["images"] == []


def test_a_resume_continues_the_runs_without_repeated_epochs(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    command = flags(phantom, out, "--run_folds", 1, "--epochs", 1, "--logger", "wandb", "mlflow")
    # four updates an epoch
    stopped_at(train, 6, *command)
    client, runs = mlflow_runs(out)
    assert runs["fold1"].info.status == "KILLED"
    assert train(*command)[0] == 0
    offline = wandb_runs(out)
    folds = [run for run in offline if run.id.endswith("fold1")]
    assert [row["_step"] for run in folds for row in run.rows] == [1, 2]
    assert len(folds) == 2
    assert folds[0].id == folds[1].id
    # as after a kill between the log of an epoch and its resume state; W&B's server drops steps
    (out / f"{MODEL}_fold1.state.safetensors").unlink()
    assert train(*command)[0] == 0
    _, runs = mlflow_runs(out)
    for part, steps in (("fold1", [1, 2]), ("all_folds", [1])):
        history = client.get_metric_history(runs[part].info.run_id, "mAP")
        assert [one.step for one in history] == steps
        assert runs[part].info.status == "FINISHED"

    assert train(*command, "--overwrite", "--logger", "wandb")[0] == 0
    assert not {run.id for run in offline} & {run.id for run in wandb_runs(out)}
    assert not [*(out / "mlflow").iterdir()]


def test_a_tracker_that_fails_is_off_and_the_training_ends_well(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no\nserver")

    monkeypatch.setattr(TensorBoardTracker, "log_metrics", fail)
    out = tmp_path / "out"
    words = ["--epochs", 1, "--logger", "tensorboard", "wandb"]
    code, printed, error = train(*flags(phantom, out, *words))
    assert (code, error) == (0, "")
    (line,) = [line for line in printed.splitlines() if line.startswith("Warning: --logger")]
    assert "--logger tensorboard failed and is off" in line
    assert line.endswith("ConnectionError: no server")
    for fold, table in numbers_of(out).items():
        (run,) = [run for run in wandb_runs(out) if run.id.endswith(fold)]
        assert [row["mAP"] for row in run.rows] == table["mAP"].tolist()


def test_files_in_the_way_of_all_trackers_end_no_training(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, begin = tmp_path / "out", Trackers.begin

    def block(self: Trackers, fold: int | None) -> None:
        for name in ALL[1:]:
            (out / name).touch()
        begin(self, fold)

    monkeypatch.setattr(Trackers, "begin", block)
    code, printed, error = train(*flags(phantom, out, "--run_folds", 1, "--epochs", 1, *ALL))
    assert (code, error) == (0, "")
    for name in ALL[1:]:
        assert printed.count(f"Warning: --logger {name} failed") == 1
    assert len(pd.read_csv(out / "metrics.csv")) == 2
    assert (out / "report.html").is_file()


def test_the_variables_of_the_tools_are_followed(
    phantom: Path,
    tmp_path: Path,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    network: socket.socket,
) -> None:
    """A server that never answers, and W&B switched off."""
    port = network.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    out = tmp_path / "out"
    words = ["--run_folds", 1, "--epochs", 1]
    code, printed, _ = train(*flags(phantom, out, *words, "--logger", "wandb", "mlflow"))
    assert code == 0
    assert printed.count("Warning: --logger mlflow failed") == 1
    assert "Warning: --logger wandb" not in printed
    assert not (out / "mlflow").exists()
    assert not (out / "wandb").exists()
    network.accept()


def test_nothing_is_sent_unless_named(
    phantom: Path,
    tmp_path: Path,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    network: socket.socket,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{network.getsockname()[1]}")
    # imports would fail
    for name in ("wandb", "mlflow", "tensorboard", *(f"core.trackers.{name}" for name in ALL[1:])):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "out"
    assert train(*flags(phantom, out, "--run_folds", 1, "--epochs", 1))[0] == 0
    assert not {path.name for path in out.iterdir()} & {*ALL}
    with pytest.raises(BlockingIOError):
        network.accept()


def test_a_run_recorded_with_tensorboard_resumes_with_either_name(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    words = flags(phantom, out, "--run_folds", 1, "--epochs", 1)
    assert train(*words, "--tensorboard")[0] == 0
    settings = json.loads((out / "config.json").read_text())
    assert settings["tensorboard"] is True
    # as an older version wrote it
    del settings["logger"]
    (out / "config.json").write_text(json.dumps(settings))
    (out / f"{MODEL}_fold1.state.safetensors").unlink()
    assert train(*words, "--logger", "tensorboard")[0] == 0
    assert len([*(out / "tensorboard" / "fold1").iterdir()]) == 2


@pytest.mark.parametrize(
    ("names", "missing", "sentence"),
    [
        (("wandbb", "mlflow"), None, "there is no --logger 'wandbb': did you mean 'wandb'?"),
        (("wandb", "mlfow"), None, "there is no --logger 'mlfow': did you mean 'mlflow'?"),
        *(
            ((name,), package, f"missing package ({package.split('.')[0]}): {INSTALL} '.[{name}]'")
            for name, package in (
                *(("tensorboard", "tensorboard.compat.proto.event_pb2"), ("wandb", "wandb")),
                *(("mlflow", "mlflow"), ("mlflow", "sqlalchemy")),
            )
        ),
        *(((name,), None, f"{name}: {{out}}/{name} is not a folder; leave") for name in ALL[1:]),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_written(
    names: tuple[str, ...],
    missing: str | None,
    sentence: str,
    phantom: Path,
    tmp_path: Path,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    if "not a folder" in sentence:
        out.mkdir()
        (out / names[0]).touch()
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
        monkeypatch.delitem(sys.modules, f"core.trackers.{names[0]}", raising=False)
    before = [*tmp_path.rglob("*")]
    code, _, error = train(*flags(phantom, out, "--logger", *names))
    assert code == 2
    assert sentence.format(out=out) in error
    assert error.count("\n") == 1
    assert [*tmp_path.rglob("*")] == before
