"""Report of lost processes of a launch by the remaining ones."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from torch import distributed

from core.runtime import ranks

Join = Callable[[int], ranks.RankRegistry]


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch) -> Iterator[Join]:
    """One rank of four on two machines, all of which have announced themselves."""
    store = distributed.HashStore()
    # describe_loss leaves SIGTERM to the launcher
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(distributed.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(ranks, "PATIENCE", 0.2)

    def as_rank(rank: int) -> ranks.RankRegistry:
        monkeypatch.setattr(distributed, "get_rank", lambda: rank)
        registry = ranks.RankRegistry()
        registry.announce()
        return registry

    for rank in range(4):
        as_rank(rank)
    yield as_rank
    signal.signal(signal.SIGTERM, before)


def test_a_slow_process_is_not_reported_as_lost(join: Join) -> None:
    """It is on this machine, and there, but has not noticed yet what its neighbour has."""
    message = join(1).describe_loss()
    assert message is not None
    assert message.startswith("processes 3 and 4 of 4 (ranks 2 and 3) cannot be reached any more")


def test_a_process_that_ended_on_this_machine_is_named(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        join(0)
    message = join(1).describe_loss()
    assert message is not None
    assert message.startswith("process 1 of 4 (rank 0) ended without a message")


def test_only_one_waiting_process_reports(join: Join) -> None:
    """The first of them; and none where the user knows from one that left."""
    assert join(0).describe_loss() is not None
    assert join(1).describe_loss() is None
    join(2).deregister(explained=False)
    assert join(0).describe_loss() is not None
    join(3).deregister(explained=True)
    assert join(0).describe_loss() is None
