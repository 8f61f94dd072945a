"""Proximal step: exact zeros, in the moving average too, and no other change."""

import math

import pytest
import torch
from torch import Tensor, nn

from core.training.ema import MovingAverage
from core.training.l1_penalty import shrink, sparse_parameters
from core.training.optimizer import Phase, build_optimizer, set_rates

RATE, L1, BETAS, EPS = 0.05, 0.3, (0.9, 0.999), 1e-8
NEVER, NOW = torch.tensor(1.0), torch.tensor(0.0)


class Sparse(nn.Module):
    """A matrix that is to become sparse, beside one that is not."""

    sparse = ("A",)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.A = nn.Parameter(0.2 * torch.randn(4, 4, generator=generator))
        self.B = nn.Parameter(torch.randn(4, 4, generator=generator))


def small_model() -> tuple[nn.ModuleDict, Sparse]:
    sparse = Sparse()
    head = nn.Sequential(nn.Linear(2, 2), sparse, nn.LayerNorm(2))
    return nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": head}), sparse


def phase(l1: float = L1, decay: float = 0.0) -> Phase:
    return Phase("all", 1, {"backbone": RATE, "head": RATE, "head.1": 10 * RATE}, decay, l1=l1)


def gradients(steps: int) -> Tensor:
    return torch.randn(steps, 4, 4, generator=torch.Generator().manual_seed(2))


def written_out(start: Tensor, steps: Tensor, rate: float) -> Tensor:
    """Proximal AdamW without decay, entry by entry in Python's own numbers."""
    result = start.double().clone()
    for row in range(4):
        for column in range(4):
            value, m, v = float(start[row, column]), 0.0, 0.0
            for t, gradient in enumerate(steps[:, row, column].tolist(), start=1):
                m = BETAS[0] * m + (1 - BETAS[0]) * gradient
                v = BETAS[1] * v + (1 - BETAS[1]) * gradient**2
                metric = math.sqrt(v / (1 - BETAS[1] ** t)) + EPS
                value -= rate * m / (1 - BETAS[0] ** t) / metric
                value = math.copysign(max(abs(value) - rate * L1 / metric, 0.0), value)
            result[row, column] = value
    return result


@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_proximal_adamw(fused: bool) -> None:
    model, sparse = small_model()
    start, steps = sparse.A.detach().clone(), gradients(7)
    optimizer = build_optimizer(model, phase(), fused=fused)
    for gradient in steps:
        sparse.A.grad = gradient.clone()
        optimizer.step()
        shrink(optimizer)
    expected = written_out(start, steps, 10 * RATE)
    torch.testing.assert_close(sparse.A.detach().double(), expected, atol=1e-5, rtol=1e-5)
    zeros = sparse.A == 0
    assert torch.equal(zeros, expected == 0)
    assert 0 < zeros.sum() < 16


def test_only_what_is_named_shrinks_and_it_does_not_decay() -> None:
    model, _ = small_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, phase(l1=0.0, decay=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrink(optimizer)
    decayed = {
        name for name, p in model.named_parameters() if not torch.equal(p.detach(), before[name])
    }
    assert decayed == {"backbone.weight", "head.0.weight", "head.1.B"}
    assert set(sparse_parameters(model)) == {"head.1.A"}


def test_a_skipped_update_does_not_shrink() -> None:
    model, sparse = small_model()
    optimizer = build_optimizer(model, phase())
    # before its first step there is nothing to shrink by
    before = sparse.A.detach().clone()
    shrink(optimizer)
    assert torch.equal(sparse.A.detach(), before)
    # a first step that was left out: its moments divide 0 by 0
    optimizer.found_inf = NEVER  # type: ignore[attr-defined]
    sparse.A.grad = gradients(1)[0]
    optimizer.step()
    shrink(optimizer)
    assert torch.equal(sparse.A.detach(), before)
    optimizer.found_inf = NOW  # type: ignore[attr-defined]
    sparse.A.grad = gradients(1)[0]
    optimizer.step()
    before = sparse.A.detach().clone()
    shrink(optimizer)
    assert not torch.equal(sparse.A.detach(), before)


def test_a_part_of_a_part_has_its_own_rate_which_follows_the_schedule() -> None:
    model, _ = small_model()
    optimizer = build_optimizer(model, phase())
    # of the peak, and not of the rate before
    set_rates(optimizer, 0.25)
    set_rates(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in model.named_parameters()}
    fine = dict.fromkeys(("head.1.A", "head.1.B"), 5 * RATE)
    assert named == dict.fromkeys(named, 0.5 * RATE) | fine
    assert len(rates) == sum(len(group["params"]) for group in optimizer.param_groups)


def test_zeros_are_zeros_of_the_average() -> None:
    model = Sparse()
    average = MovingAverage(model, 0.99)
    for step in range(5):
        with torch.no_grad():
            model.A.add_(0.1)
            model.A[0, 1] = 0.0
            model.B[0, 1] = 0.0
        average.update(step)
    averaged = average.module
    assert isinstance(averaged, Sparse)
    assert averaged.A[0, 1] == 0
    assert (averaged.A == 0).sum() == 1
    # what is not declared sparse is a plain average
    assert averaged.B[0, 1] != 0
