"""`ensemble.infer`: cached blocks of predictions, with one process or several."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data.images import collection
from core.data.images.collection import Images
from core.data.images.decode import read_image
from core.io.lock import lock_folder
from ensemble.predict.blocks import PredictionBlocks, blocks_folder
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import Infer


@pytest.fixture
def names(phantom: Path) -> list[str]:
    """48 of the phantom's images."""
    return sorted(path.name for path in (phantom / "images").iterdir())[:48]


@pytest.fixture
def base(checkpoints: list[Path], phantom: Path, names: list[str], tmp_path: Path) -> list[object]:
    """Two models and these images, in 6 blocks of 8."""
    csv = tmp_path / "48.csv"
    pd.DataFrame({"ImageID": names}).to_csv(csv, index=False)
    words = ["--checkpoints", *checkpoints, "--image_dir", phantom / "images", "--batch_size", 2]
    return [*words, "--test_csv", csv]


@pytest.fixture
def expected(base: list[object], infer: Infer, tmp_path: Path) -> bytes:
    """Predictions of an undisturbed run."""
    assert infer(*base, "--output", tmp_path / "q.csv")[0] == 0
    return (tmp_path / "q.csv").read_bytes()


@pytest.fixture
def here(base: list[object], phantom: Path, tmp_path: Path) -> list[object]:
    """The same with images that a test may change."""
    images = shutil.copytree(phantom / "images", tmp_path / "images")
    return [*base, "--image_dir", images, "--output", tmp_path / "p.csv"]


def test_each_image_is_read_once_for_all_models_and_views(
    base: list[object],
    infer: Infer,
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: Counter[str] = Counter()

    def counted(path: str) -> np.ndarray:
        read[Path(path).name] += 1
        return read_image(path)

    monkeypatch.setattr(collection, "read_image", counted)
    assert infer(*base, "--tta_config", "heavy", "--output", tmp_path / "p.csv")[0] == 0
    assert read == Counter(names)


def test_the_shares_of_processes_cover_each_image_once(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(103)]
    with PredictionBlocks(
        tmp_path / "p.csv", Images.of_files(paths), "settings", batch_size=3
    ) as parts:
        missing = parts.open()
        assert missing == list(range(len(parts)))
        shares = [parts.batches(missing[rank::4]) for rank in range(4)]
    positions = [position for share in shares for batch in share for position in batch]
    assert sorted(positions) == list(range(103))
    assert all(len(batch) <= 3 for share in shares for batch in share)


def test_cached_predictions_are_reused_for_the_same_models_copies_and_images_only(
    here: list[object], expected: bytes, infer: Infer, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    spoiled = sorted((tmp_path / "images").iterdir())[20]
    whole = spoiled.read_bytes()
    spoiled.write_bytes(whole[:100])
    assert infer(*here)[0] == 2
    assert len(list(blocks_folder(out).iterdir())) == 6
    # one image was repaired: only its block is made again
    spoiled.write_bytes(whole)
    assert "Resuming: 5 of 6 blocks are done." in output_of(infer, *here)
    assert out.read_bytes() == expected

    spoiled.write_bytes(whole[:100])
    assert infer(*here, "--overwrite")[0] == 2
    spoiled.write_bytes(whole)
    # a refused command leaves the blocks of another one
    assert "exists: give another --output" in refusal(infer, *here, "--tta_config", "none")
    assert len(list(blocks_folder(out).glob("*.safetensors"))) == 6
    printed = output_of(infer, *here, "--overwrite", "--tta_config", "none")
    assert "Deleted 6 old blocks" in printed
    assert "Resuming" not in printed
    assert out.read_bytes() != expected


def test_a_block_that_is_damaged_is_made_again(
    here: list[object], expected: bytes, infer: Infer, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    spoiled = min((tmp_path / "images").iterdir())
    whole, state = spoiled.read_bytes(), os.stat(spoiled)
    spoiled.write_bytes(b"\0" * len(whole))
    os.utime(spoiled, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert infer(*here)[0] == 2
    blocks = sorted(blocks_folder(out).glob("*.safetensors"))
    for number in (0, 4):
        data = blocks[number].read_bytes()
        blocks[number].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    blocks[5].write_bytes(blocks[5].read_bytes()[:1000])
    spoiled.write_bytes(whole)
    os.utime(spoiled, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert "Resuming: 3 of 6 blocks are done." in output_of(infer, *here)
    assert out.read_bytes() == expected


def test_two_at_once_do_not_write_one_file(
    base: list[object], infer: Infer, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    with lock_folder(blocks_folder(out), ""):
        assert "another process is predicting into" in refusal(infer, *base, "--output", out)
    assert not out.exists()
    output_of(infer, *base, "--output", out)
