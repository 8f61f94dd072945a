"""The command line: what a flag means, where a setting comes from, and how a mistake is told."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.cli import parse, run
from core.config import flat
from core.errors import UserError
from methods.standard_head.config import PRESETS, Config

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "methods" / "standard_head" / "train.py"

# The command line is an interface: a name that goes or changes breaks somebody's script.
FLAGS = [
    "preset",
    "out_dir",
    "overwrite",
    "config",
    "train_csv",
    "train_dir",
    "val_csv",
    "labels",
    "image_column",
    "patient_column",
    "study_column",
    "view_column",
    "uncertain",
    "blank",
    "folds",
    "run_folds",
    "seed",
    "img_size",
    "batch_size",
    "sampler",
    "epoch_size",
    "num_workers",
    "model",
    "pretrained",
    "weights_file",
    "drop_path_rate",
    "grad_checkpointing",
    "drop_rate",
    "loss",
    "loss_options",
    "pos_weight",
    "logit_adjust",
    "label_smooth",
    "drw_epoch",
    "epochs",
    "warmup_epochs",
    "weight_decay",
    "clip_norm",
    "accumulate",
    "warmup_head_epochs",
    "warmup_head_lr",
    "warmup_head_weight_decay",
    "backbone_lr",
    "head_lr",
    "ema",
    "ema_decay",
    "tta",
    "monitor",
    "patience",
    "amp",
    "compile",
    "log_every",
    "save_minutes",
    "tensorboard",
]
SWITCHES = "overwrite pretrained grad_checkpointing pos_weight ema tta amp compile tensorboard"
# `fabric run` takes these for itself, even behind the script's name
LAUNCHERS = [
    "accelerator",
    "strategy",
    "devices",
    "num_nodes",
    "node_rank",
    "main_address",
    "main_port",
    "precision",
]


def settings(*arguments: str, auto: str | None = None) -> dict[str, Any]:
    """All settings by flag name."""
    return flat(parse(PRESETS, arguments=list(arguments), auto=auto))


@pytest.fixture
def from_json(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a JSON file (its content, or its text) and flags."""

    def read(content: object, *arguments: str, auto: str | None = None) -> dict[str, Any]:
        path = tmp_path / "settings.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return settings("--config", str(path), *arguments, auto=auto)

    return read


# --- the interface -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def help_text() -> subprocess.CompletedProcess[str]:
    """`train.py --help` and, on stderr, every module that it imported."""
    environment = os.environ | {"COLUMNS": "100", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(TRAIN), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def test_the_names_of_all_flags(help_text: subprocess.CompletedProcess[str]) -> None:
    shown = re.findall(r"^\W*--([a-z_]+)", help_text.stdout, flags=re.MULTILINE)
    assert shown == FLAGS
    assert list(settings()) == FLAGS


def test_switches_can_be_switched_off() -> None:
    names = SWITCHES.split()
    for form, expected in (("--{}", True), ("--no-{}", False), ("--no_{}", False)):
        chosen = settings("--loss", "bce", *(form.format(name) for name in names))
        assert {name for name in names if chosen[name] is not expected} == set()


def test_no_flag_belongs_to_the_launcher() -> None:
    assert not set(FLAGS) & set(LAUNCHERS)


def test_help_imports_nothing_heavy(help_text: subprocess.CompletedProcess[str]) -> None:
    assert help_text.returncode == 0
    imported = set(re.findall(r"\| +([\w.]+)$", help_text.stderr, flags=re.MULTILINE))
    assert {"tyro", "core.cli", "methods.standard_head.config"} <= imported
    heavy = {"torch", "timm", "lightning_fabric", "albumentations", "pandas", "sklearn", "cv2"}
    assert not heavy & imported


def test_every_flag_is_explained(help_text: subprocess.CompletedProcess[str]) -> None:
    # a flag's text ends in its default; where there is none before it, the docstring is missing
    entries = re.split(r"^\W*(?=--[a-z_]+)", help_text.stdout, flags=re.MULTILINE)[1:]
    for entry in entries:
        told = re.sub(r"--\w+|\{.*?\}", "", entry.partition("(default")[0])
        assert len(re.findall(r"[a-z]{2,}", told)) >= 2, entry


def test_the_help_says_what_a_mirror_and_an_adjustment_do(
    help_text: subprocess.CompletedProcess[str],
) -> None:
    text = " ".join(re.sub(r"[│\n]", " ", help_text.stdout).split())
    assert "A mirror swaps the patient's left and right" in text
    assert "could not change a class's AP or AUROC" in text


def test_bare_command_is_legal() -> None:
    assert parse(PRESETS, arguments=[]) == Config()


def test_the_paper_preset_is_the_published_recipe() -> None:
    paper = settings("--preset", "paper")
    recorded = {
        "preset": "paper",
        "model": "convnextv2_base",
        "img_size": 512,
        "batch_size": 64,
        "drop_rate": 0.3,
        "warmup_head_epochs": 3,
        "warmup_head_lr": 1e-3,
        "epochs": 30,
        "backbone_lr": 1e-5,
        "head_lr": 1e-4,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "loss": "asl",
        "logit_adjust": 1.0,
        "ema_decay": 0.9999,
    }
    assert {name: paper[name] for name in recorded} == recorded


# --- where a setting comes from ----------------------------------------------------------------


def test_underscores_and_dashes_are_equal() -> None:
    assert settings("--batch-size", "7") == settings("--batch_size", "7")
    assert settings("--batch_size=7")["batch_size"] == 7


def test_preset_then_file_then_flag(from_json: Callable[..., dict[str, Any]]) -> None:
    assert settings()["folds"] == 5
    assert settings("--preset", "small")["folds"] == 3
    assert settings("--folds", "4", "--preset", "small")["folds"] == 4
    chosen = from_json({"preset": "small", "folds": 6, "epochs": 8}, "--epochs", "9")
    # of the preset, of the file over it, of the flag over both
    assert (chosen["img_size"], chosen["folds"], chosen["epochs"]) == (96, 6, 9)


def test_flags_win_over_the_file(from_json: Callable[..., dict[str, Any]]) -> None:
    content = {"ema": False, "tta": True, "run_folds": [1, 2], "preset": "small", "labels": "A,B"}
    flags = ["--ema", "--no-tta", "--run_folds", "3", "--preset", "paper", "--labels", "C"]
    chosen = from_json(content, *flags)
    expected = {"ema": True, "tta": False, "run_folds": [3], "preset": "paper", "labels": "C"}
    assert {name: chosen[name] for name in expected} == expected
    assert chosen["folds"] == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ema", False),
        ("grad_checkpointing", True),
        ("run_folds", [1, 3]),
        ("run_folds", []),
        ("patience", None),
        ("patience", 4),
        ("image_column", "Image Index"),
        ("val_csv", None),
        ("val_csv", "a folder/validation ä.csv"),
        ("labels", "Pleural Thickening,Hernia"),
        ("labels", "-starts with a dash"),
        ("labels", ""),
        ("num_workers", "auto"),
        ("num_workers", 2),
        ("backbone_lr", 3e-7),
        ("blank", "zero"),
        ("loss_options", ["gamma_neg=2.0", "margin=0.1"]),
        ("drw_epoch", None),
    ],
)
def test_a_file_holds_every_kind_of_value(
    from_json: Callable[..., dict[str, Any]], name: str, value: object
) -> None:
    assert from_json({name: value})[name] == value


def test_a_runs_own_settings_give_the_same_run(from_json: Callable[..., dict[str, Any]]) -> None:
    # as a run folder's config.json holds them
    first = settings("--preset", "small", "--val_csv", "v.csv", "--no-ema", "--run_folds", "2")
    kept = {name: value for name, value in first.items() if name not in ("config", "overwrite")}
    second = from_json(kept)
    assert {name: second[name] for name in kept} == kept


@pytest.mark.parametrize(("machine", "img_size"), [("paper", 512), ("small", 96)])
def test_auto_is_resolved_by_the_machine(
    from_json: Callable[..., dict[str, Any]], machine: str, img_size: int
) -> None:
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


# --- mistakes ----------------------------------------------------------------------------------


def test_an_unknown_setting_in_a_file_gives_the_nearest(
    from_json: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(UserError, match=r"settings\.json.*.batchsize.*batch_size"):
        from_json({"batchsize": 3})


def test_files_that_are_no_settings(
    from_json: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is no JSON file"):
        from_json('{"epochs": 3')
    with pytest.raises(UserError, match="must hold one JSON object"):
        from_json([1, 2])
    with pytest.raises(UserError, match=r"nowhere\.json cannot be read: No such file"):
        settings("--config", str(tmp_path / "nowhere.json"))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        settings("--config", str(tmp_path))
    (tmp_path / "latin.json").write_bytes(b'{"labels": "\xe4"}')
    with pytest.raises(UserError, match="is no JSON file"):
        settings("--config", str(tmp_path / "latin.json"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"epochs": "many"}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"epochs": -1}, "epochs"),
        ({"preset": "medium"}, "medium"),
        ({"preset": 3}, "preset"),
        ({"loss": "asll"}, "asll"),
        ({"run_folds": [9]}, "run_folds"),
    ],
)
def test_wrong_values_in_a_file_are_refused_as_flags_are(
    from_json: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    content: dict[str, Any],
    word: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        from_json(content)
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"preset": ["small"]}, "preset cannot be a list"),
        ({"preset": True}, "preset cannot be true or false"),
        ({"epochs": True}, "epochs cannot be true or false"),
        ({"epochs": {"a": 1}}, "epochs cannot be an object"),
        ({"ema": "false"}, "ema must be true or false"),
        ({"model": False}, "model cannot be true or false"),
        ({"labels": ["A", "B"]}, "labels cannot be a list"),
        ({"run_folds": 1}, "run_folds must be a list"),
        ({"loss_options": ["gamma_neg=1", "--overwrite"]}, "loss_options holds something"),
        ({"run_folds": [1, [2]]}, "run_folds holds something"),
        ({"overwrite": True}, "overwrite belongs on the command line"),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_file(
    from_json: Callable[..., dict[str, Any]], content: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=rf"settings\.json: {words}"):
        from_json(content)


REFUSED = """
    --labels A,B,A | --labels names a label twice
    --folds 1 | --folds must be at least 2
    --run_folds 6 | --run_folds counts from 1 to --folds 5
    --run_folds 0 | --run_folds counts from 1
    --run_folds 2 2 | --run_folds names a fold twice
    --seed -1 | --seed must lie within 0 and
    --img_size 16 | --img_size must be at least 32
    --batch_size 1 | --batch_size must be at least 2
    --num_workers -1 | --num_workers must be at least 0
    --drop_path_rate 1.5 | --drop_path_rate must lie within 0 and 1
    --drop_rate 1 | --drop_rate must lie in [0, 1)
    --drop_rate nan | --drop_rate must lie in [0, 1)
    --loss asl --pos_weight | --pos_weight belongs to --loss bce
    --logit_adjust nan | --logit_adjust must be a finite number
    --label_smooth 1 | --label_smooth must lie in [0, 1)
    --label_smooth -0.1 | --label_smooth must lie in [0, 1)
    --drw_epoch 0 | --drw_epoch must lie within 1 and the 33 epochs of the training
    --drw_epoch 34 | --drw_epoch must lie within 1 and the 33 epochs of the training
    --epochs 5 --drw_epoch 9 | within 1 and the 8 epochs of the training
    --loss_options gamma | --loss_options takes NAME=NUMBER, not gamma
    --loss_options gamma=x | --loss_options takes NAME=NUMBER, not gamma=x
    --loss_options gama=2 | --loss_options: there is no constant 'gama': did you mean 'gamma'?
    --loss_options gamma=2 gamma=3 | --loss_options names gamma twice
    --epochs 0 | --epochs must be at least 1
    --warmup_head_epochs -1 | --warmup_head_epochs must be at least 0
    --warmup_epochs 31 | --warmup_epochs must lie within 0 and 30
    --warmup_epochs nan | --warmup_epochs must lie within 0 and 30
    --accumulate 0 | --accumulate must be at least 1
    --warmup_head_lr 0 | --warmup_head_lr must be above 0
    --backbone_lr -1e-5 | --backbone_lr must be above 0
    --head_lr inf | --head_lr must be above 0 and finite
    --clip_norm nan | --clip_norm must be above 0
    --weight_decay -0.1 | --weight_decay must be at least 0
    --ema_decay 1.1 | --ema_decay must lie within 0 and 1
    --patience 0 | --patience must be at least 1
    --log_every 0 | --log_every must be at least 1
    --save_minutes 0 | --save_minutes must be above 0
    --save_minutes inf | --save_minutes must be above 0 and finite
    --epoch 3 | --epochs
    --ema True | Unrecognized options: True
    --preset medium | --preset
    --preset | --preset
    --config | --config
    --devices 2 | Unrecognized options: --devices
"""


@pytest.mark.parametrize("line", [line.strip() for line in REFUSED.strip().splitlines()])
def test_refusals(capsys: pytest.CaptureFixture[str], line: str) -> None:
    arguments, _, sentence = line.partition(" | ")
    with pytest.raises(SystemExit) as ended:
        settings(*arguments.split())
    assert ended.value.code == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in shown
    assert "Traceback" not in shown


def test_only_rank_0_shows_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    for arguments in (["--epochs", "0"], ["--epochs", "x"], ["--epoch", "3"], ["--preset"]):
        with pytest.raises(SystemExit) as ended:
            settings(*arguments)
        assert ended.value.code == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def _fail() -> None:
    raise UserError("data/train.csv is not there: make it")


def test_an_error_of_the_user_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(_fail)
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert shown.err == "error: data/train.csv is not there: make it\n"
    assert shown.out == ""


def test_another_rank_is_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended:
        run(_fail)
    shown = capsys.readouterr()
    assert ended.value.code == 2
    assert (shown.out, shown.err) == ("", "")


def test_a_defect_is_no_error_of_the_user() -> None:
    def defect() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        run(defect)


def test_null_is_refused_where_a_setting_must_have_a_value(
    from_json: Callable[..., dict[str, Any]],
) -> None:
    assert from_json({"val-csv": None})["val_csv"] is None
    with pytest.raises(UserError, match="labels cannot be null"):
        from_json({"labels": None})
