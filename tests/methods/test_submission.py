"""Predictions of a test folder by label_coupling: published command line and errors."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from core.models.checkpoint import load_facts, load_tensors, save_tensors
from core.models.data_digests import NAME
from tests.conftest import Train
from tests.helpers.infer_files import reference_probabilities
from tests.helpers.training.small_run import MODEL, flags

LABELS = "Effusion,Atelectasis,Hernia"
# of the method's README as it was published, after the program's name
PUBLISHED = (
    "--train_csv train.csv --train_dir train_images --test_dir test_images "
    f"--out_csv ./submission.csv --labels {LABELS} --model tf_efficientnet_b4_ns --img_size 380 "
    "--epochs 3 --batch_size 24 --lr 2e-4 --weight_decay 1e-4 --warmup_epochs 1 --folds 3 "
    "--seed 42 --loss asl --ema --tta --num_workers 4 --color_jitter"
).split()
# over it, what makes it a matter of seconds
QUICK = [
    *("--model", MODEL, "--no-pretrained", "--img_size", "32", "--batch_size", "8"),
    *("--num_workers", "0"),
]


@pytest.fixture
def train(train_method: Callable[[str], Train]) -> Train:
    return train_method("label_coupling")


@pytest.fixture
def workplace(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the published command expects it, with the images' names in Image_name."""
    for name in ("train", "test"):
        table = pd.read_csv(phantom / f"{name}.csv").rename(columns={"ImageID": "Image_name"})
        (tmp_path / f"{name}_images").mkdir()
        for image in table["Image_name"]:
            shutil.copy(phantom / "images" / image, tmp_path / f"{name}_images" / image)
        if name == "train":
            table.to_csv(tmp_path / "train.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_published_command_line(train: Train, workplace: Path) -> None:
    code, printed, error = train(*PUBLISHED, *QUICK)
    assert code == 0, error
    frame = pd.read_csv("submission.csv")
    assert list(frame) == ["Image_name", *LABELS.split(",")]
    paths = sorted((workplace / "test_images").iterdir())
    assert list(frame["Image_name"]) == [path.name for path in paths]
    folder = workplace / "outputs" / "label_coupling"
    folds = [
        reference_probabilities(folder / f"{MODEL}_fold{fold}.safetensors", paths)
        for fold in (1, 2, 3)
    ]
    np.testing.assert_allclose(frame.iloc[:, 1:].to_numpy(), np.mean(folds, axis=0), atol=2e-6)
    assert "predictions  submission.csv (50 images by 3 models, copies: flip)" in printed
    # the same command again: nothing is trained, the same file is written
    before = Path("submission.csv").read_bytes()
    again = train(*PUBLISHED, *QUICK, "--out_csv", "again.csv")
    assert again[0] == 0
    assert again[1].count("finished before") == 3
    assert Path("again.csv").read_bytes() == Path("submission.csv").read_bytes() == before


def test_the_other_published_flags(train: Train, workplace: Path) -> None:
    # names without endings stay without
    table = pd.read_csv("train.csv", dtype=str)
    table["Image_name"] = table["Image_name"].str.removesuffix(".png")
    table.to_csv("train.csv", index=False)
    more = ["--no_amp", "--no-ema", "--no-tta", "--label_smooth", "0.05", "--loss", "bce"]
    more.append("--no-ensemble_folds")
    code, printed, error = train(*PUBLISHED, *QUICK, *more)
    assert code == 0, error
    assert "(50 images by 1 model, copies: none)" in printed
    files = [Path(f"outputs/label_coupling/{MODEL}_fold{fold}.safetensors") for fold in (1, 2, 3)]
    facts = [load_facts(path) for path in files]
    best = int(np.argmax([fact["metrics"][fact["settings"]["monitor"]] for fact in facts]))
    expected_flags = {
        "amp": "off",
        "ema": False,
        "tta": False,
        "label_smooth": 0.05,
        "pos_weight": True,
    }
    assert {name: facts[0]["settings"][name] for name in expected_flags} == expected_flags
    frame = pd.read_csv("submission.csv")
    paths = sorted((workplace / "test_images").iterdir())
    assert list(frame["Image_name"]) == [path.stem for path in paths]
    expected = reference_probabilities(files[best], paths, mirror=False)
    np.testing.assert_allclose(frame.iloc[:, 1:].to_numpy(), expected, atol=2e-6)


def test_a_test_csv_selects_the_images(train: Train, phantom: Path, tmp_path: Path) -> None:
    # a natural place, which is not there before the run
    out = tmp_path / "out" / "s.csv"
    wanted = pd.read_csv(phantom / "test.csv").iloc[[5, 2, 9]]
    wanted.rename(columns={"ImageID": "Image Index"}).to_csv(tmp_path / "t.csv", index=False)
    # without --test_dir they lie beside the training images; fold 2 is not trained
    more = ["--test_csv", tmp_path / "t.csv", "--out_csv", out, "--run_folds", "1"]
    code, printed, error = train(*flags(phantom, tmp_path / "out", *more))
    assert code == 0, error
    assert list(pd.read_csv(out)["ImageID"]) == list(wanted["ImageID"])
    assert "(3 images by 1 model" in printed


def test_problems_of_the_test_images_are_reported_before_training(
    train: Train, workplace: Path
) -> None:
    images = sorted((workplace / "test_images").iterdir())
    images[4].write_bytes(images[4].read_bytes()[:300])
    (workplace / "nothing").mkdir()
    Path("mine.csv").write_text("my,own\n1,2\n")
    for more, expected in (
        ([], f"1 of the 50 images to predict cannot be read: {images[4].name}"),
        (["--test_dir", "nothing"], "nothing holds no image"),
        (["--test_dir", "nowhere"], "nowhere does not exist"),
        (["--test_csv", "nowhere.csv"], "There is no file nowhere.csv"),
        (["--out_csv", "mine.csv"], "mine.csv is not predictions of these labels"),
        (["--out_csv", "train.csv"], "--out_csv would overwrite the input file train.csv"),
        (["--out_csv", "train.csv/s.csv"], "train.csv/s.csv cannot be written"),
        (["--out_csv", "test_images"], "test_images cannot be written"),
    ):
        code, _, error = train(*PUBLISHED, *QUICK, *more)
        assert code == 2, expected
        assert expected in error
        assert error.count("\n") == 1, error
        assert not Path("outputs").exists()
        assert not Path("submission.csv").exists()
    assert Path("mine.csv").read_text() == "my,own\n1,2\n"


def test_one_label_cannot_be_coupled(train: Train, phantom: Path, tmp_path: Path) -> None:
    one = flags(phantom, tmp_path / "out", "--labels", "Effusion", "--run_folds", "1")
    code, _, error = train(*one)
    assert code == 2
    assert "couplings need two labels, and there is only Effusion" in error
    assert not (tmp_path / "out").exists()
    assert train(*one, "--no-refiner")[0] == 0


def test_couplings_alone_leave_the_frozen_model_unchanged(
    train: Train, finished_method: Callable[[str], tuple[Path, str]], phantom: Path, tmp_path: Path
) -> None:
    base = finished_method("label_coupling")[0] / f"{MODEL}_fold1.safetensors"
    out = tmp_path / "out"
    names = load_facts(base)["class_names"]
    labels = ",".join(reversed(names))
    only = ["--couplings_only", base, "--labels", labels, "--coupling_l1", "1e-4", "--run_folds", 2]
    code, printed, error = train(*flags(phantom, out), *only)
    assert code == 0, error
    assert "without couplings mAP" in printed
    before, after = (load_tensors(path) for path in (base, out / f"{MODEL}_fold2.safetensors"))
    assert after[1]["class_names"] == list(reversed(names))
    for name, tensor in before[0].items():
        if name in ("head.coupling.A", NAME):
            continue
        kept = tensor.flip(0) if name.startswith("head.classifier") else tensor
        assert (after[0][name] == kept).all(), name
    assert (after[0]["head.coupling.A"] != 0).any()
    # both what these were fitted on and what the frozen model was trained on
    first, both = (
        {(one["role"], one["size"], one["count"]) for one in facts[NAME]["parts"]}
        for _, facts in (before, after)
    )
    own = (pd.read_csv(out / "folds.csv")["fold"] == 2).sum()
    assert both >= {*first, ("training", 32, 60 - own), ("validation", 32, own)}
    # and it predicts what it wrote for its validation images
    frame = pd.read_csv(out / f"{MODEL}_fold2_val.csv", index_col=0)
    paths = [phantom / "images" / str(name) for name in frame.index]
    expected = reference_probabilities(out / f"{MODEL}_fold2.safetensors", paths)
    np.testing.assert_allclose(frame.to_numpy(), expected, atol=2e-6)
    assert train(*flags(phantom, out), *only)[1].count("finished before") == 1


def test_couplings_alone_refuse_what_has_no_logits_of_these_labels(
    train: Train,
    finished: tuple[Path, str],
    finished_method: Callable[[str], tuple[Path, str]],
    phantom: Path,
    tmp_path: Path,
) -> None:
    name = f"{MODEL}_fold1.safetensors"
    own, spoiled = finished_method("label_coupling")[0] / name, tmp_path / "spoiled.safetensors"
    tensors, facts = load_tensors(own)
    tensors["head.classifier.bias"][0] = torch.nan
    save_tensors(spoiled, tensors, facts)
    for more, expected in (
        (["--couplings_only", finished[0] / name], "is a checkpoint of standard_head"),
        (["--couplings_only", own, "--labels", "Effusion,Mass"], "have different labels"),
        (["--couplings_only", tmp_path / "no.safetensors"], "is not there"),
        (["--couplings_only", spoiled], "tensors: head.classifier.bias)"),
        (["--couplings_only", own, "--no-refiner"], "add --refiner"),
        (["--couplings_only", own, "--out_dir", own.parent], "is in --out_dir"),
    ):
        code, _, error = train(*flags(phantom, tmp_path / "out"), *more)
        assert code == 2, expected
        assert expected in " ".join(error.replace("│", " ").split())
        assert not (tmp_path / "out").exists()
