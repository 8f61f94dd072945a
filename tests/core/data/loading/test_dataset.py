"""Batches and their images; unreadable images are reported and never black."""

import gc
import multiprocessing
import os
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from core.data.images.collection import Images
from core.data.loading.batches import evaluation_batches
from core.data.loading.dataset import Batch, DecodedImage, RadiographDataset, decoding_loader
from core.data.tables.label_table import LabelTable
from core.errors import UserError

SIZE = 16


def make_table(paths: list[Path]) -> LabelTable:
    """Targets 0, 1 and unknown in turn."""
    targets = np.resize(np.array([0, 1, np.nan], dtype=np.float32), (len(paths), 2))
    images = Images.of_files([str(path) for path in paths])
    ids = [path.name for path in paths]
    return LabelTable(ids=ids, images=images, targets=targets, class_names=("A", "B"))


def write(path: Path, level: int) -> Path:
    """A PNG of one grey level."""
    # cv2 itself takes no name that is not UTF-8
    path.write_bytes(cv2.imencode(".png", np.full((20, 24), level, np.uint8))[1].tobytes())
    return path


@pytest.fixture
def table(tmp_path: Path) -> LabelTable:
    """Seven images; image k has the grey level 10 k."""
    return make_table([write(tmp_path / f"{k}.png", 10 * k) for k in range(7)])


def read(table: LabelTable, rows: np.ndarray, workers: int, batch_size: int = 3) -> list[Batch]:
    batches = evaluation_batches(len(rows), batch_size)
    return list(decoding_loader(RadiographDataset(table, rows, SIZE), batches, workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_what_they_name_and_padding(table: LabelTable, workers: int) -> None:
    batches = read(table, np.array([6, 0, 3, 2]), workers)
    assert [batch.rows.tolist() for batch in batches] == [[6, 0, 3], [2, -1, -1]]
    for images, targets, rows, constant, _ in batches:
        assert (images.dtype, images.shape) == (torch.uint8, (3, 1, SIZE, SIZE))
        assert targets.dtype == torch.float32
        assert constant is not None
        assert constant.tolist() == (rows >= 0).tolist()
        there = rows >= 0
        expected = table.targets[rows[there].numpy()]
        assert np.array_equal(targets[there], expected, equal_nan=True)
        assert targets[~there].isnan().all()
        assert (images == (10 * rows).clamp(0)[:, None, None, None]).all()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["cut short", "gone", "no image"])
def test_an_unreadable_image_is_named(table: LabelTable, workers: int, damage: str) -> None:
    path = Path(table.paths[4])
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20] if damage == "cut short" else b"<html>")
    with pytest.raises(UserError) as refused:
        read(table, np.arange(7), workers)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    # the others can still be read
    assert len(read(table, np.array([0, 1, 2, 3, 5, 6]), workers)) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_names_of_any_alphabet(tmp_path: Path, workers: int) -> None:
    names = ["Röntgen ä.png", "胸部/正面 1.png", "Ж'\"%20.png", os.fsdecode(b"latin \xe4.png")]
    names.append(f"{'d' * 200}/long path.png")
    paths = []
    for level, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        try:
            paths.append(write(path, 50 + level))
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    (batch,) = read(make_table(paths), np.arange(5), workers, batch_size=5)
    assert batch.images[:, 0, 0, 0].tolist() == [50, 51, 52, 53, 54]


@pytest.mark.parametrize("workers", [0, 2])
def test_persistent_workers_read_the_same_again(table: LabelTable, workers: int) -> None:
    # ends the workers of earlier tests
    gc.collect()
    dataset = RadiographDataset(table, np.arange(7), SIZE)
    loader = decoding_loader(dataset, evaluation_batches(7, 3), workers, persistent=True)
    first, second = list(loader), list(loader)
    assert len(first) == len(second) == len(loader) == 3
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))
    assert len(multiprocessing.active_children()) == workers
    loader.close()
    assert not multiprocessing.active_children()
    with suppress(KeyError), loader:
        list(loader)
        raise KeyError
    assert not multiprocessing.active_children()
    # workers are started afresh on some systems
    sample = ForkingPickler.loads(ForkingPickler.dumps(dataset))[0, 0, 5]
    assert isinstance(sample, DecodedImage)
    assert (sample.image == 50).all()
