"""Precedence of flags, JSON file and preset; how a command ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from core.config.command_line import parse, run
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.training.small_run import METHODS, ROOT, module, settings

FromJson = Callable[..., dict[str, Any]]


@pytest.fixture
def from_json(tmp_path: Path) -> FromJson:
    """Settings of a JSON file and flags."""

    def read(content: object, *arguments: str, auto: str | None = None) -> dict[str, Any]:
        path = tmp_path / "settings.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return settings("--config", str(path), *arguments, auto=auto)

    return read


def test_preset_then_file_then_flag(from_json: FromJson) -> None:
    assert settings()["folds"] == 5
    assert settings("--preset", "small")["folds"] == 3
    assert settings("--folds", "4", "--preset", "small")["folds"] == 4
    chosen = from_json({"preset": "small", "folds": 6, "epochs": 8}, "--epochs", "9")
    # of the preset, of the file over it, of the flag over both
    assert (chosen["img_size"], chosen["folds"], chosen["epochs"]) == (96, 6, 9)
    chosen = from_json({"ema": False, "run_folds": [1, 2]}, "--ema", "--run-folds", "3")
    assert (chosen["ema"], chosen["run_folds"]) == (True, [3])
    # names and lists of older files
    chosen = from_json({"train-csv": "a.csv", "val_csv": None})
    assert (chosen["train_csv"], chosen["val_csv"]) == (["a.csv"], [])


@pytest.mark.parametrize(
    "content",
    [
        {"ema": False, "run_folds": [1, 3], "patience": None, "val_csv": [], "num_workers": "auto"},
        {"val_csv": ["a folder/validation ä.csv"], "labels": "", "patience": 4, "num_workers": 2},
        {"labels": "-starts with a dash", "backbone_lr": 3e-7, "blank": "zero", "clip_norm": 3},
    ],
)
def test_a_file_holds_every_kind_of_value(from_json: FromJson, content: dict[str, Any]) -> None:
    chosen = from_json(content)
    assert {name: chosen[name] for name in content} == content
    # as a run folder's config.json holds them
    kept = {name: value for name, value in chosen.items() if name not in ("config", "overwrite")}
    again = from_json(kept)
    assert {name: again[name] for name in kept} == kept


@pytest.mark.parametrize(("machine", "img_size"), [("paper", 512), ("small", 96)])
def test_auto_is_resolved_by_the_machine(from_json: FromJson, machine: str, img_size: int) -> None:
    first = settings("--epochs", "4")
    assert (first["preset"], first["img_size"]) == ("auto", 512)
    for chosen in (
        settings("--epochs", "4", auto=machine),
        from_json({"preset": "auto", "epochs": 4}, auto=machine),
    ):
        assert (chosen["preset"], chosen["img_size"], chosen["epochs"]) == (machine, img_size, 4)
    # what is named is not overruled
    assert settings("--preset", "small", auto="paper")["preset"] == "small"


@pytest.mark.parametrize("preset", ["paper", "small"])
def test_a_default_warmup_takes_at_most_half_of_the_epochs(
    preset: str, from_json: FromJson
) -> None:
    flags = ["--preset", preset, "--epochs"]
    for method in METHODS:
        usual = settings("--preset", preset, method=method)["warmup_epochs"]
        for epochs in (1, 3, 40):
            chosen = settings(*flags, str(epochs), method=method)
            assert chosen["warmup_epochs"] == min(usual, epochs / 2)
    assert settings(*flags, "1", "--warmup-epochs", "1")["warmup_epochs"] == 1
    of_file = from_json({"epochs": 1, "preset": preset})
    assert of_file["warmup_epochs"] == settings(*flags, "1")["warmup_epochs"]


def test_a_preset_is_not_asked_for_where_the_answer_cannot_matter() -> None:
    def ask() -> str:
        raise AssertionError("torch would be imported")

    presets = module("csra_db_cas", "config").PRESETS
    for words in ("--help", "--epoch 3", "--epochs x", "--img_size 1", "--loss asll"):
        with pytest.raises((SystemExit, UserError)):
            parse(presets, arguments=words.split(), auto=ask)
    # refused by one preset alone: the machine decides
    flags = ["--drw_epoch", "20"]
    assert parse(presets, arguments=flags, auto=lambda: "paper").loss.drw_epoch == 20
    with pytest.raises(UserError, match="within 1 and the 8 epochs"):
        parse(presets, arguments=flags, auto=lambda: "small")


@pytest.mark.parametrize("method", METHODS)
def test_numbers_of_a_preset_are_of_their_fields_type(method: str) -> None:
    """1 and 1.0 are different texts in a config.json."""
    for preset in module(method, "config").PRESETS.values():
        config = preset()
        for group in fields(config):
            part = getattr(config, group.name)
            hints = get_type_hints(type(part)) if is_dataclass(part) else {}
            for name, hint in hints.items():
                assert hint is not float or type(getattr(part, name)) is float, name


def test_only_rank_0_shows_usage(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    for arguments in (["--epochs", "-1"], ["--epochs", "x"], ["--epoch", "3"], ["--preset"]):
        assert call(lambda words=arguments: settings(*words)) == (2, "", "")


def test_a_user_error_is_one_line_and_a_defect_is_a_traceback(call: Call) -> None:
    def fail(error: Exception) -> None:
        raise error

    assert call(lambda: fail(UserError("no file: make it"))) == (2, "", "error: no file: make it\n")
    # a pipe that is not that of the output
    for defect in (ValueError, BrokenPipeError):
        with pytest.raises(defect):
            run(partial(fail, defect("a defect")))


def test_a_closed_output_pipe_ends_it_silently() -> None:
    # `--help | head`, without a reader from the beginning
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "core.data.pack", "--help"]
    ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_ctrl_c_during_import_ends_it_silently(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "core.data.pack", "--help"]
    path = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"")
