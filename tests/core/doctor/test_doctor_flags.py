"""The doctor's command line: its flags, and --config of any method."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from core.config.values import flat
from core.doctor import environment
from core.doctor.__main__ import main
from core.doctor.config import Config, read_settings
from tests.conftest import Call
from tests.helpers.doctor import ROWS, data, listed, marked, sound_machine
from tests.helpers.training.small_run import METHODS, module

__all__ = ["data", "sound_machine"]

# an interface: a name that goes or changes breaks somebody's script
FLAGS = "train_csv train_dir val_csv source official_split views readers label_map labels"
FLAGS += " image_column patient_column study_column view_column uncertain blank anonymous"
FLAGS += " soft_labels config test_csv test_dir folds seed full num_workers run checkpoint out_dir"


def test_flags() -> None:
    assert set(flat(Config())) == set(FLAGS.split())


@pytest.mark.parametrize("method", METHODS)
def test_settings_of_every_method_are_taken(method: str, tmp_path: Path) -> None:
    settings = flat(module(method, "config").PRESETS["small"]())
    del settings["config"], settings["overwrite"]
    (tmp_path / "c.json").write_text(json.dumps(settings))
    expected = {name: value for name, value in settings.items() if name in FLAGS.split()}
    assert read_settings(tmp_path / "c.json") == expected
    assert {"train_csv", "folds", "seed", "num_workers", "out_dir"} <= set(expected)


def test_flags_take_precedence_over_a_file(call: Call, data: Path) -> None:
    own: dict[str, Any] = {"train_csv": str(data / "train.csv"), "train-dir": str(data / "images")}
    own |= {"num_workers": 0, "csra_heads": 4, "test_csv": str(data / "train.csv")}
    (data / "c.json").write_text(json.dumps(own))
    code, out, _ = call(main, "--config", data / "c.json")
    assert code == 1
    # as standard_head divides on a CPU unless it is given otherwise
    assert re.search(r"^ +fold +1 +2 +3 +deviation", out, re.MULTILINE)
    assert f"{ROWS} images of the test found in --train_csv" in marked(listed(out), "✗")
    _, out, _ = call(main, "--config", data / "c.json", "--folds", 2)
    assert re.search(r"^ +fold +1 +2 +deviation", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--config", '{"folds": 1}'), "--folds must be at least 2, not 1"),
        (("--config", '{"csv": "x", "epochs": 3}'), "has no data, folds or --out_dir"),
        (("--test_dir", "x"), "--test_csv and --test_dir are compared with --train_csv"),
        (("--num_workers", -1), "--num_workers must be at least 0"),
        (("--method", "x"), "--method"),
    ],
)
def test_a_wrong_flag_or_file_ends_with_2(
    call: Call, tmp_path: Path, flags: tuple, sentence: str
) -> None:
    name, value = flags
    if name == "--config":
        (tmp_path / "c.json").write_text(value)
        value = tmp_path / "c.json"
    code, out, error = call(main, name, value)
    assert (code, "✓" in out, sentence in error) == (2, False, True)


@pytest.mark.parametrize("preset", ["paper", "small"])
def test_usual_sizes_are_those_of_the_presets(monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    """Of standard_head, the method that is named first everywhere."""
    monkeypatch.setattr(environment, "preset_for_this_machine", lambda: preset)
    config = module("standard_head", "config").PRESETS[preset]()
    usual, folds = environment.default_settings()
    sizes = config.loader.img_size, config.loader.batch_size
    assert (usual.img_size, usual.batch_size, folds) == (*sizes, config.split.folds)
