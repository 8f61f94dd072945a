"""The estimate of memory, against what can be counted by hand; that of time, as a sum."""

from pathlib import Path

import pytest
import torch
from torch import nn

from core.doctor import estimate
from core.doctor.__main__ import main
from core.doctor.above import build_model, presets_of
from core.doctor.config import Config
from core.doctor.estimate import Data, Memory, check_estimate, count_memory, saved_bytes
from core.doctor.findings import Findings
from core.errors import UserError
from tests.conftest import Call
from tests.helpers.doctor_output import marked, told

FLOAT = 4


def test_what_a_small_network_keeps_for_its_backward_pass() -> None:
    batch, inner, classes = 8, 5, 3
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(16, inner), nn.ReLU(), nn.Linear(inner, classes)
    )
    images, targets = torch.rand(batch, 1, 4, 4), torch.zeros(batch, classes)
    # the input of the first layer, the output of the ReLU (which is the input of the last layer),
    # and the logits and targets of the loss; no weights
    expected = FLOAT * batch * (16 + inner + 2 * classes)
    assert saved_bytes(network, images, targets) == expected


@pytest.mark.parametrize("method", ["standard_head", "csra_db_cas"])
def test_memory_of_weights_and_activations(method: str) -> None:
    settings = Config(model="test_efficientnet", img_size=64).training(presets_of(method)["small"])
    memory = count_memory(Findings(), method, settings, 14)
    network = build_model(method, settings, 14).train()
    count = sum(one.numel() for one in network.parameters())
    buffers = sum(one.numel() * one.element_size() for one in network.buffers())
    assert memory.parameters == count
    # weights, gradients, two moments, and the average, which has buffers too
    weights = 5 * FLOAT * count + 2 * buffers
    assert weights <= memory.weights < 1.02 * weights
    # the outline counts what real tensors take
    real = [
        saved_bytes(network, torch.zeros(n, 1, 64, 64, dtype=torch.uint8), torch.zeros(n, 14))
        for n in (2, 4)
    ]
    assert memory.image == (real[1] - real[0]) // 2


def test_too_little_memory_says_which_batch_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Config(batch_size=64).training(presets_of("standard_head")["small"])
    memory = Memory(parameters=10, weights=200, image=1_000_000)
    for free, mark in ((memory.total(64), "✓"), (memory.total(64) - 1, "✗")):
        monkeypatch.setattr(estimate, "free_memory", lambda free=free: free)
        assert told(estimate._check_memory, memory, settings)[0][0] == mark
    monkeypatch.setattr(estimate, "free_memory", lambda: memory.total(40))
    assert "--batch_size 40 would fit" in told(estimate._check_memory, memory, settings)[0][1]
    monkeypatch.setattr(estimate, "free_memory", lambda: 100)
    assert "take a smaller --img_size" in told(estimate._check_memory, memory, settings)[0][1]


def test_time_of_a_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # 0.1 s an image and 0.32 s an update of 32, so 0.11 s; 0.02 s to predict one
    monkeypatch.setattr(estimate, "measure", lambda *_: (0.1, 0.32, 0.02))
    monkeypatch.setattr(estimate, "count_memory", lambda *_: Memory(10, 200, 1000))
    settings = Config(folds=4).training(presets_of("standard_head")["small"])
    findings = told(check_estimate, "standard_head", settings, Data(1000, 14, 50.0), tmp_path)
    good = marked(findings, "✓")
    assert "9.1 images a second" in good
    # three quarters are trained on, a quarter predicted with its mirror: 92.5 s
    assert "an epoch of 1,000 images takes about 2 min" in good
    # an epoch of the head computes features alone: 4 x (15 x 92.5 s + 15 s)
    assert "4 folds of 1 + 15 epochs about 1.6 h" in good
    slow = told(check_estimate, "standard_head", settings, Data(1000, 14, 5.0), tmp_path)
    assert "pack them once (python -m core.data.pack)" in marked(slow, "!")


def test_the_command_measures(call: Call) -> None:
    code, out, _ = call(main, "--preset", "small", "--model", "test_efficientnet", "--img_size", 32)
    assert "Estimate for --method standard_head --preset small" in out
    text = " ".join(out.split())
    assert "images a second in training (measured with 2 and 8 images" in text
    assert "could not be checked" not in text
    assert code in (0, 1)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UserError, match="--batch_size must be at least 2"):
        Config(batch_size=1).training(presets_of("standard_head")["paper"])
    with pytest.raises(UserError, match="there is no --method"):
        presets_of("../methods")
