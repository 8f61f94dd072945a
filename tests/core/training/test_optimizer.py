"""The optimiser decays what it should, follows its schedule, and can skip an update."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from core.training.optimizer import Phase, build_optimizer, rate_factor


def small_model() -> nn.ModuleDict:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten()),
            "head": nn.Sequential(nn.Linear(16, 3), nn.LayerNorm(3)),
        }
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def test_only_weights_of_more_than_one_dimension_decay() -> None:
    model = small_model()
    phase = Phase("", 1, {"backbone": 0.1, "head": 0.01}, weight_decay=0.5)
    optimizer = build_optimizer(model, phase)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    # AdamW without a gradient does nothing but p <- p (1 - rate decay)
    optimizer.step()
    shrunk = {"backbone.0.weight": 1 - 0.1 * 0.5, "head.0.weight": 1 - 0.01 * 0.5}
    for name, now in model.named_parameters():
        torch.testing.assert_close(now.detach(), before[name] * shrunk.get(name, 1.0))


def test_a_part_without_a_rate_is_not_trained() -> None:
    model = small_model()
    optimizer = build_optimizer(model, Phase("", 1, {"head": 1e-3}, weight_decay=0.1))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model["head"].parameters()}


def torchs_schedule(schedule: str, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = (
        LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)
        if schedule == "linear"
        else CosineAnnealingLR(optimizer, T_max=steps)
    )
    rates = []
    for _ in range(steps):
        rates.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("steps", "warmup"), [(50, 0), (50, 1), (50, 7), (3, 2), (10, 10)])
def test_schedule_is_a_linear_warmup_then_a_cosine(steps: int, warmup: int) -> None:
    ours = [rate_factor(step, steps, warmup) for step in range(steps)]
    linear = torchs_schedule("linear", warmup) if warmup > 1 else [1.0] * warmup
    cosine = torchs_schedule("cosine", steps - warmup) if steps > warmup else []
    assert ours == pytest.approx(linear + cosine, abs=1e-9)
    if steps > warmup:
        assert rate_factor(steps, steps, warmup) == pytest.approx(0, abs=1e-12)
