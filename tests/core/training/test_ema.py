"""Moving average of parameters and buffers, against its closed form."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from core.training.ema import MovingAverage


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(net: nn.Sequential, step: int) -> None:
    """Change every parameter and the running statistics."""
    torch.manual_seed(step + 1)
    net.train()(torch.randn(8, 3) * (step + 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("decay", [0.9999, 0.3, 0.0])
def test_average_equals_a_loop_by_hand(decay: float) -> None:
    net = model()
    average = MovingAverage(net, decay)
    expected = {name: value.double().numpy().copy() for name, value in net.state_dict().items()}
    for step in range(30):
        train(net, step)
        average.update(step)
        part = min(decay, (1 + step) / (10 + step))
        for name, value in net.state_dict().items():
            now = value.double().numpy()
            # a count of batches has no average
            integer = name.endswith("num_batches_tracked")
            expected[name] = now if integer else part * expected[name] + (1 - part) * now
    for name, value in average.module.state_dict().items():
        np.testing.assert_allclose(value.double().numpy(), expected[name], rtol=1e-5, atol=1e-5)


def test_tied_parameters_follow_once() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    nn.init.constant_(net.get_parameter("0.weight"), 0.0)
    net[1].weight = net[0].weight
    average = MovingAverage(net, 0.9999)
    nn.init.constant_(net.get_parameter("0.weight"), 1.0)
    average.update(0)
    # as of any parameter, a tenth is kept
    values = [value.item() for value in average.module.state_dict().values()]
    assert values == pytest.approx([0.9, 0.9])


def test_the_model_is_left_alone_and_the_average_is_for_evaluation_only() -> None:
    net = model()
    average = MovingAverage(net, 0.9)
    train(net, 0)
    kept = copy.deepcopy(net.state_dict())
    average.update(0)
    assert all(torch.equal(kept[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(module.training for module in average.module.modules())
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    ours = {value.data_ptr() for value in average.module.state_dict().values()}
    assert not ours & {value.data_ptr() for value in net.state_dict().values()}
