"""Resume state of a fold: completeness for any network, and validation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from core.training.ema import MovingAverage
from core.training.resume import ResumeState

State = tuple[ResumeState, torch.optim.Optimizer]


def start(value: float, identity: str = "a run") -> State:
    """State and optimiser of a model with tied and with unused parameters."""
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("one", "two", "unused")})
    model["two"].weight = model["one"].weight
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    state = ResumeState(model, MovingAverage(model, 0.5), torch.device("cpu"), identity)
    return state, torch.optim.AdamW(model.parameters(), lr=0.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.state.safetensors"


@pytest.fixture
def saved(path: Path) -> State:
    """A state after a step, and the file of it."""
    state, optimizer = start(1.0)
    one, two = (state.model.get_submodule(name) for name in ("one", "two"))
    two(one(torch.ones(3, 2))).sum().backward()
    optimizer.step()
    state.save(path, "all", optimizer)
    return state, optimizer


def test_a_state_of_tied_and_of_unused_parameters(saved: State, path: Path) -> None:
    (state, optimizer), (other, its_optimizer) = saved, start(2.0)
    other.load(path, first=True)
    other.load_optimizer("all", its_optimizer)
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor)
    states = [one.state_dict()["state"] for one in (optimizer, its_optimizer)]
    moments = [{index: kept for index, kept in state.items() if kept} for state in states]
    # one weight, the biases of both; nothing of what had no part in the loss
    assert moments[0].keys() == moments[1].keys() == {0, 1, 2}
    assert all(torch.equal(moments[0][n]["exp_avg"], moments[1][n]["exp_avg"]) for n in range(3))


def test_a_state_of_another_run_is_refused(saved: State, path: Path) -> None:
    with pytest.raises(UserError, match="is the state of a run with other settings, data or folds"):
        start(2.0, "another run")[0].load(path, first=True)


@pytest.mark.parametrize(
    "change",
    [
        *({"epoch": "1"}, {"update": -1}, {"finished": 1}),
        *({"best": "high"}, {"epoch": True}, {"day": 1}),
    ],
    ids=str,
)
def test_a_progress_that_is_not_understood(
    change: dict[str, Any], saved: State, path: Path
) -> None:
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, facts | {"progress": facts["progress"] | change})
    with pytest.raises(UserError, match=r"s\.state\.safetensors is not a valid resume state"):
        start(2.0)[0].load(path, first=True)


@pytest.mark.parametrize("name", ["exp_avg", "junk"])
def test_moments_that_are_not_the_optimisers(name: str, saved: State, path: Path) -> None:
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors | {f"optimizer.0.{name}": torch.zeros(3)}, facts)
    state, optimizer = start(2.0)
    state.load(path, first=True)
    with pytest.raises(UserError, match=r"s\.state\.safetensors does not fit its optimizer"):
        state.load_optimizer("all", optimizer)


@pytest.mark.parametrize(("fused", "device"), [(False, "cpu"), (True, "meta")])
def test_only_a_fused_optimizer_counts_its_steps_on_the_device(
    fused: bool, device: str, path: Path
) -> None:
    """Any other would wait for the device in each update, once for each parameter."""
    model = nn.Linear(2, 2)
    state = ResumeState(model, None, torch.device("cpu"), "a run")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    state.save(path, "all", optimizer)
    state.load(path, first=True)
    resumed = torch.optim.AdamW(model.to("meta").parameters())
    resumed.defaults["fused"] = fused
    state.load_optimizer("all", resumed)
    assert {one["step"].device.type for one in resumed.state.values()} == {device}
    assert {one["exp_avg"].device.type for one in resumed.state.values()} == {"meta"}
