"""Sources of batches for a phase: images for the whole model, or features for its head."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import nn

from core.data.loading.dataset import Batch, Batches
from core.data.loading.fold_data import FoldData
from core.models.predict import predict, validation_views
from core.training.run import Run


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


@dataclass
class WholeModel:
    """Images of a fold, for a phase that trains the whole model."""

    run: Run
    part: nn.Module
    data: FoldData
    validation: Batches

    def set_train(self) -> None:
        self.part.train()

    def batches(self, first: int, last: int, updates_done: int) -> Iterator[Batch]:
        return self.data.training(first, last, updates_done)

    def predict(self, evaluated: nn.Module, *, again: bool) -> np.ndarray:
        views, rows = validation_views(self.run.config.loop.tta), self.data.val_rows
        return predict(self.run.fabric, evaluated, self.validation, rows, views=views)
