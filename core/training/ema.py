"""Exponential moving average of a whole model."""

import copy

import torch
from torch import nn

from core.training.l1_penalty import sparse_parameters


class MovingAverage:
    """Exponential moving average of a model's parameters and buffers.

    After update t (from 0) the decay is min(decay, (1 + t) / (10 + t)), so that a short run does
    not average in its untrained weights. Zeros of a `sparse` parameter are copied at once: an
    average alone would never reach 0.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        ours, theirs = self.module.state_dict(), model.state_dict(keep_vars=True)
        # tied tensors have several names and are averaged once
        names = {id(theirs[name]): name for name in ours}.values()
        pairs = [(ours[name], theirs[name].detach()) for name in names]
        self._floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._sparse = [(ours[name], theirs[name].detach()) for name in sparse_parameters(model)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after the model's update number `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [pair[0] for pair in self._floating]
        values = [pair[1] for pair in self._floating]
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in self._counts:
            average.copy_(value)
        for average, value in self._sparse:
            average.masked_fill_(value == 0, 0)
