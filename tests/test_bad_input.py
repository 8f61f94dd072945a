"""Whatever is wrong with the user's input is one sentence and exit code 2, and nothing is written.

What the table refuses is tested in tests/core/data; here each kind is seen through the command.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import timm
from safetensors.torch import save_file

from tests.conftest import Train
from tests.helpers.faults.launches import TRAIN, Place, RealLaunches
from tests.helpers.training.small_run import flags

Spoil = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that a test may spoil."""
    return Path(shutil.copytree(phantom, tmp_path / "data"))


def refusal(train: Train, data: Path, *more: object) -> str:
    """The one sentence that the command ends with; checks that it wrote nothing."""
    out = data.parent / "out"
    before = sorted(data.rglob("*"))
    code, _, error = train(*flags(data, out, *more))
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not out.exists()
    assert sorted(data.rglob("*")) == before
    return error


def with_column(name: str, cells: list[str]) -> Spoil:
    """The table with these cells at the start of a column."""
    return lambda table: table.assign(
        **{name: (cells + [*table[name]][len(cells) :])[: len(table)]}
    )


# what is done to train.csv, and what the sentence then holds
TABLES: dict[str, tuple[Spoil, list[str]]] = {
    "header only": (lambda table: table[:0], ["no row"]),
    "no label column": (lambda table: table[["ImageID", "PatientID"]], ["label"]),
    "duplicate image": (lambda table: pd.concat([table, table[:1]]), ["p00000_00.png"]),
    "rounded patient numbers": (
        lambda table: table.assign(PatientID="1.90E+38"),
        ["1.90E+38", "--patient_column none"],
    ),
    "half blank label": (with_column("Mass", [""] * 41), ["--blank"]),
    "text in a label": (
        with_column("Mass", ["maybe"]),
        ["Mass", "'maybe'", "row 2", "--labels"],
    ),
    "words": (
        with_column("Mass", ["small", "large"] * 15),
        ["Mass", "'small'", "row 2", "--labels"],
    ),
    "probabilities": (
        with_column("Mass", ["0.9", "0.05"] * 30),
        ["Mass", "'0.9'", "row 2", "--labels"],
    ),
}
FLAGS = {
    "--labels Mass,Efusion": ["Effusion"],
    "--folds 50": ["50", "patient"],
    "--model convnextv2_ato": ["convnextv2_atto"],
    "--batch_size 64": ["--batch_size"],
    "--train_dir nowhere": ["nowhere"],
    "--model vit_tiny_patch16_224 --img_size 64": [
        "vit_tiny_patch16_224 takes no images of --img_size 64"
    ],
    "--model dla46x_c --img_size 64 --grad_checkpointing": [
        "dla46x_c takes no --grad_checkpointing: leave it out"
    ],
    "--loss weighted_bce --loss_options beta=1": ["weighted_bce: beta must lie in [0, 1)"],
    "--loss cb_focal --loss_options gamma=-1": ["cb_focal: gamma must be at least 0"],
    "--loss asl --loss_options margin=1": ["asl: margin must lie in [0, 1), not 1.0"],
    "--loss robust_asl --loss_options margin=-0.1": ["margin must lie in [0, 1), not -0.1"],
    "--loss ldam --loss_options max_margin=nan": ["ldam: max_margin must lie in [0, 1)"],
    "--loss bce --loss_options gamma=2": ["bce got an unexpected keyword argument 'gamma'"],
}


@pytest.mark.parametrize("case", TABLES)
def test_a_spoiled_table(case: str, train: Train, data: Path) -> None:
    spoil, parts = TABLES[case]
    spoil(pd.read_csv(data / "train.csv", dtype=str)).to_csv(data / "train.csv", index=False)
    sentence = refusal(train, data)
    assert [part for part in parts if part not in sentence] == []


@pytest.mark.parametrize("words", FLAGS)
def test_flags_that_do_not_fit(words: str, train: Train, data: Path) -> None:
    sentence = refusal(train, data, *words.split())
    assert [part for part in FLAGS[words] if part not in sentence] == []


def test_missing_csv_names_it_and_gives_the_two_commands(train: Train, data: Path) -> None:
    (data / "train.csv").unlink()
    sentence = refusal(train, data)
    assert str(data / "train.csv") in sentence
    assert "python -m core.data.phantom data" in sentence
    assert "python methods/standard_head/train.py" in sentence


def test_empty_csv(train: Train, data: Path) -> None:
    (data / "train.csv").write_text("")
    assert "empty" in refusal(train, data)


def test_missing_image(train: Train, data: Path) -> None:
    name = pd.read_csv(data / "train.csv")["ImageID"][3]
    (data / "images" / name).unlink()
    assert name in refusal(train, data)


def test_unreadable_folder(train: Train, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything, so the refusal is played; test_files.py drops root's rights."""

    def refuse(folder: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        code, _, error = train(*flags(data, data.parent / "out"))
    assert code == 2
    assert str(data / "images") in error
    assert not (data.parent / "out").exists()


def test_shared_patients_of_an_official_split(train: Train, data: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    table[:31].to_csv(data / "train.csv", index=False)
    table[31:].to_csv(data / "val.csv", index=False)
    assert table["PatientID"][30] == table["PatientID"][31]
    assert table["PatientID"][31] in refusal(train, data, "--val_csv", data / "val.csv")


def test_unreachable_weights_name_both_flags(
    train: Train, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.models.backbone._fetch", lambda repository: None)
    sentence = refusal(
        train, data, "--preset", "paper", "--model", "convnextv2_atto", "--pretrained"
    )
    assert "--weights_file" in sentence
    assert "--no-pretrained" in sentence


def test_spoiled_weights_file(train: Train, data: Path) -> None:
    path = data / "weights.safetensors"
    path.write_bytes(b"no weights")
    assert f"{path} does not hold weights of" in refusal(
        train, data, "--weights_file", path, "--pretrained"
    )


@pytest.mark.parametrize(
    ("network", "size", "own"),
    [("mvitv2_tiny", 250, 224), ("hiera_tiny_224", 250, 224), ("levit_128s", 32, 224),
     ("halonet_h1", 250, 256), ("inception_v3", 64, 299)],
)  # fmt: skip
def test_sizes_that_networks_do_not_take(
    network: str, size: int, own: int, train: Train, data: Path
) -> None:
    sentence = refusal(train, data, "--model", network, "--img_size", size)
    assert f"{network} takes no images of --img_size {size} (" in sentence
    assert sentence.strip().endswith(f"): give --img_size {own}, its own")


def test_weights_of_no_finite_output(train: Train, data: Path) -> None:
    """Finite themselves: a variance below 0 has no root."""
    path = data / "weights.safetensors"
    tensors = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    tensors["bn1.running_var"].fill_(-1)
    save_file(tensors, path)
    sentence = refusal(train, data, "--weights_file", path, "--pretrained")
    assert "the outputs of test_efficientnet on images of --img_size 32 are not finite" in sentence


def test_folder_of_something_else(train: Train, data: Path) -> None:
    (data / "thesis.txt").write_text("years of work")
    sentence = refusal(train, data, "--out_dir", data, "--overwrite")
    assert str(data) in sentence
    assert (data / "thesis.txt").read_text() == "years of work"


def test_fold_that_is_not_there(train: Train, data: Path) -> None:
    code, _, error = train("--folds", 3, "--run_folds", 4)
    assert code == 2
    assert "--run_folds counts from 1 to --folds 3, not 4" in " ".join(
        error.replace("│", " ").split()
    )


@pytest.mark.soak
def test_devices_auto_under_fabric_run(data: Path, tmp_path: Path) -> None:
    """`fabric run` itself answers 1 to a script's 2; the sentence comes first."""
    launches = RealLaunches(tmp_path, range(29514, 29515))
    launch = launches.start(TRAIN, *flags(data, data.parent / "out"), place=Place("auto"))
    assert launch.ends() != 0
    assert "--devices auto starts a single process; give a number" in launch.printed
    assert not (data.parent / "out").exists()


def test_a_class_without_positives_in_a_fold_is_named(train: Train, data: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    table["Mass"] = ["1", *["0"] * (len(table) - 1)]
    table.to_csv(data / "train.csv", index=False)
    words = flags(data, data.parent / "out", "--epochs", 1, "--warmup_head_epochs", 0)
    code, printed, _ = train(*words)
    assert code == 0
    assert "Warning: Mass has no positive in fold" in printed
