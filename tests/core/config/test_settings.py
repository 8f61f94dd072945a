"""Precedence of flags, JSON file and preset; how a command ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
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


def test_underscores_and_dashes_are_equal() -> None:
    assert settings("--batch-size", "7") == settings("--batch_size", "7")
    assert settings("--batch_size=7")["batch_size"] == 7


def test_preset_then_file_then_flag(from_json: FromJson) -> None:
    assert settings()["folds"] == 5
    assert settings("--preset", "small")["folds"] == 3
    assert settings("--folds", "4", "--preset", "small")["folds"] == 4
    chosen = from_json({"preset": "small", "folds": 6, "epochs": 8}, "--epochs", "9")
    # of the preset, of the file over it, of the flag over both
    assert (chosen["img_size"], chosen["folds"], chosen["epochs"]) == (96, 6, 9)


def test_flags_win_over_the_file(from_json: FromJson) -> None:
    content = {"ema": False, "tta": True, "run_folds": [1, 2], "preset": "small", "labels": "A,B"}
    flags = ["--ema", "--no-tta", "--run_folds", "3", "--preset", "paper", "--labels", "C"]
    chosen = from_json(content, *flags)
    expected = {"ema": True, "tta": False, "run_folds": [3], "preset": "paper", "labels": "C"}
    assert {name: chosen[name] for name in expected} == expected
    assert chosen["folds"] == 5


@pytest.mark.parametrize(
    "content",
    [
        {"ema": False, "run_folds": [1, 3], "patience": None, "val_csv": [], "num_workers": "auto"},
        {"grad_checkpointing": True, "run_folds": [], "patience": 4, "num_workers": 2},
        {"image_column": "Image Index", "val_csv": ["a folder/validation ä.csv"], "labels": ""},
        {"train_csv": ["a.csv", "b.csv"], "label_map": None, "labels": "Pleural Thickening,Hernia"},
        {"labels": "-starts with a dash", "backbone_lr": 3e-7, "blank": "zero", "drw_epoch": None},
        {"loss_options": ["gamma_neg=2.0", "margin=0.1"], "clip_norm": 3},
    ],
)
def test_a_file_holds_every_kind_of_value(from_json: FromJson, content: dict[str, Any]) -> None:
    chosen = from_json(content)
    assert {name: chosen[name] for name in content} == content
    # as a run folder's config.json holds them
    kept = {name: value for name, value in chosen.items() if name not in ("config", "overwrite")}
    again = from_json(kept)
    assert {name: again[name] for name in kept} == kept


def test_names_and_lists_of_older_files(from_json: FromJson) -> None:
    chosen = from_json({"train-csv": "a.csv", "val_csv": None})
    assert (chosen["train_csv"], chosen["val_csv"]) == (["a.csv"], [])


@pytest.mark.parametrize(("machine", "img_size"), [("paper", 512), ("small", 96)])
def test_auto_is_resolved_by_the_machine(from_json: FromJson, machine: str, img_size: int) -> None:
    first = settings("--epochs", "4")
    assert (first["preset"], first["img_size"]) == ("auto", 512)
    for chosen in (
        settings("--epochs", "4", auto=machine),
        settings("--epochs", "4", "--preset", "auto", auto=machine),
        from_json({"preset": "auto", "epochs": 4}, auto=machine),
    ):
        assert (chosen["preset"], chosen["img_size"], chosen["epochs"]) == (machine, img_size, 4)
    # what is named is not overruled
    assert settings("--preset", "small", auto="paper")["preset"] == "small"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", ["paper", "small"])
@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 7, 40])
def test_a_default_warmup_takes_at_most_half_of_the_epochs(
    method: str, preset: str, epochs: int
) -> None:
    usual = settings("--preset", preset, method=method)["warmup_epochs"]
    chosen = settings("--preset", preset, "--epochs", str(epochs), method=method)
    assert chosen["warmup_epochs"] == min(usual, epochs / 2)
    given = settings(
        "--preset", preset, f"--epochs={epochs}", "--warmup-epochs", "1", method=method
    )
    assert given["warmup_epochs"] == 1


def test_a_files_epochs_shorten_a_default_warmup_too(
    from_json: FromJson,
) -> None:
    assert from_json({"epochs": 1, "preset": "small"})["warmup_epochs"] == 0.5
    assert from_json({"epochs": 1, "warmup_epochs": 1, "preset": "small"})["warmup_epochs"] == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epochs", range(1, 5))
def test_few_epochs_without_a_preset_are_accepted(method: str, epochs: int) -> None:
    """As a bare command on a CPU: the preset is decided before anything is judged."""
    presets = module(method, "config").PRESETS
    config = parse(presets, arguments=["--epochs", str(epochs)], auto=lambda: "small")
    assert (config.preset, config.optim.epochs) == ("small", epochs)
    assert config.optim.warmup_epochs <= epochs


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
    with pytest.raises(UserError, match="within 1 and the 16 epochs"):
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


# --- how a command ends ------------------------------------------------------------------------


def test_only_rank_0_shows_usage(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    for arguments in (["--epochs", "0"], ["--epochs", "x"], ["--epoch", "3"], ["--preset"]):
        assert call(lambda words=arguments: settings(*words)) == (2, "", "")


def _fail() -> None:
    raise UserError("data/train.csv is not there: make it")


def test_an_error_of_the_user_is_one_line_of_the_first_rank(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(_fail) == (2, "", "error: data/train.csv is not there: make it\n")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert call(_fail) == (2, "", "")


def test_a_defect_is_no_error_of_the_user() -> None:
    def defect() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        run(defect)


def test_output_that_nobody_reads_ends_it_in_silence() -> None:
    # `--help | head`, without a reader from the beginning
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "core.data.pack", "--help"]
    ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_another_broken_pipe_is_a_defect(capfd: pytest.CaptureFixture[str]) -> None:
    def defect() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(defect)


def test_ctrl_c_while_it_is_imported_ends_it_in_silence(tmp_path: Path) -> None:
    (tmp_path / "tyro.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "core.data.pack", "--help"]
    path = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"")
