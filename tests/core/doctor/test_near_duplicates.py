"""Near duplicates: altered copies match, other images do not."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from core.data.images.decode import read_image
from core.doctor.near_duplicates import LEAST_CORRELATION, find_near_pairs, perceptual_hash


def changed(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """An image as other archives may hold it."""
    height, width = pixels.shape
    jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    again = cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE)
    assert again is not None
    return {
        "encoded": again,
        "smaller": cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA),
        "flatter": (40 + 0.6 * pixels).astype(np.uint8),
        "brighter": (255 * (pixels / 255) ** 0.7).astype(np.uint8),
        "inverted": 255 - pixels,
    }


@pytest.fixture(scope="module")
def radiographs(real_data: Path) -> list[Path]:
    folder = real_data / "nih1000" / "images"
    # and the two of different patients that are most alike of all 1,000
    closest = [folder / "00001710_000.jpg", folder / "00002469_003.jpg"]
    return [*sorted(set(folder.iterdir()) - {*closest})[:100], *closest]


def test_a_copy_looks_the_same_and_strangers_do_not(radiographs: list[Path]) -> None:
    patients = [path.name[:8] for path in radiographs]
    images = [read_image(path) for path in radiographs]
    prints = np.stack([perceptual_hash(pixels) for pixels in images])
    assert not find_near_pairs(prints, np.array(patients)).tolist()
    for pixels in images[:10]:
        for how, other in changed(pixels).items():
            pair = np.stack([perceptual_hash(pixels), perceptual_hash(other)])
            assert find_near_pairs(pair, np.arange(2)).tolist() == [[0, 1]], how


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_all_pairs_are_compared(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.doctor.near_duplicates._ROWS", rows)
    prints = np.random.default_rng(0).normal(size=(50, 576)).astype(np.float32)
    # two copies, one far away and negative, and one across the blocks
    prints[40], prints[7] = -prints[3], prints[6] + 0.1 * prints[9]
    prints /= np.linalg.norm(prints, axis=1, keepdims=True)
    alike = np.abs(np.corrcoef(prints)) >= LEAST_CORRELATION
    assert np.argwhere(np.triu(alike, 1)).tolist() == [[3, 40], [6, 7]]
    owners = np.arange(50)
    assert sorted(find_near_pairs(prints, owners).tolist()) == [[3, 40], [6, 7]]
    # two of one patient's own
    owners[40] = 3
    assert find_near_pairs(prints, owners).tolist() == [[6, 7]]
    assert find_near_pairs(prints[:1], owners[:1]).tolist() == []
    # many that are alike make no more pairs than images; of two patients, with the other's first
    same = np.ones((99, 576), dtype=np.float32) / 24
    assert find_near_pairs(same, np.arange(99)).tolist() == [[0, image] for image in range(1, 99)]
    expected = [[(image + 1) % 2, image] for image in range(1, 99)]
    assert find_near_pairs(same, np.arange(99) % 2).tolist() == expected
