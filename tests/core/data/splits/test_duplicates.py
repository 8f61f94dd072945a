"""Duplicate images by content, independent of file names."""

from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from core.config.data import DataConfig
from core.config.training import SplitConfig
from core.data.images.collection import Images
from core.data.images.find_files import match_images
from core.data.splits.duplicates import find_duplicates, merge_patients
from core.data.splits.prepare import PreparedData, prepare
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.data.packs import images, packing, write_csv, write_image
from tests.helpers.fault_table import Fault

__all__ = ["images"]


def pairs_of(first: np.ndarray) -> set[tuple[int, int]]:
    return {(a, b) for a, b in combinations(range(len(first)), 2) if first[a] == first[b]}


def test_files_are_copies_where_every_byte_is_equal(tmp_path: Path, soak: bool) -> None:
    """Files that differ in one byte somewhere, of sizes around the sample's, in any order."""
    random = np.random.default_rng(0)
    contents: list[bytes] = [b"", b""]
    for size in (1, 4095, 4096, 4097, 8192, 20_000):
        whole = random.bytes(size)
        contents += [whole, whole]
        for place in {0, size // 2, size - 1}:
            changed = bytearray(whole)
            changed[place] ^= 1
            contents += [bytes(changed)] * int(random.integers(1, 3))
    for _ in range(20 if soak else 1):
        order = random.permutation(len(contents))
        for number, content in enumerate(order):
            (tmp_path / f"{number}.png").write_bytes(contents[content])
        paths = [str(tmp_path / f"{number}.png") for number in range(len(order))]
        paths.append(str(tmp_path / "gone.png"))
        first = find_duplicates(Images.of_files(paths))
        # an empty file is not an image, and a missing one is reported by its reader
        data = [contents[content] for content in order]
        equal = {
            (a, b) for a, b in combinations(range(len(data)), 2) if data[a] and data[a] == data[b]
        }
        assert pairs_of(first) == equal
        assert (first <= np.arange(len(paths))).all()


def test_images_of_a_pack_are_copies_where_every_pixel_is_equal(images: Path, call: Call) -> None:
    """There a file that was encoded again is found too, and a damaged one is left alone."""
    pixels = cv2.imread(str(images / "3.png"), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    cv2.imwrite(str(images / "again.tif"), pixels)
    assert (images / "again.tif").stat().st_size != (images / "3.png").stat().st_size
    for name in ("bad.png", "worse.png"):
        (images / name).write_bytes(b"no image")
    assert call(*packing(images, "--on_bad_image", "skip"))[0] == 0
    pack = images.parent / "pack"
    names = ["0.png", "3.png", "again.tif", "bad.png", "sub/7.png", "worse.png"]
    packed = match_images(names, pack)
    assert pairs_of(find_duplicates(packed)) == {(1, 2)}
    # and a file beside the pack is compared with files alone
    files = Images.of_files([str(images / "3.png")] * 2)
    assert pairs_of(find_duplicates(Images.concatenate([packed, files]))) == {(1, 2), (6, 7)}


@pytest.mark.parametrize("packed", [False, True])
def test_blank_images_are_not_duplicates(packed: bool, images: Path, call: Call) -> None:
    """A hundred failed exports would make one of as many patients, whom no fold could divide."""
    for name in ("black.png", "blank.png", "grey.png"):
        cv2.imwrite(str(images / name), np.full((40, 40), 90 * (name == "grey.png"), np.uint8))
    (images / "again.png").write_bytes((images / "3.png").read_bytes())
    where = images.parent / "pack" if packed else images
    if packed:
        assert call(*packing(images))[0] == 0
    names = ["3.png", "again.png", "black.png", "blank.png", "grey.png"]
    assert find_duplicates(match_images(names, where)).tolist() == [0, 0, 2, 3, 4]


def test_patients_are_joined_by_what_they_share() -> None:
    patients = np.array(["a", "b", "c", "a", "d", "e"], dtype=object)
    first = np.array([0, 0, 2, 3, 2, 5])
    groups = merge_patients(patients, first)
    assert groups is not None
    assert pairs_of(groups) == {(0, 1), (0, 3), (1, 3), (2, 4)}
    # a copy of a patient's own image changes nothing, to the object
    assert merge_patients(patients, np.array([0, 1, 2, 0, 4, 5])) is patients
    assert merge_patients(None, np.arange(6)) is None
    alone = merge_patients(None, np.array([0, 0, 2, 3, 2, 5]))
    assert alone is not None
    assert pairs_of(alone) == {(0, 1), (2, 4)}


def forty(folder: Path, *, copies: dict[int, int], pack: Call | None = None) -> DataConfig:
    """Forty patients of one image each, of which each of `copies` is another's."""
    for number in range(40):
        write_image(folder / "images" / f"{number:02d}.png", copies.get(number, number))
    csv = write_csv(folder / "train.csv", [f"{number:02d}.png" for number in range(40)])
    where = folder / "images"
    if pack is not None:
        assert pack(*packing(where))[0] == 0
        where = folder / "pack"
    return DataConfig(train_csv=(csv,), train_dir=(where,))


def prepared(data: DataConfig, **split: Any) -> tuple[PreparedData, str]:
    said: list[str] = []
    return prepare(data, SplitConfig(**split), said.append), "\n".join(said)


COPIES = dict.fromkeys(range(1, 5), 0) | dict.fromkeys(range(21, 25), 20)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("patients", ["PatientID", "none"])
def test_equal_images_fall_into_one_fold(
    packed: bool, patients: str, tmp_path: Path, call: Call, fault: Fault
) -> None:
    fault("equal pixels in train and validation", len(COPIES))
    data = forty(tmp_path, copies=COPIES, pack=call if packed else None)
    data.reading.patient_column = patients
    folds, said = prepared(data, folds=5)
    for copy, original in COPIES.items():
        assert folds.assignment[copy] == folds.assignment[original]
    owner = " of another patient" if patients == "PatientID" else ""
    assert (
        f"Warning: 8 images equal another one{owner} (01.png = 00.png, 02.png = 00.png, "
        "03.png = 00.png and 5 more)" in said
    )
    # as the same images were divided before copies were looked for
    assert sorted(np.bincount(folds.assignment)) == [8] * 5


def test_folds_without_copies_are_unchanged(tmp_path: Path) -> None:
    """Of a table in the order of names, as version 0.1.0 divided it."""
    folds, said = prepared(forty(tmp_path, copies={}), folds=4, seed=0)
    assert "equal" not in said
    assigned = "".join(map(str, folds.assignment))
    assert assigned == "1130102212213103231000332312213032010203"


def test_a_copy_in_an_official_split_is_refused(tmp_path: Path, fault: Fault) -> None:
    fault("equal pixels in train and validation", 1)
    data = forty(tmp_path, copies={38: 3, 39: 38})
    rows = data.train_csv[0].read_text().splitlines()
    data.train_csv[0].write_text("\n".join(rows[:31]))
    (tmp_path / "val.csv").write_text("\n".join([rows[0], *rows[31:]]))
    data.val_csv = (tmp_path / "val.csv",)
    with pytest.raises(UserError, match=r"^1 image of --val_csv can .* \(38\.png = 03\.png\)"):
        prepared(data)
    write_image(tmp_path / "images" / "38.png", 38)
    folds, _ = prepared(data)
    assert folds.assignment.tolist() == [-1] * 30 + [0] * 10
