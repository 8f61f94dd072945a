"""Draws of a fold per epoch, and their description for the user."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from core.config.training import LoaderConfig
from core.data.images.collection import Images
from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData, describe_sampling
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.runtime.fabric import make_fabric

# fracture, nodule and hernia: positive (1), negative (0) or unknown (NaN)
TRAINING = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, np.nan, 0], [1, np.nan, 0]])
VALIDATION = [[0, 0, 1]]


def make_fold(
    batch_size: int = 4,
    accumulate: int = 1,
    training: np.ndarray | None = None,
    folder: Path = Path(),
    sources: list[int] | None = None,
    **loader: Any,
) -> FoldData:
    """Fold 2: `training` targets, or 12 images of each row above; the files may not exist."""
    if training is None:
        training = np.repeat(TRAINING, 12, axis=0)
    targets = np.concatenate([training, VALIDATION]).astype(np.float32)
    names = [f"{number}.png" for number in range(len(targets))]
    table = LabelTable(
        ids=names,
        images=Images.in_folder(folder, names),
        targets=targets,
        class_names=("Fracture", "Nodule", "Hernia"),
        sources=np.array(sources) if sources else None,
        source_names=("nih", "own") if sources else (),
    )
    # rows are not positions
    rows = np.arange(len(targets))[::-1]
    settings = LoaderConfig(img_size=32, batch_size=batch_size, num_workers=0, **loader)
    augment = Augmentation([], seed=3)
    return FoldData(
        make_fabric(amp="off"), 2, table, rows[1:], rows[:1], settings, accumulate, augment
    )


def rare() -> np.ndarray:
    """1,000 images, of which two have a label of 1 in 400: sqrt(4) draws each."""
    targets = np.zeros((1000, 3))
    targets[400:, :2] = np.nan
    targets[0, 0] = targets[1, 1] = 1
    return targets


@pytest.mark.parametrize(
    ("loader", "updates"),
    [
        ({}, 60 // 8),
        ({"sampler": "repeat_factor"}, 60 // 8),
        ({"epoch_size": 203, "sampler": "class_aware"}, 203 // 8),
    ],
)
def test_updates_follow_the_size_of_an_epoch(loader: dict[str, Any], updates: int) -> None:
    data = make_fold(accumulate=2, **loader)
    assert data.updates_per_epoch == updates
    assert len(data.epoch_plan(0)) == len(data.epoch_plan(1)) == 8 * updates
    assert not np.array_equal(data.epoch_plan(0), data.epoch_plan(1))


@pytest.mark.parametrize("sampler", ["uniform", "class_aware"])
def test_batches_are_the_rows_of_the_plan(sampler: str, tmp_path: Path) -> None:
    for number in range(61):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8), number, np.uint8))
    data = make_fold(5, 3, folder=tmp_path, sampler=sampler, epoch_size=50)
    batches = list(data.training(1, 3, updates_done=2))
    # 3 updates of 15 images an epoch
    expected = data.train_rows[np.concatenate([data.epoch_plan(1)[30:], data.epoch_plan(2)])]
    assert len(expected) == 15 + 45
    assert torch.cat([batch.rows for batch in batches]).tolist() == expected.tolist()
    assert torch.cat([batch.images[:, 0, 0, 0] for batch in batches]).tolist() == expected.tolist()


def test_an_epoch_without_an_update_is_refused() -> None:
    assert make_fold(60).updates_per_epoch == 1
    with pytest.raises(UserError) as refused:
        make_fold(61)
    assert str(refused.value) == (
        "one update takes 61 images (--batch_size 61 x 1 processes x --accumulate 1) and an epoch "
        "of fold 2 draws 60: lower --batch_size"
    )
    # as many as one update takes, however few images there are
    assert make_fold(61, epoch_size=61).updates_per_epoch == 1
    with pytest.raises(UserError, match="of fold 2 draws 11: raise --epoch_size or lower --batch"):
        make_fold(6, 2, epoch_size=11)


def test_class_aware_sampling_is_described() -> None:
    assert describe_sampling(make_fold()) == ""
    with pytest.raises(UserError, match=r"^fold 2: none of the 50 images .* positive"):
        make_fold(training=np.zeros((50, 3)), sampler="class_aware")
    # three classes have 36 turns each: fractures come once, and with each of the 36 nodules;
    # nodules come 3 times, and once with their fractures
    assert describe_sampling(make_fold(sampler="class_aware", epoch_size=111)).splitlines() == [
        "Sampler class_aware, fold 2: an epoch makes 108 draws from 60 images.",
        "               positives  drawn an epoch",
        "Fracture              36              72",
        "Nodule                12              48",
        "(no positive)         24              36",
        "Left out, as no image here is positive: Hernia.",
    ]


def test_limits_of_a_sampler_are_described() -> None:
    data = make_fold(sampler="class_aware", sampler_cap=1.5, sampler_mix=0.2)
    title, *_, last = describe_sampling(data).splitlines()[:-1]
    assert title == (
        "Sampler class_aware, 20% uniform draws, at most 1.5 draws of an image for a class, fold "
        "2: an epoch makes 60 draws from 60 images."
    )
    # of 48 draws 16 each; and those of 12 uniform draws
    uniform = data.train_rows[make_fold().epoch_plan(0)[:12]]
    assert int(last.split()[-1]) == 16 + (~(data.table.targets[uniform] == 1).any(axis=1)).sum()


def test_repeat_factor_sampling_is_described() -> None:
    data = make_fold(2, training=rare(), sampler="repeat_factor")
    assert describe_sampling(data).splitlines() == [
        "Sampler repeat_factor, fold 2: an epoch makes 1,002 draws from 1,000 images.",
        "               positives  drawn an epoch",
        "Fracture               1               2",
        "Nodule                 1               2",
        "(no positive)        998             998",
        "Left out, as no image here is positive: Hernia.",
    ]
    # the two draws more are room for an update
    assert make_fold(1002, training=rare(), sampler="repeat_factor").updates_per_epoch == 1


def weighted(
    weights: tuple[float, ...], sources: Any = (0, 0, 0, 1, 1) * 2, **more: Any
) -> FoldData:
    """Ten images of two sources to train on, of which only the second knows nodules; one more."""
    training = np.array([[1, np.nan, 0], [0, np.nan, 0], [0, np.nan, 0], [1, 1, 0], [0, 0, 0]] * 2)
    sources = [*sources, 1] if sources else []
    return make_fold(2, 1, training, sources=sources, source_weights=weights, **more)


def test_a_weight_of_0_leaves_a_source_out_of_training() -> None:
    data = weighted((1, 0))
    assert sorted(data.train_rows) == [0, 1, 2, 5, 6, 7]
    assert data.val_rows.tolist() == [10]
    positives, known = data.training_counts()
    assert (positives.tolist(), known.tolist()) == ([2, 0, 0], [6, 0, 6])
    assert describe_sampling(data).splitlines() == [
        "Sampler uniform, fold 2: an epoch makes 6 draws from 6 images.",
        "        images  drawn an epoch",
        "nih          6               6",
        "Not trained on, by its weight of 0: own.",
        "               positives  drawn an epoch",
        "Fracture               2               2",
        "(no positive)          4               4",
        "Left out, as no image here is positive: Nodule, Hernia.",
    ]


def test_what_each_source_gives_is_printed() -> None:
    lines = describe_sampling(weighted((3, 1), epoch_size=6400)).splitlines()
    assert lines[0] == "Sampler uniform, fold 2: an epoch makes 6,400 draws from 10 images."
    assert lines[2].split() == ["nih", "6", "4,800"]
    assert lines[3].split() == ["own", "4", "1,600"]
    # one in three of the first source, and one in two of the second, which alone knows nodules
    assert [line.split() for line in lines[5:7]] == [
        ["Fracture", "4", "2,400"],
        ["Nodule", "2", "800"],
    ]
    assert describe_sampling(weighted(())) == ""


@pytest.mark.parametrize(
    ("weights", "more", "sentence"),
    [
        ((1, 1, 1), {}, "--source_weights has 3 numbers for 2 --train_csv"),
        ((1, 1), {"sources": []}, "--source_weights has 2 numbers for 1 --train_csv"),
        ((1, 1), {"sources": [0] * 10}, "fold 2: source 'own' has no image to train on"),
        ((1, 1e-5), {}, "gives source 'own' less than one draw in 10,000"),
    ],
)
def test_weights_that_do_not_fit_the_sources(
    weights: tuple[float, ...], more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        weighted(weights, **more)
