"""Averages and batch-norm statistics against NumPy; the greedy choice against given scores."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.errors import UserError
from ensemble.averaging.soup import Step, greedy
from ensemble.averaging.weights import average_tensors, update_batch_norm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_average_is_numpy_s_in_the_type_of_the_tensors(dtype: torch.dtype) -> None:
    random = np.random.default_rng(0)
    values = (1000 * random.normal(size=(3, 4, 5))).astype(str(dtype).removeprefix("torch."))
    states = [
        {"w": torch.from_numpy(one), "seen": torch.tensor(7 + place)}
        for place, one in enumerate(values)
    ]
    found = average_tensors(states)
    expected = values.astype(np.float64).mean(axis=0).astype(values.dtype)
    assert found["w"].dtype == dtype
    np.testing.assert_array_max_ulp(found["w"].numpy(), expected, maxulp=1)
    assert found["seen"].item() == 7
    # of one: the same bits
    assert torch.equal(average_tensors(states[2:])["w"], states[2]["w"])
    assert torch.equal(states[0]["w"], torch.from_numpy(values[0])), "no input is changed"


class Tiny(nn.Module):
    """Two batch norms with a dropout in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.dropout = nn.BatchNorm2d(1), nn.Dropout(0.5)
        self.linear, self.second = nn.Linear(1, 3), nn.BatchNorm1d(3, momentum=0.3)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.first(images.float() / 255).mean(dim=(2, 3))
        found: Tensor = self.second(self.linear(self.dropout(pooled)))
        return found


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batch_norm_statistics_are_numpy_s(batch_size: int) -> None:
    torch.manual_seed(0)
    model = Tiny()
    # traces of an earlier training
    for layer in (model.first, model.second):
        assert layer.running_mean is not None
        assert layer.num_batches_tracked is not None
        layer.running_mean.fill_(9)
        layer.num_batches_tracked.fill_(40)
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (11, 1, 5, 5), dtype=np.uint8)
    update_batch_norm(model, torch.from_numpy(images), batch_size)

    size = {1: 2, 4: 4, 64: 11}[batch_size]
    whole = [images[start : start + size] / 255 for start in range(0, 11 - size + 1, size)]
    first, second = model.first, model.second
    seen = {name: buffer.numpy() for name, buffer in model.named_buffers()}
    weight, bias = (one.detach().numpy() for one in model.linear.parameters())
    pooled = [
        ((x - x.mean()) / np.sqrt(x.var() + first.eps)).mean(axis=(1, 2, 3))[:, None] for x in whole
    ]
    inputs = [x @ weight.T + bias for x in pooled]  # without dropout
    np.testing.assert_allclose(
        seen["first.running_mean"], [np.mean([x.mean() for x in whole])], rtol=1e-5
    )
    variances = [x.var(ddof=1) for x in whole]
    np.testing.assert_allclose(seen["first.running_var"], [np.mean(variances)], rtol=1e-5)
    means = np.mean([x.mean(axis=0) for x in inputs], axis=0)
    np.testing.assert_allclose(seen["second.running_mean"], means, rtol=1e-4, atol=1e-6)
    variances = np.mean([x.var(axis=0, ddof=1) for x in inputs], axis=0)
    np.testing.assert_allclose(seen["second.running_var"], variances, rtol=1e-4)
    assert first.num_batches_tracked == len(whole)
    assert (first.momentum, second.momentum) == (0.1, 0.3)
    assert not any(layer.training for layer in model.modules())


def test_statistics_that_are_not_finite_are_refused() -> None:
    model = Tiny()
    with torch.no_grad():
        model.linear.weight.fill_(3e38)
        model.linear.bias.fill_(3e38)
    images = torch.randint(0, 256, (8, 1, 5, 5), dtype=torch.uint8)
    with pytest.raises(UserError, match=r"second\.running_.*too different"):
        update_batch_norm(model, images, 8)


def test_the_greedy_average_keeps_what_does_not_lower_the_score() -> None:
    # of the averages that are tried, by members
    scores = {(1, 3): 0.4, (1, 2): 0.5, (1, 2, 0): 0.6}
    steps: list[Step] = []
    kept, best = greedy([0.2, 0.5, 0.3, 0.4], lambda some: scores[tuple(some)], steps.append)
    assert (kept, best) == ([1, 2, 0], 0.6)
    assert steps == [Step(3, 0.4, False), Step(2, 0.5, True), Step(0, 0.6, True)]
    # equal scores: the order given; nothing helps
    assert greedy([0.5, 0.5], lambda some: 0.1) == ([0], 0.5)
