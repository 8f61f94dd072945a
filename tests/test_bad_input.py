"""Bad input of all commands: one error line, exit code 2, nothing written.

What the table refuses is tested in tests/core/data; here each kind is seen through the command.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import timm
from safetensors.torch import save

from tests.conftest import Train
from tests.helpers.training.small_run import flags

Spoil = Callable[[Path], object]


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that a test may spoil."""
    return Path(shutil.copytree(phantom, tmp_path / "data"))


def refusal(train: Train, data: Path, *more: object) -> str:
    """Error message of the command; checks that it wrote nothing."""
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


def without_image(folder: Path) -> None:
    (folder / "images" / "p00000_00.png").unlink()


def with_shared_patients(folder: Path) -> None:
    table = pd.read_csv(folder / "train.csv", dtype=str)
    assert table["PatientID"][30] == table["PatientID"][31]
    table[:31].to_csv(folder / "train.csv", index=False)
    table[31:].to_csv(folder / "val.csv", index=False)


def with_weights(data: bytes) -> Spoil:
    return lambda folder: (folder / "weights.safetensors").write_bytes(data)


def not_finite() -> bytes:
    """Finite weights with outputs that are not: a variance below 0 has no root."""
    tensors = timm.create_model("test_efficientnet", pretrained=False).state_dict()
    tensors["bn1.running_var"].fill_(-1)
    return save(tensors)


def resnet() -> bytes:
    """Weights of another architecture."""
    return save(timm.create_model("resnet18", pretrained=False).state_dict())


def edited(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Spoil:
    """Makes another train.csv."""

    def edit(folder: Path) -> None:
        path = folder / "train.csv"
        change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)

    return edit


WEIGHTS = "--pretrained --weights_file {data}/weights.safetensors"
# what is done to the data, flags, and what the sentence then holds
SPOILED: list[tuple[Spoil, str, list[str]]] = [
    (
        lambda folder: (folder / "train.csv").unlink(),
        "",
        ["train.csv", "python -m core.data.phantom data", "python methods/standard_head/train.py"],
    ),
    (lambda folder: (folder / "train.csv").write_text(""), "", ["empty"]),
    (edited(lambda table: table[:0]), "", ["no row"]),
    (edited(lambda table: table[["ImageID", "PatientID"]]), "", ["label"]),
    (edited(lambda table: pd.concat([table, table[:1]])), "", ["p00000_00.png"]),
    (edited(lambda table: table.assign(PatientID="1.90E+38")), "", ["--patient_column none"]),
    (edited(lambda table: table.assign(Mass=["0.9", "1"] * 30)), "", ["Mass", "'0.9'", "row 2"]),
    (without_image, "", ["p00000_00.png"]),
    (with_shared_patients, "--val_csv {data}/val.csv", ["p000"]),
    (with_weights(b"no weights"), WEIGHTS, ["weights.safetensors does not hold weights of"]),
    (with_weights(resnet()), WEIGHTS, ["its tensors are those of resnet18"]),
    (
        lambda folder: (folder / "weights.pth").write_bytes(b"x"),
        WEIGHTS.replace(".safetensors", ".pth"),
        ["python -m core.models.convert"],
    ),
    (with_weights(not_finite()), WEIGHTS, ["outputs of test_efficientnet", "are not finite"]),
]
FLAGS = {
    "--labels Mass,Efusion": "Effusion",
    "--folds 50": "50",
    "--model convnextv2_ato": "convnextv2_atto",
    "--batch_size 64": "--batch_size",
    "--pretrained --weights_name rad-dno": "did you mean 'rad-dino'?",
    "--train_dir nowhere": "nowhere",
    "--img_size 0": "--img_size must be at least 32, not 0",
    "--img_size 20000": "--img_size must be at most 8192, not 20000",
    "--mean 0.485 0.456 0.406": "images are grey: give their mean, --mean 0.449",
    "--std 0": "--std must be above 0",
    "--mean 0.5 --init_from x.safetensors": "leave out --mean, as the checkpoint has its own",
    "--patch_size 8": "test_efficientnet does not support --patch_size",
    "--model vit_tiny_patch16_224 --img_size 72": "patches of 16 px): give --img_size 64, the near",
    "--model dla46x_c --img_size 64 --grad_checkpointing": "does not support --grad_",
    "--loss asl --loss_options margin=1": "asl: margin must lie in [0, 1), not 1.0",
    "--loss bce --loss_options gamma=2": "bce got an unexpected keyword argument 'gamma'",
    "--model pit_ti_224 --layer_decay 0.5": "timm does not divide PoolingVisionTransformer into",
    "--model mvitv2_tiny --img_size 250": "does not accept --img_size 250 (",
    "--model hiera_tiny_224 --img_size 250": "): give --img_size 256, the nearest size",
    "--model inception_v3 --img_size 64": "): give --img_size 80, the nearest size",
}


@pytest.mark.parametrize(("spoil", "words", "parts"), SPOILED)
def test_spoiled_data(spoil: Spoil, words: str, parts: list[str], train: Train, data: Path) -> None:
    spoil(data)
    sentence = refusal(train, data, *words.format(data=data).split())
    assert [part for part in parts if part not in sentence] == []


@pytest.mark.parametrize(("words", "part"), FLAGS.items())
def test_flags_that_do_not_fit(words: str, part: str, train: Train, data: Path) -> None:
    assert part in refusal(train, data, *words.split())


@pytest.mark.parametrize("preset", ["paper", "small"])
def test_weights_that_cannot_be_fetched_end_a_run_before_its_table_is_read(
    preset: str, train: Train, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.models.starting_weights._fetch", lambda repository: None)
    (data / "train.csv").unlink()
    model = ("--model", "convnextv2_atto", "--pretrained")
    sentence = refusal(train, data, "--preset", preset, *model)
    assert "--weights_file" in sentence
    assert "--no-pretrained" in sentence
    assert "hub" in sentence


def test_folder_of_something_else(train: Train, data: Path) -> None:
    (data / "thesis.txt").write_text("years of work")
    sentence = refusal(train, data, "--out_dir", data, "--overwrite")
    assert str(data) in sentence
    assert (data / "thesis.txt").read_text() == "years of work"
