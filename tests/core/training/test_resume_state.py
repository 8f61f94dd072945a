"""The state of a fold holds all that a resume needs, of any network."""

from pathlib import Path

import torch
from torch import nn

from core.training.ema import MovingAverage
from core.training.resume import ResumeState


def test_a_state_of_tied_and_of_unused_parameters(tmp_path: Path) -> None:
    def start(value: float) -> tuple[ResumeState, torch.optim.Optimizer]:
        model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("one", "two", "unused")})
        model["two"].weight = model["one"].weight
        for parameter in model.parameters():
            nn.init.constant_(parameter, value)
        state = ResumeState(model, MovingAverage(model, 0.5), torch.device("cpu"), "a run")
        return state, torch.optim.AdamW(model.parameters(), lr=0.5)

    path = tmp_path / "s.state.safetensors"
    state, optimizer = start(1.0)
    one, two = (state.model.get_submodule(name) for name in ("one", "two"))
    two(one(torch.ones(3, 2))).sum().backward()
    optimizer.step()
    state.save(path, "all", optimizer)
    other, its_optimizer = start(2.0)
    other.load(path, first=True)
    other.load_optimizer("all", its_optimizer)
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor)
    states = [one.state_dict()["state"] for one in (optimizer, its_optimizer)]
    moments = [{index: kept for index, kept in state.items() if kept} for state in states]
    # one weight, the biases of both; nothing of what had no part in the loss
    assert moments[0].keys() == moments[1].keys() == {0, 1, 2}
    assert all(torch.equal(moments[0][n]["exp_avg"], moments[1][n]["exp_avg"]) for n in range(3))
