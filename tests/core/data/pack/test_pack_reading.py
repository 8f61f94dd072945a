"""Training from a pack (equal to training from files), and unsuitable packs."""

from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.data.images.collection import Images
from core.data.images.decode import load_image, read_image
from core.data.images.find_files import match_images
from core.data.loading.batches import evaluation_batches
from core.data.loading.dataset import RadiographDataset, decoding_loader
from core.data.loading.fold_data import check_packs
from core.data.pack.__main__ import main
from core.data.tables import LabelTable, read_table
from core.data.tables.images_to_predict import find_images
from core.errors import UserError
from ensemble.predict.blocks import PredictionBlocks
from ensemble.predict.dataset import ImagesAtSizes
from tests.conftest import Call, Train
from tests.helpers.data.packs import SIZE, images, packing, write_csv, write_image
from tests.helpers.training.small_run import MODEL, flags

__all__ = ["images"]


@pytest.fixture
def pack(images: Path, call: Call) -> Path:
    assert call(*packing(images))[0] == 0
    return images.parent / "pack"


def both(images: Path, pack: Path) -> LabelTable:
    """Five images, the first three of the pack and the others files."""
    names = ["sub/9.png", "0.png", "4", "8", "2.png"]
    table = read_table(write_csv(images.parent / "five.csv", names), pack)
    assert table.paths[:3] == [f"{pack}/sub/9.png", f"{pack}/0.png", f"{pack}/4.png"]
    parts = [table.images.take(np.arange(3)), match_images(names[3:], images)]
    return replace(table, images=Images.concatenate(parts))


@pytest.mark.parametrize("workers", [0, 2])
def test_packs_and_files_are_read_together(images: Path, pack: Path, workers: int) -> None:
    table = both(images, pack)
    with pytest.raises(ValueError, match="read-only"):
        table.images.read(0)[0, 0] = 1
    dataset = RadiographDataset(table, np.array([4, 0, 3, 1, 2]), SIZE)
    loader = decoding_loader(dataset, evaluation_batches(5, 3), workers)
    read = torch.cat([batch.images for batch in loader])[:5, 0].numpy()
    names = ["2.png", "sub/9.png", "sub/8.png", "0.png", "4.png"]
    assert np.array_equal(read, [load_image(images / name, SIZE) for name in names])


def test_images_can_be_sent_to_a_process_started_afresh(images: Path, pack: Path) -> None:
    five = both(images, pack).images
    expected = [five.read(place) for place in range(5)]
    # what is sent: no image, and no object for each
    assert len(ForkingPickler.dumps(five)) < 1500
    with get_context("spawn").Pool(1) as pool:
        afresh = pool.map(five.read, range(5))
    assert all(np.array_equal(*pair) for pair in zip(afresh, expected, strict=True))


def test_a_pack_of_another_size(images: Path, pack: Path) -> None:
    table = read_table(write_csv(images.parent / "a.csv", ["0.png"]), pack)
    assert check_packs(table, SIZE) == []
    with pytest.raises(UserError, match=r"holds images of 8 px and 16 px are needed.* --size 16"):
        check_packs(table, 16)
    (note,) = check_packs(table, 5)
    assert "8 px, resized to 5 px" in note
    assert match_images(["0.png"], images).check_sizes([4]) == []


def test_a_marked_image_is_refused_with_its_reason(images: Path, call: Call) -> None:
    (images / "3.png").write_bytes(b"<html>")
    call(*packing(images, "--on_bad_image", "skip"))
    pack = images.parent / "pack"
    table = read_table(write_csv(images.parent / "a.csv", ["0.png", "3.png"]), pack)
    with pytest.raises(
        UserError, match=r"1 of 2 images .*when they were packed: 3\.png \(Image .*not a PNG"
    ):
        check_packs(table, SIZE)
    others = read_table(write_csv(images.parent / "b.csv", ["0.png", "4.png"]), pack)
    assert check_packs(others, SIZE) == []
    with pytest.raises(UserError) as refused:
        read_image(images / "3.png")
    assert ImagesAtSizes(table.images, [4])[1] == (1, str(refused.value), [])
    with pytest.raises(UserError, match=r"1 of 1 images has no file in .*pack: gone\.png"):
        read_table(write_csv(images.parent / "a.csv", ["gone.png"]), pack)


def test_predictions_of_a_changed_pack_are_made_again(images: Path, pack: Path, call: Call) -> None:
    def parts() -> list[Path]:
        found = find_images(pack, None).images
        return PredictionBlocks(images.parent / "p.csv", found, "settings", 2)._files

    before = parts()
    assert parts() == before
    write_image(images / "0.png", 500)
    assert call(*packing(images, "--overwrite"))[0] == 0
    assert not set(before) & set(parts())


def test_the_weights_are_those_of_a_training_from_files(
    phantom: Path, finished: tuple[Path, str], train: Train, call: Call, tmp_path: Path
) -> None:
    source = ("--train_csv", phantom / "train.csv", "--train_dir", phantom / "images")
    assert call(main, *source, "--size", 32, "--out", tmp_path / "pack")[0] == 0
    code, _, err = train(
        *flags(phantom, tmp_path / "out", "--train_dir", tmp_path / "pack", "--img_size", 40)
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "holds images of 32 px and 40 px are needed" in err
    assert not (tmp_path / "out").exists()
    # that one had no workers
    more = ("--train_dir", tmp_path / "pack", "--num_workers", 2, "--run_folds", 1)
    code, _, err = train(*flags(phantom, tmp_path / "out", *more))
    assert code == 0, err
    name = f"{MODEL}_fold1.safetensors"
    ours, theirs = load_file(tmp_path / "out" / name), load_file(finished[0] / name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    name = f"{MODEL}_fold1_val.csv"
    assert (tmp_path / "out" / name).read_bytes() == (finished[0] / name).read_bytes()
