"""Digests of training images and patients in a checkpoint."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from core.data.images.decode import load_image, read_image
from core.data.images.digest import image_digest
from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from core.models.data_digests import NAME, DataDigests, DigestSet, patient_digests
from methods import load_model
from tests.conftest import Call, Train
from tests.helpers.training.small_run import MODEL, flags
from tests.helpers.training.stopped_training import stopped_at

SIZE = 32


def digests_of(images: Path, names: list[str], size: int = SIZE) -> set[int]:
    return {image_digest(load_image(images / name, size)) for name in names}


def held(checkpoint: Path, role: str, of: str) -> set[int]:
    digests = load_model(checkpoint)[1].data_digests
    assert digests is not None
    parts = [part for part in digests.parts if (part.role, part.of) == (role, of)]
    return set(np.concatenate([part.digests for part in parts]).tolist())


def test_equal_pixels_have_one_digest_whatever_their_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (200, 200), dtype=np.uint8) for _ in range(50)]
    found = [image_digest(one) for one in pixels]
    assert len(set(found)) == 50
    assert all(0 < one < 2**63 for one in found)
    for name, options in (("a.png", [cv2.IMWRITE_PNG_COMPRESSION, 9]), ("b.tif", [])):
        cv2.imwrite(str(tmp_path / name), pixels[0], options)
        assert image_digest(read_image(tmp_path / name)) == found[0]
    # a quarter that is darker is another image; one grey everywhere is none
    changed = pixels[0].copy()
    changed[:100, :100] //= 2
    assert image_digest(changed) != found[0]
    assert image_digest(np.full((200, 200), 7, np.uint8)) == 0


def test_what_is_written_is_read_again_in_few_bytes() -> None:
    random = np.random.default_rng(0)
    images = np.unique(random.integers(1, 2**62, 377_110))
    patients = np.unique(patient_digests(map(str, range(65_379)), b"key"))
    text = hashlib.blake2b(b"17", key=b"key", digest_size=4).digest()
    assert int.from_bytes(text, "little") in patients
    parts = DigestSet("training", images, SIZE), DigestSet("validation", patients, key=b"key")
    tensors, facts = DataDigests(parts, complete=False).to_tensors()
    assert tensors[NAME].dtype == torch.uint8
    assert tensors[NAME].numel() < 10e6
    again = DataDigests.read(tensors, facts, Path("a"))
    assert again is not None
    assert not again.complete
    for one, expected in zip(again.parts, parts, strict=True):
        assert (one.role, one.size, one.key) == (expected.role, expected.size, expected.key)
        assert np.array_equal(one.digests, expected.digests)
    assert again.parts[0].has(np.array([images[5], 0, 1])).tolist() == [True, False, 1 in images]


GOOD = {"role": "training", "of": "images", "size": 32, "count": 2, "key": ""}


@pytest.mark.parametrize(
    "parts",
    [
        *([GOOD | change] for change in ({"count": 3}, {"count": -1}, {"role": "test"})),
        *([GOOD | change] for change in ({"size": 0}, {"key": "xy"}, {"key": "abc"}, {"x": 1})),
        [GOOD, GOOD],
        [],
        None,
    ],
    ids=str,
)
def test_digests_that_are_not_described_are_refused(parts: Any) -> None:
    tensors = {NAME: torch.zeros(16, dtype=torch.uint8)}
    assert DataDigests.read({}, {}, Path("a")) is None
    assert DataDigests.read(tensors, {NAME: {"complete": True, "parts": [GOOD]}}, Path("a"))
    with pytest.raises(UserError, match="a does not describe its data_digests"):
        DataDigests.read(tensors, {NAME: {"complete": True, "parts": parts}}, Path("a"))
    of_floats, facts = (
        {NAME: torch.zeros(16).bfloat16()},
        {NAME: {"complete": True, "parts": [GOOD]}},
    )
    with pytest.raises(UserError, match="a does not describe its data_digests"):
        DataDigests.read(of_floats, facts, Path("a"))


def test_a_checkpoint_knows_its_fold(checkpoints: list[Path], phantom: Path) -> None:
    folds = pd.read_csv(checkpoints[0].with_name("folds.csv"), dtype=str)
    for fold, path in enumerate(checkpoints, start=1):
        own = folds["fold"] == str(fold)
        roles = {"training": folds[~own], "validation": folds[own]}
        found = {role: held(path, role, "images") for role in roles}
        all_of = {
            role: digests_of(phantom / "images", rows["ImageID"].tolist())
            for role, rows in roles.items()
        }
        assert found["validation"] == all_of["validation"]
        # an update of less than eight images is left out of an epoch
        assert found["training"] <= all_of["training"]
        assert len(found["training"]) >= len(all_of["training"]) // 8 * 8
        for role, rows in roles.items():
            parts = load_model(path)[1].data_digests
            assert parts is not None
            (key,) = {part.key for part in parts.parts if not part.size}
            people = {
                int.from_bytes(
                    hashlib.blake2b(name.encode(), key=key, digest_size=4).digest(), "little"
                )
                for name in rows["PatientID"].unique()
            }
            assert held(path, role, "patients") == people


def test_a_resumed_fold_has_the_digests_of_one_that_never_stopped(
    checkpoints: list[Path], phantom: Path, tmp_path: Path, train: Train
) -> None:
    words = flags(phantom, tmp_path / "out", "--run_folds", 1)
    state = tmp_path / "out" / f"{MODEL}_fold1.state.safetensors"
    # in the second epoch: the head's was the first
    stopped_at(train, 5, *words)
    shutil.copytree(tmp_path / "out", tmp_path / "older")
    assert train(*words)[0] == 0
    ours = load_tensors(tmp_path / "out" / checkpoints[0].name)[0]
    assert torch.equal(ours[NAME], load_tensors(checkpoints[0])[0][NAME])
    # a state of an earlier version: not known what was trained on before it
    tensors, facts = load_tensors(tmp_path / "older" / state.name)
    del tensors["image_digests"]
    save_tensors(tmp_path / "older" / state.name, tensors, facts)
    assert train(*flags(phantom, tmp_path / "older", "--run_folds", 1))[0] == 0
    assert facts["progress"]["best_epoch"] <= 1
    older = load_model(tmp_path / "older" / checkpoints[0].name)[1].data_digests
    epoch = load_model(tmp_path / "older" / checkpoints[0].name)[1].facts["epoch"]
    assert (older is None) == (epoch > 1)


def test_what_a_training_started_from_was_trained_on_too(
    checkpoints: list[Path], phantom: Path, tmp_path: Path, train: Train
) -> None:
    words = ["--epochs", 1, "--warmup_head_epochs", 0, "--run_folds", 2, "--anonymous"]
    tensors, facts = load_tensors(checkpoints[0])
    unknown = tmp_path / "unknown.safetensors"
    save_tensors(unknown, {k: v for k, v in tensors.items() if k != NAME}, facts)
    for start, complete in ((checkpoints[0], True), (unknown, False)):
        out = tmp_path / str(complete)
        assert train(*flags(phantom, out, *words, "--init_from", start))[0] == 0
        digests = load_model(out / checkpoints[1].name)[1].data_digests
        assert digests is not None
        assert digests.complete is complete
        # with --anonymous neither its own patients nor those of the first training
        assert not digests.of_patients
        before = held(checkpoints[0], "training", "images")
        assert (before <= held(out / checkpoints[1].name, "training", "images")) is complete


def test_a_resumed_fold_keeps_what_its_start_was_trained_on(
    checkpoints: list[Path], phantom: Path, tmp_path: Path, train: Train
) -> None:
    start, before = tmp_path / "start.safetensors", held(checkpoints[0], "training", "images")
    shutil.copy(checkpoints[0], start)
    options = ["--epochs", 1, "--warmup_head_epochs", 0, "--run_folds", 2, "--init_from", start]
    out = tmp_path / "out"
    stopped_at(train, 2, *flags(phantom, out, *options))
    shutil.copytree(out, tmp_path / "gone")
    for folder, complete in ((out, True), (tmp_path / "gone", False)):
        code, _, error = train(*flags(phantom, folder, *options))
        assert code == 0, error
        digests = load_model(folder / checkpoints[1].name)[1].data_digests
        assert digests is not None
        assert digests.complete is complete
        assert (before <= held(folder / checkpoints[1].name, "training", "images")) is complete
        # the second time the checkpoint is not there
        start.unlink(missing_ok=True)


def test_a_pack_that_is_larger_than_the_training_is_compared_at_its_own_size(
    phantom: Path, tmp_path: Path, train: Train, call: Call
) -> None:
    from core.data.pack.__main__ import main

    source = ("--train_csv", phantom / "train.csv", "--train_dir", phantom / "images")
    assert call(main, *source, "--size", 36, "--out", tmp_path / "pack")[0] == 0
    words = ["--train_dir", tmp_path / "pack", "--run_folds", 1, "--epochs", 1]
    assert train(*flags(phantom, tmp_path / "out", *words))[0] == 0
    path = tmp_path / "out" / f"{MODEL}_fold1.safetensors"
    folds = pd.read_csv(path.with_name("folds.csv"), dtype=str)
    names = folds.loc[folds["fold"] == "1", "ImageID"].tolist()
    assert held(path, "validation", "images") == digests_of(phantom / "images", names, 36)


def test_the_union_of_several_models_validates_on_what_none_was_trained_on() -> None:
    def images(role: Any, *digests: int, size: int = SIZE) -> DigestSet:
        return DigestSet(role, np.array(digests, np.int64), size)

    def people(role: Any, *digests: int, key: bytes = b"k") -> DigestSet:
        return DigestSet(role, np.array(digests, np.uint32), key=key)

    one = DataDigests((images("training", 1, 2), images("validation", 3, 4)))
    two = DataDigests((images("training", 2, 3), images("validation", 5), people("training", 1)))
    other = DataDigests((images("training", 4, size=64), people("validation", 1, key=b"other")))
    found = DataDigests.union([one, two, other])
    assert found is not None
    assert found.complete
    read = {(part.role, part.size, part.key): part.digests.tolist() for part in found.parts}
    assert read == {
        ("training", SIZE, b""): [1, 2, 3],
        ("validation", SIZE, b""): [4, 5],
        ("training", 0, b"k"): [1],
        # of another size or key nothing is known
        ("training", 64, b""): [4],
        ("validation", 0, b"other"): [1],
    }
    tensors, facts = found.to_tensors()
    again = DataDigests.read(tensors, facts, Path("m"))
    assert again is not None
    assert [part.digests.dtype for part in again.parts] == [p.digests.dtype for p in found.parts]
    assert DataDigests.union([None, None]) is None
    partly = DataDigests.union([one, None])
    assert partly is not None
    assert not partly.complete
