"""Images and calls for tests of packs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from core.data.images.decode import load_image
from core.data.images.pack_format import open_packs
from core.data.pack import inputs as pack_files
from core.data.pack.__main__ import main
from tests.conftest import Call

SIZE = 8
ROWS = 4  # images in a block


def write_image(path: Path, seed: int) -> Path:
    """A PNG of noise, larger than SIZE."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


def write_csv(path: Path, names: list[str]) -> Path:
    rows = [f"{name},{number},{number % 2}" for number, name in enumerate(names)]
    path.write_text("\n".join(["ImageID,PatientID,Mass", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten images, three of them in a sub-folder, packed four to a block."""
    monkeypatch.setattr(pack_files, "_MOST_ROWS", ROWS)
    for number in range(10):
        below = "sub/" if number > 6 else ""
        write_image(tmp_path / "images" / f"{below}{number}.png", number)
    return tmp_path / "images"


def packing(images: Path, *more: object) -> list[object]:
    """`call` packs these images into "pack" beside them, with one worker."""
    return [
        *(main, "--train_dir", images, "--size", SIZE),
        *("--out", images.parent / "pack", "--num_workers", 1, *more),
    ]


def refusal(call: Call, images: Path, *more: object) -> str:
    """Error message of `packing`."""
    code, _, err = call(*packing(images, *more))
    assert (code, err.count("\n")) == (2, 1)
    return err


def pack_names(folder: Path) -> list[str]:
    """The names of all images of a pack."""
    return [name for pack in open_packs(folder) for name in pack.index["name"]]


def check_pixels(folder: Path, images: Path) -> None:
    """Check that each image of a pack equals the one read from its file."""
    for pack in open_packs(folder):
        for name, pixels in zip(pack.index["name"], pack.images, strict=True):
            assert np.array_equal(pixels, load_image(images / name, pack.plan.size)), name
