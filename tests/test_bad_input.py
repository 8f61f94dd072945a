"""Whatever is wrong with the user's input is one sentence and exit code 2, and nothing is written.

What the table refuses is tested in tests/core/data; here each kind is seen through the command.
"""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import timm
from safetensors.torch import save_file

Train = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that a test may spoil."""
    folder = tmp_path / "data"
    shutil.copytree(phantom, folder)
    return folder


def refusal(train: Train, data: Path, *more: object) -> str:
    """The one sentence that the command ends with; checks that it wrote nothing."""
    out = data.parent / "out"
    before = sorted(data.rglob("*"))
    code, _, error = train(
        *("--train_csv", data / "train.csv", "--train_dir", data / "images", "--out_dir", out),
        *("--preset", "small", "--model", "test_efficientnet", "--no-pretrained"),
        *("--img_size", 32, "--batch_size", 8, "--folds", 2, "--num_workers", 0),
        *more,
    )
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not out.exists()
    assert sorted(data.rglob("*")) == before
    return error


def edit(data: Path, change: Callable[[pd.DataFrame], object]) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    change(table)
    table.to_csv(data / "train.csv", index=False)


def test_missing_csv_names_it_and_gives_the_two_commands(train: Train, data: Path) -> None:
    (data / "train.csv").unlink()
    sentence = refusal(train, data)
    assert str(data / "train.csv") in sentence
    assert "python -m core.data.phantom data" in sentence
    assert "python methods/standard_head/train.py" in sentence


def test_missing_folder(train: Train, data: Path) -> None:
    assert "nowhere" in refusal(train, data, "--train_dir", data / "nowhere")


def test_empty_csv(train: Train, data: Path) -> None:
    (data / "train.csv").write_text("")
    assert "empty" in refusal(train, data)


def test_header_only(train: Train, data: Path) -> None:
    (data / "train.csv").write_text("ImageID,PatientID,Mass\n")
    assert "no row" in refusal(train, data)


def test_no_label_column(train: Train, data: Path) -> None:
    table = pd.read_csv(data / "train.csv")[["ImageID", "PatientID"]]
    table.to_csv(data / "train.csv", index=False)
    assert "label" in refusal(train, data)


def test_unknown_label_gets_the_nearest(train: Train, data: Path) -> None:
    assert "Effusion" in refusal(train, data, "--labels", "Mass,Efusion")


@pytest.mark.parametrize("cells", [["maybe"], ["small", "large"] * 15, ["0.9", "0.05"] * 30])
def test_text_in_a_label_names_row_column_and_value(
    train: Train, data: Path, cells: list[str]
) -> None:
    edit(
        data, lambda table: table.__setitem__("Mass", (cells + [*table["Mass"]][len(cells) :])[:60])
    )
    sentence = refusal(train, data)
    for part in ("Mass", f"'{cells[0]}'", "row 2", "--labels"):
        assert part in sentence


def test_duplicate_image(train: Train, data: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    pd.concat([table, table[:1]]).to_csv(data / "train.csv", index=False)
    assert table["ImageID"][0] in refusal(train, data)


def test_missing_image(train: Train, data: Path) -> None:
    victim = next(
        path
        for path in sorted((data / "images").iterdir())
        if path.name in set(pd.read_csv(data / "train.csv")["ImageID"])
    )
    victim.unlink()
    assert victim.name in refusal(train, data)


def test_unreadable_folder(train: Train, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything, so the refusal is played; test_files.py drops root's rights."""

    def refuse(folder: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        code, _, error = train(
            *("--train_csv", data / "train.csv", "--train_dir", data / "images"),
            *("--preset", "small", "--out_dir", data.parent / "out"),
        )
    assert code == 2
    assert str(data / "images") in error
    assert not (data.parent / "out").exists()


def test_fewer_patients_than_folds(train: Train, data: Path) -> None:
    sentence = refusal(train, data, "--folds", 50)
    assert "50" in sentence
    assert "patient" in sentence


def test_rounded_patient_numbers(train: Train, data: Path) -> None:
    edit(data, lambda table: table.__setitem__("PatientID", "1.90E+38"))
    sentence = refusal(train, data)
    assert "1.90E+38" in sentence
    assert "--patient_column none" in sentence


def test_half_blank_label_asks(train: Train, data: Path) -> None:
    edit(data, lambda table: table.loc.__setitem__((slice(0, 40), "Mass"), ""))
    assert "--blank" in refusal(train, data)


def test_shared_patients_of_an_official_split(train: Train, data: Path) -> None:
    table = pd.read_csv(data / "train.csv", dtype=str)
    table[:31].to_csv(data / "train.csv", index=False)
    table[31:].to_csv(data / "val.csv", index=False)
    assert table["PatientID"][30] == table["PatientID"][31]
    assert table["PatientID"][31] in refusal(train, data, "--val_csv", data / "val.csv")


def test_unknown_model_gets_the_nearest(train: Train, data: Path) -> None:
    assert "convnextv2_atto" in refusal(train, data, "--model", "convnextv2_ato")


def test_unreachable_weights_name_both_flags(
    train: Train, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.models.backbone._fetch", lambda repository: None)
    out = data.parent / "out"
    code, _, error = train(
        *("--train_csv", data / "train.csv", "--train_dir", data / "images", "--out_dir", out),
        *("--preset", "paper", "--model", "convnextv2_atto", "--folds", 2),
    )
    assert code == 2
    assert "--weights_file" in error
    assert "--no-pretrained" in error
    assert not out.exists()


def test_spoiled_weights_file(train: Train, data: Path) -> None:
    path = data / "weights.safetensors"
    path.write_bytes(b"no weights")
    assert f"{path} does not hold weights of" in refusal(
        train, data, "--weights_file", path, "--pretrained"
    )


def test_image_size_that_the_model_does_not_take(train: Train, data: Path) -> None:
    sentence = refusal(train, data, "--model", "vit_tiny_patch16_224", "--img_size", 64)
    assert "vit_tiny_patch16_224 takes no images of --img_size 64" in sentence


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


def test_a_network_that_cannot_save_memory(train: Train, data: Path) -> None:
    flags = ("--model", "dla46x_c", "--img_size", 64, "--grad_checkpointing")
    assert "dla46x_c takes no --grad_checkpointing: leave it out" in refusal(train, data, *flags)


def test_weights_of_no_finite_output(train: Train, data: Path) -> None:
    """Finite themselves: a variance below 0 has no root."""
    path = data / "weights.safetensors"
    tensors = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    tensors["bn1.running_var"].fill_(-1)
    save_file(tensors, path)
    sentence = refusal(train, data, "--weights_file", path, "--pretrained")
    assert "the outputs of test_efficientnet on images of --img_size 32 are not finite" in sentence


def test_batch_larger_than_the_data(train: Train, data: Path) -> None:
    assert "--batch_size" in refusal(train, data, "--batch_size", 64)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--loss weighted_bce --loss_options beta=1", "weighted_bce: beta must lie in [0, 1)"),
        ("--loss cb_focal --loss_options gamma=-1", "cb_focal: gamma must be at least 0"),
        ("--loss asl --loss_options margin=1", "asl: margin must lie in [0, 1), not 1.0"),
        ("--loss robust_asl --loss_options margin=-0.1", "margin must lie in [0, 1), not -0.1"),
        ("--loss ldam --loss_options max_margin=nan", "ldam: max_margin must lie in [0, 1)"),
        (
            "--loss bce --loss_options gamma=2",
            "bce got an unexpected keyword argument 'gamma'",
        ),
    ],
)
def test_loss_options_out_of_range(train: Train, data: Path, flags: str, sentence: str) -> None:
    assert sentence in refusal(train, data, *flags.split())


def test_folder_of_something_else(train: Train, data: Path) -> None:
    (data / "thesis.txt").write_text("years of work")
    out = data.parent / "elsewhere"
    sentence = refusal(train, data, "--out_dir", data, "--overwrite")
    assert str(data) in sentence
    assert (data / "thesis.txt").read_text() == "years of work"
    assert not out.exists()


def test_fold_that_is_not_there(train: Train, data: Path) -> None:
    code, _, error = train("--folds", 3, "--run_folds", 4)
    assert code == 2
    assert "--run_folds counts from 1 to --folds 3, not 4" in " ".join(
        error.replace("│", " ").split()
    )


def test_devices_auto_under_fabric_run(data: Path, soak: bool) -> None:
    """`fabric run` itself answers 1 to a script's 2; the sentence comes first."""
    if not soak:
        pytest.skip("in the long form: it imports PyTorch in several processes")
    fabric = Path(sys.executable).with_name("fabric")
    command = [
        *(str(fabric), "run", "methods/standard_head/train.py", "--accelerator", "cpu"),
        *(
            "--main-port",
            "29514",
            "--devices",
            "auto",
            "--preset",
            "small",
            "--train_csv",
            str(data / "train.csv"),
        ),
        *("--train_dir", str(data / "images"), "--out_dir", str(data.parent / "out")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--devices auto starts a single process; give a number" in done.stderr
    assert not (data.parent / "out").exists()


def test_a_class_without_positives_in_a_fold_is_named(train: Train, data: Path) -> None:
    edit(data, lambda table: table.__setitem__("Mass", ["1", *["0"] * (len(table) - 1)]))
    code, printed, _ = train(
        *("--train_csv", data / "train.csv", "--train_dir", data / "images"),
        *("--out_dir", data.parent / "out", "--preset", "small", "--model", "test_efficientnet"),
        *("--no-pretrained", "--img_size", 32, "--batch_size", 8, "--folds", 2),
        *("--num_workers", 0, "--epochs", 1, "--warmup_head_epochs", 0),
    )
    assert code == 0
    assert "Warning: Mass has no positive in fold" in printed
