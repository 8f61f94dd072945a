"""Optimiser: trained parts and learning rate schedule."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from core.training.optimizer import Phase, build_optimizer, rate_factor


def test_a_part_without_a_rate_is_not_trained() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optimizer = build_optimizer(model, Phase("", 1, {"head": 1e-3}, weight_decay=0.1))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model["head"].parameters()}


@pytest.mark.parametrize("name", ["test_vit3", "test_efficientnet", "coat_lite_tiny", "levit_128s"])
def test_what_decays_is_what_decays_by_timm(name: str) -> None:
    network = timm.create_model(name)
    listed: set[str] = getattr(network, "no_weight_decay", set)()
    plain, decayed = param_groups_weight_decay(network, 0.1, no_weight_decay_list=listed)
    model = nn.ModuleDict({"backbone": network})
    phase = Phase("", 1, {"backbone": 1e-3}, weight_decay=0.1)
    groups = {g["weight_decay"]: g["params"] for g in build_optimizer(model, phase).param_groups}
    assert set(map(id, groups[0.1])) == set(map(id, decayed["params"]))
    assert set(map(id, groups[0.0])) == set(map(id, plain["params"]))
    older = build_optimizer(model, phase, decay_tokens=True).param_groups
    of_before = {id(p) for p in network.parameters() if p.ndim > 1}
    assert {id(p) for g in older if g["weight_decay"] for p in g["params"]} == of_before


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("test_resnet", "conv1.0.weight", "layer4.0.conv2.weight"),
        ("test_vit3", "patch_embed.proj.weight", "attn_pool.q.weight"),
    ],
)
def test_rates_of_layers_by_their_closed_form(name: str, first: str, last: str) -> None:
    """Also those of timm's groups; the first step of AdamW is the rate itself."""
    network = timm.create_model(name, num_classes=0)
    # the stem, the blocks, and after the blocks of a ViT its norm and pooling
    depth = {"test_resnet": 4, "test_vit3": len(getattr(network, "blocks", "")) + 1}[name]
    model = nn.ModuleDict(
        {"backbone": nn.ModuleDict({"network": network}), "head": nn.Linear(2, 2)}
    )
    rates = {"backbone": 1e-3, "head": 5e-3}
    phase = Phase("", 1, rates, layer_decay=0.5)
    optimizer = build_optimizer(model, phase)
    found = {id(p): group["peak"] for group in optimizer.param_groups for p in group["params"]}
    scales = {
        id(p): group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.5)
        for p in group["params"]
    }
    expected = {key: 1e-3 * scale for key, scale in scales.items()}
    expected |= {id(p): 5e-3 for p in model["head"].parameters()}
    assert found == expected
    names = dict(network.named_parameters())
    assert found[id(names[first])] == 1e-3 * 0.5**depth
    assert found[id(names[last])] == 1e-3
    before = {key: value.detach().clone() for key, value in names.items()}
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    for key, rate in ((first, 1e-3 * 0.5**depth), (last, 1e-3)):
        moved = before[key] - names[key].detach()
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-2, atol=1e-7)


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
