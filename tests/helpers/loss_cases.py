"""Losses in all variants, and batches for their tests."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.losses import build_loss

NAN = math.nan

# a class without a positive, a rare one, a balanced one, a common one, one with positives only
POSITIVES = torch.tensor([0, 3, 50, 80, 100])
IMAGES = 100
CLASSES = len(POSITIVES)

# nothing here needs a clip, and what is known differs from class to class
COUNTS = [2, 9, 50, 70, 95]
KNOWN = [60, 90, 100, 98, 100]

BOTH = pytest.mark.parametrize(
    ("positives", "known"),
    [(COUNTS, KNOWN), (POSITIVES.tolist(), [IMAGES] * CLASSES)],
    ids=["ordinary", "degenerate"],
)

# a new loss joins here: (name, options), in every variant that has code of its own
EVERY: list[tuple[str, dict[str, Any]]] = [
    ("asl", {}),
    ("asl", {"gamma_neg": 0.5, "gamma_pos": 0.5}),
    ("asl", {"gamma_neg": 2.0, "gamma_pos": 1.0, "margin": 0.0}),
    ("robust_asl", {}),
    ("robust_asl", {"gamma_neg": 0.5, "gamma_pos": 0.5}),
    ("robust_asl", {"gamma_neg": 2.0, "gamma_pos": 1.0, "margin": 0.0}),
    ("bce", {}),
    ("bce", {"pos_weight": True}),
    ("weighted_bce", {}),
    ("focal", {}),
    ("focal", {"gamma": 0.5, "alpha": -1.0}),
    ("cb_focal", {}),
    ("cb_focal", {"gamma": 0.5, "beta": 0.99}),
    ("ldam", {}),
    ("ldam", {"max_margin": 0.3, "scale": 30.0}),
    ("ldam_drw", {}),
    ("distribution_balanced", {}),
    ("distribution_balanced", {"gamma": 0.5, "neg_scale": 5.0, "mu": 0.3}),
    ("distribution_balanced", {"gamma": 0.0, "alpha": 0.0, "beta": 3.0, "kappa": 0.5}),
    ("two_way", {}),
    ("two_way", {"temperature": 0.5}),
]

# what may be wrapped around any of them
AROUND: list[dict[str, Any]] = [
    {},
    {"logit_adjust": 1.0},
    {"label_smooth": 0.1},
    {"drw_epoch": 3},
]


def label(name: str, options: dict[str, Any]) -> str:
    """A test's name in pytest's output."""
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


ALL = pytest.mark.parametrize(("name", "options"), EVERY, ids=[label(*case) for case in EVERY])


def plain(name: str, **options: Any) -> nn.Module:
    """The loss for the degenerate classes of POSITIVES."""
    return build_loss(name, POSITIVES, IMAGES, **options)


def at_epoch(loss: Any, epoch: int) -> nn.Module:
    """The loss in this epoch (counted from 1)."""
    loss.set_epoch(epoch)
    return loss


def batch(seed: int = 0, images: int = 6, unknown: float = 0.0) -> tuple[Tensor, Tensor]:
    """Random logits and 0/1 targets (images, CLASSES), a part of them unknown."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, CLASSES, generator=generator) * 2
    targets = (torch.rand(images, CLASSES, generator=generator) < 0.4).float()
    hidden = torch.rand(images, CLASSES, generator=generator) < unknown
    return logits, torch.where(hidden, NAN, targets)


def value_and_gradient(loss: nn.Module, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (scalar) and its gradient at the logits (B, C)."""
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, targets)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient
