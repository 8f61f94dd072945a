"""Batch sources of a phase: images for the whole model, or features for its head."""

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
    """Batches for the module that a phase trains."""

    @property
    def part(self) -> nn.Module:
        """The trained module, which takes the batches."""

    def set_train(self) -> None:
        """Set the trained module to training mode."""

    def batches(self, first: int, last: int, updates_done: int) -> Iterator[Batch]:
        """Batches of epochs [first, last), without the first `updates_done` updates."""

    def predict(self, evaluated: nn.Module, *, again: bool) -> np.ndarray:
        """Validation probabilities (V, C) by `evaluated`, the model or its average.

        `again`: a later epoch of the phase will call it again.
        """


@dataclass
class WholeModel:
    """Images of a fold as batches for the whole model."""

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
