"""Sources of batches for a phase: images for the whole model, or features for its head."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from lightning_fabric import Fabric
from torch import nn

from core.config.training import LoopConfig
from core.data.loading.dataset import Batch, Batches
from core.data.loading.fold_data import FoldData
from core.models.predict import View, as_it_is, mirror, predict


class BatchSource(Protocol):
    """Batches for the part of a model that a phase trains."""

    @property
    def part(self) -> nn.Module:
        """The part that takes the batches."""

    def set_train(self) -> None:
        """Put what is trained into training mode."""

    def batches(self, first: int, last: int, updates_done: int) -> Iterator[Batch]:
        """Batches of epochs [first, last) without the first `updates_done` updates."""

    def predict(self, evaluated: nn.Module, *, again: bool) -> np.ndarray:
        """Probabilities (V, C) of the validation images by `evaluated`, the model or its average.

        `again`: the phase calls it once more.
        """


class WholeModel:
    """Images of a fold, for a phase that trains the whole model."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        data: FoldData,
        validation: Batches,
        loop: LoopConfig,
    ) -> None:
        self.part = model
        self._fabric, self._data, self._validation = fabric, data, validation
        self._views = validation_views(loop)

    def set_train(self) -> None:
        """Put the model into training mode."""
        self.part.train()

    def batches(self, first: int, last: int, updates_done: int) -> Iterator[Batch]:
        """Batches of images of epochs [first, last) without the first `updates_done` updates."""
        return self._data.training(first, last, updates_done)

    def predict(self, evaluated: nn.Module, *, again: bool) -> np.ndarray:
        """Probabilities (V, C) of the validation images."""
        rows = self._data.val_rows
        return predict(self._fabric, evaluated, self._validation, rows, views=self._views)


def validation_views(loop: LoopConfig) -> tuple[View, ...]:
    """Augmented copies over which validation probabilities are averaged."""
    return (as_it_is, mirror) if loop.tta else (as_it_is,)
