"""Formula of the refiner, and a fit of couplings to logits with known couplings."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.losses import build_loss
from methods.label_coupling.fit_couplings import fit_couplings
from methods.label_coupling.model import LabelCoupling

CLASSES = 4


def filled(alpha: float = 0.3) -> LabelCoupling:
    coupling = LabelCoupling(CLASSES, alpha)
    coupling.A.data = torch.randn(CLASSES, CLASSES, generator=torch.Generator().manual_seed(3))
    return coupling


def test_logits_are_refined_by_the_written_out_formula() -> None:
    coupling, logits = filled(0.7), torch.randn(5, CLASSES)
    expected = torch.zeros(5, CLASSES, dtype=torch.float64)
    for image in range(5):
        for target in range(CLASSES):
            value = float(logits[image, target])
            for source in range(CLASSES):
                if source != target:
                    present = 1 / (1 + math.exp(-float(logits[image, source])))
                    value += 0.7 * present * coupling.A[source, target].item()
            expected[image, target] = value
    torch.testing.assert_close(coupling(logits).double(), expected, atol=1e-5, rtol=1e-5)


def test_it_starts_as_the_identity_and_can_leave_it() -> None:
    coupling, logits = LabelCoupling(CLASSES), torch.randn(6, CLASSES)
    assert torch.equal(coupling(logits), logits)
    build_loss("bce", [1] * CLASSES, 6)(coupling(logits), torch.eye(6, CLASSES)).backward()
    assert coupling.A.grad is not None
    off_diagonal = ~torch.eye(CLASSES, dtype=torch.bool)
    assert (coupling.A.grad[off_diagonal] != 0).all()
    assert (coupling.A.grad.diagonal() == 0).all()


def drawn(images: int, planted: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Logits, and targets that follow them refined by `planted` with alpha 1."""
    random = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(images, CLASSES, generator=random) - 1
    refined = logits + torch.sigmoid(logits) @ planted
    chances = torch.rand(refined.shape, generator=random)
    return logits, (chances < torch.sigmoid(refined)).float()


@pytest.fixture(scope="module")
def planted() -> Tensor:
    couplings = torch.zeros(CLASSES, CLASSES)
    couplings[0, 2], couplings[3, 1] = 3.0, -4.0
    return couplings


def test_a_fit_finds_planted_couplings_and_nothing_else(planted: Tensor) -> None:
    logits, targets = drawn(8_000, planted, seed=0)
    coupling = LabelCoupling(CLASSES, alpha=1.0)
    fit_couplings(coupling, logits, targets, nn.BCEWithLogitsLoss(), l1=1e-3, lr=0.05)
    found = coupling.A.detach()
    assert found[0, 2] == pytest.approx(3.0, abs=0.6)
    assert found[3, 1] == pytest.approx(-4.0, abs=1.0)
    # what the penalty takes from a coupling others make up for a little
    assert found[planted == 0].abs().max() < 0.2
    assert (found == 0).sum() >= 12


@pytest.mark.parametrize("l1", [1e-4, 1e-3, 1.0])
def test_a_fit_ends_where_the_penalised_loss_is_least(l1: float, planted: Tensor) -> None:
    """By its optimality conditions: the gradient is -l1 sign(A), and at most l1 where A is 0."""
    logits, targets = drawn(500, planted, seed=1)
    coupling = LabelCoupling(CLASSES, alpha=1.0)
    fit_couplings(coupling, logits, targets, nn.BCEWithLogitsLoss(), l1=l1, lr=0.05)
    z, y, a = (t.detach().double().numpy() for t in (logits, targets, coupling.A))
    present = 1 / (1 + np.exp(-z))
    residual = 1 / (1 + np.exp(-(z + present @ a))) - y
    gradient = present.T @ residual / y.size
    off_diagonal = ~np.eye(CLASSES, dtype=bool)
    zero = (a == 0) & off_diagonal
    np.testing.assert_allclose(gradient[a != 0], -l1 * np.sign(a[a != 0]), atol=2e-6)
    assert (np.abs(gradient[zero]) <= l1 + 2e-6).all()
    assert (a[~off_diagonal] == 0).all()
    assert (a == 0).all() == (l1 == 1)
