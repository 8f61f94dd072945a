"""Command line of each method: flags, --help and presets."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.config.command_line import parse
from core.runtime.accelerator import has_accelerator
from methods import method_names
from tests.helpers.training.small_run import METHODS, ROOT, module, script, settings

# The command line is an interface: a name that goes or changes breaks somebody's script.
RUN = "preset out_dir overwrite dry_run config"
DATA = "train_csv train_dir val_csv labels soft_labels anonymous"
DATA += " source official_split views readers label_map"
DATA += " image_column patient_column study_column view_column uncertain blank"
SPLIT = "folds run_folds seed"
LOADER = "img_size batch_size sampler sampler_mix sampler_cap epoch_size source_weights num_workers"
BACKBONE = "model pretrained weights_name weights_file init_from mean std patch_size"
BACKBONE += " drop_path_rate grad_checkpointing"
LOSS = "loss loss_options pos_weight logit_adjust label_smooth drw_epoch"
OPTIM = "epochs warmup_epochs weight_decay clip_norm accumulate"
OPTIM += " layer_decay freeze_backbone head_phase head_views"
OPTIM += " retrain_epochs retrain_sampler retrain_lr"
TWO_PHASES = "warmup_head_epochs warmup_head_lr warmup_head_weight_decay backbone_lr head_lr"
LOOP = "ema ema_decay tta monitor patience amp compile log_every save_minutes"
LOOP += " logger tensorboard"
FLAGS = {
    "standard_head": [
        *(RUN, DATA, SPLIT, LOADER, BACKBONE, "drop_rate head", LOSS, OPTIM, TWO_PHASES, LOOP)
    ],
    "csra_db_cas": [
        *(RUN, DATA, SPLIT, LOADER, BACKBONE, "csra_heads csra_lambda csra_scale"),
        *(LOSS, OPTIM, TWO_PHASES, LOOP),
    ],
    "label_coupling": [
        *(RUN, DATA, SPLIT, LOADER, BACKBONE, "drop_rate refiner coupling_alpha"),
        *(LOSS, OPTIM, "lr coupling_lr coupling_l1 couplings_only", LOOP),
        *("test_csv test_dir out_csv ensemble_folds", "rotation color_jitter"),
    ],
}
# the published recipes
CONVNEXT: dict[str, Any] = {
    **{"model": "convnextv2_base", "img_size": 512, "batch_size": 64},
    **{"warmup_head_lr": 1e-3, "weight_decay": 0.05, "clip_norm": 1.0, "ema_decay": 0.9999},
}
PAPER: dict[str, dict[str, Any]] = {
    "standard_head": {
        **CONVNEXT,
        **{"drop_rate": 0.3, "warmup_head_epochs": 3, "epochs": 30},
        **{"backbone_lr": 1e-5, "head_lr": 1e-4, "loss": "asl", "logit_adjust": 1.0},
    },
    "csra_db_cas": {
        **CONVNEXT,
        **{"drop_path_rate": 0.2, "sampler": "class_aware"},
        **{"csra_heads": 1, "csra_lambda": 0.1, "csra_scale": True},
        **{"warmup_head_epochs": 10, "warmup_head_weight_decay": 0.01},
        **{"epochs": 60, "warmup_epochs": 5, "backbone_lr": 1.5e-5, "head_lr": 1.5e-4},
        **{"loss": "distribution_balanced", "logit_adjust": 0.0},
    },
    "label_coupling": {
        **{"model": "seresnext101_32x4d", "img_size": 380, "batch_size": 24},
        **{"folds": 3, "seed": 42, "epochs": 3, "warmup_epochs": 1, "lr": 2e-4},
        **{"weight_decay": 1e-4, "clip_norm": 1.0, "drop_rate": 0.4, "coupling_alpha": 0.3},
        **{"refiner": True, "rotation": 10, "color_jitter": False, "loss": "asl"},
        **{"ema_decay": 0.999, "monitor": "mAUROC", "patience": 3},
        **{"out_csv": "submission.csv", "ensemble_folds": True},
    },
}


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def help_text(method: str) -> subprocess.CompletedProcess[str]:
    """`train.py --help` and, on stderr, every module that it imported."""
    environment = os.environ | {"COLUMNS": "100", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-X", "importtime", script(method), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def names(method: str) -> list[str]:
    return " ".join(FLAGS[method]).split()


def test_every_method_is_among_the_tested() -> None:
    assert sorted(METHODS) == method_names(), "METHODS is in tests/helpers/training/small_run.py"
    assert set(FLAGS) == set(METHODS), "FLAGS lists each method's flags"


def test_the_names_of_all_flags(method: str, help_text: subprocess.CompletedProcess[str]) -> None:
    shown = re.findall(r"^\W --([a-z_0-9]+)", help_text.stdout, flags=re.MULTILINE)
    assert shown == names(method)
    assert list(settings(method=method)) == names(method)


def test_switches_can_be_switched_off(method: str) -> None:
    switches = [name for name, value in settings(method=method).items() if isinstance(value, bool)]
    assert {"overwrite", "pretrained", "ema", "tta", "dry_run"} <= set(switches)
    for form, expected in (("--{}", True), ("--no-{}", False), ("--no_{}", False)):
        given = (form.format(name) for name in switches)
        chosen = settings("--loss", "bce", *given, method=method)
        assert {name for name in switches if chosen[name] is not expected} == set()


def test_help_imports_nothing_heavy(
    method: str, help_text: subprocess.CompletedProcess[str]
) -> None:
    assert help_text.returncode == 0
    imported = set(re.findall(r"\| +([\w.]+)$", help_text.stderr, flags=re.MULTILINE))
    assert {"tyro", "core.config.command_line", f"methods.{method}.config"} <= imported
    heavy = {"torch", "timm", "lightning_fabric", "albumentations", "pandas", "sklearn", "cv2"}
    assert not heavy & imported


def test_every_flag_is_explained(help_text: subprocess.CompletedProcess[str]) -> None:
    # a flag's text ends in its default; where there is none before it, the docstring is missing
    entries = re.split(r"^\W (?=--[a-z_]+)", help_text.stdout, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        explanation = re.sub(r"--\w+|\{.*?\}", "", entry.partition("(default")[0])
        assert len(re.findall(r"[a-z]{2,}", explanation)) >= 2, entry


def test_the_help_text(method: str, help_text: subprocess.CompletedProcess[str]) -> None:
    text = " ".join(re.sub(r"[│\n]", " ", help_text.stdout).split())
    assert "which swaps the patient's left and right" in text
    assert "would not change a class's AP or AUROC" in text
    assert f"python {script(method)} --train_csv train.csv --train_dir images" in text
    assert f"fabric run {script(method)}" in text


@pytest.mark.parametrize(
    ("words", "found", "preset", "other"),
    [
        ("", True, "paper, as an accelerator was found", "small"),
        ("", False, "small, as no accelerator was found", "paper"),
        ("--preset paper", False, "paper", "small"),
        ("--preset small", True, "small", "paper"),
    ],
)
def test_the_help_shows_the_values_of_the_preset_that_it_names(
    words: str,
    found: bool,
    preset: str,
    other: str,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("core.config.command_line.has_accelerator", lambda: found)
    monkeypatch.setenv("COLUMNS", "100")
    presets = module(method, "config").PRESETS
    with pytest.raises(SystemExit):
        parse(presets, arguments=[*words.split(), "--help"], auto=lambda: "", description="A.")
    printed = capsys.readouterr().out
    heading = f"Defaults are those of --preset {preset}; --preset {other} --help shows the others."
    text = " ".join(re.sub(r"[│\n]", " ", printed).split())
    assert heading in text
    config = presets[preset.partition(",")[0]]()
    for flag, value in (
        ("img_size INT", config.loader.img_size),
        ("model STR", config.model.model),
        ("epochs INT", config.optim.epochs),
    ):
        assert re.search(rf" --{flag} [^│]*?\(default: {value}\)", text), flag


def test_a_quick_look_for_an_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("core.runtime.accelerator.metadata.version", lambda _: "2.14.1+cu130")
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "nvidiactl").touch()
    assert not has_accelerator(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_accelerator(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not has_accelerator(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("core.runtime.accelerator.metadata.version", lambda _: "2.14.1+cpu")
    assert not has_accelerator(tmp_path)


def test_a_bare_command_is_valid_and_has_its_own_run_folder(method: str) -> None:
    config = module(method, "config")
    assert parse(config.PRESETS, arguments=[]) == config.Config()
    assert settings(method=method)["out_dir"] == str(Path("outputs") / method)


@pytest.mark.parametrize("published", PAPER)
def test_the_paper_preset_is_the_published_recipe(published: str) -> None:
    paper, recorded = settings("--preset", "paper", method=published), PAPER[published]
    assert {name: paper[name] for name in recorded} == recorded
    assert paper["preset"] == "paper"


def test_all_methods_and_presets_share_one_seed() -> None:
    """So that their folds are the same and their out-of-fold predictions can be merged."""
    seeds = [
        settings("--preset", preset, method=name)["seed"]
        for name in METHODS
        for preset in ("paper", "small")
    ]
    assert set(seeds) == {42}
