"""`python -m ensemble.average` on variants of one trained fold."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from core.data.images.decode import load_image
from core.data.images.digest import image_digest
from core.models.backbone import model_settings
from core.models.checkpoint import load_tensors, save_tensors
from core.models.data_digests import NAME, DataDigests
from ensemble.average import main
from ensemble.export import main as export_main
from methods import load_model
from tests.conftest import Call
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import predict_to_frame, reference_probabilities, select_classes
from tests.helpers.training.small_run import module

MEAN = "backbone.network.bn1.running_mean"
SPOILED = "backbone.network.conv_stem.weight"


@pytest.fixture
def average(call: Call, phantom: Path, tmp_path: Path) -> Call:
    """Runs ensemble.average into `out.safetensors` with the phantom's images."""

    def answer(*arguments: object) -> tuple[int, str, str]:
        images = ("--image_dir", phantom / "images", "--num_workers", 0)
        return call(main, "--output", tmp_path / "out.safetensors", *images, *arguments)

    return answer


def variant(source: Path, path: Path, noise: float, seed: int = 0, **facts: Any) -> Path:
    """The checkpoint with noise on its weights and with other facts."""
    tensors, known = load_tensors(source)
    random = torch.Generator().manual_seed(seed)
    for name, one in tensors.items():
        if one.is_floating_point() and one.ndim > 1:
            tensors[name] = one + noise * one.std() * torch.randn(one.shape, generator=random)
    save_tensors(path, tensors, known | facts)
    return path


@pytest.fixture
def members(checkpoints: list[Path], tmp_path: Path) -> list[Path]:
    """Fold 1, and a copy with a little noise."""
    return [checkpoints[0], variant(checkpoints[0], tmp_path / "b.safetensors", 0.1)]


def held_out(checkpoint: Path) -> tuple[list[str], list[str]]:
    """Names of the images of fold 1, and of its training."""
    folds = pd.read_csv(checkpoint.with_name("folds.csv"), dtype=str)
    is_held = folds["fold"] == "1"
    return folds.loc[is_held, "ImageID"].tolist(), folds.loc[~is_held, "ImageID"].tolist()


def macro(score: Any, truth: pd.DataFrame, probabilities: np.ndarray) -> float:
    columns = truth.to_numpy(float).T
    pairs = zip(columns, probabilities.T, strict=True)
    return float(np.mean([score(y, p) for y, p in pairs if 0 < y.sum() < len(y)]))


def test_uniform_is_the_mean_with_new_batch_norm_and_predicts_as_any_checkpoint(
    average: Call, infer: Call, members: list[Path], phantom: Path, tmp_path: Path
) -> None:
    csv = ("--train_csv", phantom / "train.csv")
    printed = output_of(average, "--checkpoints", *members, *csv)
    path = tmp_path / "out.safetensors"
    (tensors, facts), *both = (load_tensors(one) for one in (path, *members))
    names = [name for name in tensors if name != NAME]
    for name in (name for name in names if "running" not in name and "tracked" not in name):
        pair = np.stack([one[name].numpy().astype(np.float64) for one, _ in both])
        np.testing.assert_allclose(tensors[name], pair.mean(0), rtol=1e-6, atol=1e-9)

    # the first batch norm, in one batch of all training images, and of no held-out ones
    held, trained = held_out(members[0])
    model, info = load_model(path)
    seen: list[Tensor] = []
    layer = model.get_submodule("backbone.network.bn1")
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].double()))
    images = np.stack([load_image(phantom / "images" / name, 32) for name in trained])
    with torch.no_grad():
        model(torch.from_numpy(images)[:, None])
    inputs = seen[0].numpy()
    assert f"batch norm of {len(trained)} images" in printed
    np.testing.assert_allclose(tensors[MEAN], inputs.mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
    variance = inputs.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(tensors[MEAN.replace("mean", "var")], variance, rtol=1e-3)

    # scores of the members and of the average on the images of fold 1
    assert f"mAP on {len(held)} held-out images" in printed
    truth = pd.read_csv(phantom / "train.csv", index_col="ImageID").loc[held, info.class_names]
    paths = [phantom / "images" / name for name in held]
    scores = [
        macro(average_precision_score, truth, reference_probabilities(one, paths))
        for one in (*members, path)
    ]
    shown = [float(one) for one in re.findall(r"^ +(0\.\d{4})  ", printed, re.M)]
    np.testing.assert_allclose(shown, scores, atol=1e-4)

    # an ordinary checkpoint of the same images, with a record of its members
    assert [one["file"] for one in facts["average"]["members"]] == [one.name for one in members]
    assert "metrics" not in facts
    assert facts["fold"] == 1
    assert facts["training_positives"] == both[0][1]["training_positives"]
    frame = predict_to_frame(
        infer,
        *("--checkpoints", path, "--image_dir", phantom / "images"),
        *("--test_csv", phantom / "train.csv"),
        output=tmp_path / "p.csv",
    )
    expected = reference_probabilities(path, paths)
    np.testing.assert_allclose(frame.loc[held], expected, atol=1e-5)
    digests = [DataDigests.read(*load_tensors(one), one) for one in (path, members[0])]
    assert digests[0] is not None
    assert digests[1] is not None
    assert {(p.role, p.of): set(p.digests.tolist()) for p in digests[0].parts} == {
        (p.role, p.of): set(p.digests.tolist()) for p in digests[1].parts
    }

    assert "exists" in refusal(average, "--checkpoints", *members, *csv)
    output_of(average, "--checkpoints", *members, *csv, "--overwrite", "--bn_images", 5)
    assert load_tensors(path)[1]["average"]["batch_norm_images"] == 5


def test_greedy_leaves_out_what_lowers_the_score(
    average: Call, members: list[Path], phantom: Path, tmp_path: Path
) -> None:
    spoiled = variant(members[0], tmp_path / "c.safetensors", 30, seed=1)
    three = [spoiled, *members]
    words = ("--train_csv", phantom / "train.csv", "--way", "greedy", "--monitor", "mAUROC")
    printed = output_of(average, "--checkpoints", *three, *words)
    held, _ = held_out(members[0])
    path = tmp_path / "out.safetensors"
    info = load_model(path).info
    truth = pd.read_csv(phantom / "train.csv", index_col="ImageID").loc[held, info.class_names]
    paths = [phantom / "images" / name for name in held]
    *alone, best = [
        macro(roc_auc_score, truth, reference_probabilities(one, paths)) for one in (*three, path)
    ]
    assert best >= max(alone)
    record = info.facts["average"]
    assert record["score"] == pytest.approx(best, abs=1e-6)
    assert record["held_out_images"] == len(held)
    kept = [one["file"] for one in record["members"]]
    verdicts = dict(re.findall(r"with \S*?([\w.]+\.safetensors): (kept|left out)", printed))
    first = three[int(np.argmax(alone))].name
    assert kept == [first, *(name for name, verdict in verdicts.items() if verdict == "kept")]
    assert {first, *verdicts} == {one.name for one in three}
    assert f"greedy, {len(kept)} of 3 models" in printed or len(kept) == 3
    if len(kept) == 1:
        ours, theirs = load_tensors(path)[0], load_tensors(three[int(np.argmax(alone))])[0]
        assert all(torch.equal(ours[name], one) for name, one in theirs.items() if name != NAME)


def test_without_patients_images_are_compared_by_their_pixels(
    average: Call, members: list[Path], phantom: Path
) -> None:
    # an epoch leaves some images of the training folds out
    digests = load_model(members[0]).info.data_digests
    assert digests is not None
    trained = next(p for p in digests.parts if p.role == "training" and p.size).digests
    names = pd.read_csv(phantom / "train.csv", dtype=str)["ImageID"]
    found = [image_digest(load_image(phantom / "images" / name, 32)) for name in names]
    words = ("--train_csv", phantom / "train.csv", "--patient_column", "none")
    printed = output_of(average, "--checkpoints", *members, *words)
    assert f"mAP on {len(set(found) - set(trained.tolist()))} held-out images" in printed


def test_a_network_without_batch_norm_needs_no_images(average: Call, tmp_path: Path) -> None:
    paths = [built(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2, 3)]
    output_of(average, "--checkpoints", *paths)
    found, *three = (load_tensors(one)[0] for one in (tmp_path / "out.safetensors", *paths))
    for name, one in found.items():
        values = np.stack([tensors[name].numpy().astype(np.float64) for tensors in three])
        np.testing.assert_allclose(one, values.mean(0), rtol=1e-6, atol=1e-9)


def built(
    path: Path, seed: int = 0, std: float = 0.5, *, sized: bool = True, **fields: Any
) -> Path:
    """An untrained checkpoint of two classes, without digests; of timm's size unless `sized`."""
    torch.manual_seed(seed)
    method = "label_coupling"
    config = module(method, "config").ModelConfig(
        **{"model": "test_convnext", "pretrained": False, "std": (std,)} | fields
    )
    settings = model_settings(config, sized=sized)
    model = module(method, "model").build_model(config, 2, img_size=32 if sized else None)
    facts = {"method": method, "model": settings, "class_names": ["A", "B"], "img_size": 32}
    save_tensors(path, model.state_dict(), facts)
    return path


def test_checkpoints_that_differ_are_refused_with_the_first_difference(
    average: Call, members: list[Path], tmp_path: Path
) -> None:
    first, one = members[0], tmp_path / "one.safetensors"
    names = list(load_model(first).class_names)
    plain = built(tmp_path / "plain.safetensors")
    vit, older = (
        built(tmp_path / f"{sized}.safetensors", model="test_vit", sized=sized)
        for sized in (True, False)
    )
    cases = [
        (first, plain, "its method is label_coupling, not standard_head"),
        (first, variant(first, one, 0, img_size=64), "its --img_size is 64, not 32"),
        (
            first,
            select_classes(first, tmp_path / "turned.safetensors", names[::-1]),
            f"its class 1 is {names[-1]}, not {names[0]}",
        ),
        (
            first,
            select_classes(first, tmp_path / "fewer.safetensors", names[:-1]),
            f"it has {len(names) - 1} classes, not {len(names)}",
        ),
        (plain, vit, "its --model is test_vit, not test_convnext"),
        (vit, older, "its backbone.network.pos_embed is 1 x 101 x 64, not 1 x 5 x 64"),
        (
            plain,
            built(tmp_path / "no.safetensors", refiner=False),
            "its --refiner is False, not True",
        ),
        (plain, built(tmp_path / "s.safetensors", std=0.25), "its backbone.std is 0.25, not 0.5"),
    ]
    for ours, other, expected in cases:
        error = refusal(average, "--checkpoints", ours, other, "--train_csv", "none.csv")
        assert expected in error
        assert f"{other} cannot be averaged with {ours}" in error
    tensors, facts = load_tensors(plain)
    tensors["head.classifier.bias"][1] = torch.nan
    save_tensors(one, tensors, facts)
    assert "not finite in head.classifier.bias" in refusal(average, "--checkpoints", plain, one)
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_missing_is_named(
    average: Call, members: list[Path], checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    csv = ("--train_csv", phantom / "train.csv")
    greedy = ("--way", "greedy")
    test_csv = ("--train_csv", phantom / "test_labels.csv")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(members[0].read_bytes())
    unknown = variant(members[0], tmp_path / "unknown.safetensors", 0)
    tensors, facts = load_tensors(unknown)
    del tensors[NAME], facts[NAME]
    save_tensors(unknown, tensors, facts)
    for words, expected in (
        (("--checkpoints", members[0]), "two or more --checkpoints"),
        (("--checkpoints", *members, *csv, "--bn_images", 1), "--bn_images must be at least 2"),
        (("--checkpoints", *members), "batch norm, which needs training images"),
        (("--checkpoints", *members, *greedy), "--train_csv, or choose --way uniform"),
        # each image was trained on by one of the folds
        (("--checkpoints", *checkpoints, *csv, *greedy), "give checkpoints of the same fold"),
        (("--checkpoints", members[0], unknown, *csv, *greedy), "known to be in no training"),
        (("--checkpoints", *members, *test_csv), "has 0 images of the checkpoints' training"),
        (("--checkpoints", *members, *csv, "--output", members[1]), "would overwrite the input"),
        (("--checkpoints", *members, *csv, "--output", "a.pt"), "must end in .safetensors"),
        (
            ("--checkpoints", *members, *csv, "--output", foreign, "--overwrite"),
            "not a checkpoint of ensemble.average",
        ),
    ):
        assert expected in refusal(average, *words), words
    assert not (tmp_path / "out.safetensors").exists()
    # no scores, but an average, of all its images
    printed = output_of(average, "--checkpoints", members[0], unknown, *csv)
    assert "not scored   " in printed
    assert "batch norm of 60 images" in printed
    record = load_model(tmp_path / "out.safetensors").info
    assert record.data_digests is not None
    assert not record.data_digests.complete


def test_an_export_describes_the_average(
    average: Call, call: Call, members: list[Path], phantom: Path, tmp_path: Path
) -> None:
    output_of(average, "--checkpoints", *members, "--train_csv", phantom / "train.csv")
    path, out = tmp_path / "out.safetensors", tmp_path / "hub"
    words = ("--checkpoints", path, "--format", "folder", "--output", out)
    assert call(export_main, *words)[0] == 0
    described = json.loads((out / "config.json").read_text())["models"][0]["average"]
    assert [one["file"] for one in described["members"]] == [one.name for one in members]
