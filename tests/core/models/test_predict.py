"""Prediction of each image once and in order, for any batch size."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core.data.images.collection import Images
from core.data.loading.batches import evaluation_batches
from core.data.loading.dataset import RadiographDataset, decoding_loader
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.models.predict import identity, predict
from core.models.predict import mirror as mirrored_view

SIZE, IMAGES = 8, 11

BOTH = (identity, mirrored_view)


class Linear(nn.Module):
    """Logits (B, 3) from the pixels of a grey image."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.randn(3, SIZE * SIZE, generator=torch.Generator().manual_seed(0)) / SIZE
        self.weights = nn.Parameter(weights)

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return (images.float() / 255).flatten(1) @ self.weights.T


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE)).astype(np.uint8)


@pytest.fixture
def table(tmp_path: Path, pixels: np.ndarray) -> LabelTable:
    paths = [tmp_path / f"{row}.png" for row in range(IMAGES)]
    for path, image in zip(paths, pixels, strict=True):
        cv2.imwrite(str(path), image)
    return LabelTable(
        ids=[path.name for path in paths],
        images=Images.of_files([str(path) for path in paths]),
        targets=np.zeros((IMAGES, 3), np.float32),
        class_names=("A", "B", "C"),
    )


def loader_of(table: LabelTable, rows: np.ndarray, batch_size: int) -> DataLoader:
    batches = evaluation_batches(len(rows), batch_size)
    return decoding_loader(RadiographDataset(table, rows, SIZE), batches, 0)


def truth(model: Linear, pixels: np.ndarray, *, mirror: bool) -> np.ndarray:
    """Probabilities in float64: of the image, or the mean of its and its mirror's."""
    weights = model.weights.detach().double().numpy()

    def probabilities(images: np.ndarray) -> np.ndarray:
        logits = images.reshape(len(images), -1) / 255 @ weights.T
        return 1 / (1 + np.exp(-logits))

    straight = probabilities(pixels)
    return (straight + probabilities(pixels[:, :, ::-1])) / 2 if mirror else straight


FABRIC = Fabric(accelerator="cpu", devices=1)
ROWS = [np.arange(IMAGES), np.array([7, 2, 9, 0, 4]), np.array([10, 8, 5, 3, 1]), np.array([6])]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 32])
@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: f"{len(rows)} from {rows[0]}")
def test_probabilities_in_the_order_of_the_rows(
    table: LabelTable,
    pixels: np.ndarray,
    rows: np.ndarray,
    batch_size: int,
    mirror: bool,
) -> None:
    model = Linear()
    loader = loader_of(table, rows, batch_size)
    found = predict(FABRIC, model, loader, rows, views=BOTH[: 1 + mirror])
    assert found.dtype == np.float32
    assert found.shape == (len(rows), 3)
    np.testing.assert_allclose(found, truth(model, pixels[rows], mirror=mirror), atol=1e-6)
    assert np.abs(found - truth(model, pixels[rows], mirror=not mirror)).max() > 1e-3


def test_an_unreadable_image_is_an_error(table: LabelTable) -> None:
    Path(table.paths[3]).write_bytes(b"no image")
    rows = np.arange(IMAGES)
    with pytest.raises(UserError, match=r"3\.png"):
        predict(FABRIC, Linear(), loader_of(table, rows, 4), rows, views=BOTH[:1])
