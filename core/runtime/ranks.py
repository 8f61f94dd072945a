"""Ranks of one launch: check of equal settings, report of a lost rank.

Each rank writes to the launcher's store when it starts and when it ends. The store is read only
after a failure, so that training steps have no overhead.
"""

import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from core.errors import UserError, list_first

# seconds; less than the 30 s after which torchrun kills the remaining ranks
PATIENCE = 10.0
_PAUSE = 0.05


def check_equal(fabric: Fabric, texts: dict[str, str], remedy: str) -> None:
    """Raise UserError, on all ranks, if `texts` (by name) differ between ranks.

    The message has the rank, the differing names and the `remedy`.
    """
    if fabric.world_size == 1:
        return
    ours = json.dumps(texts).encode()
    lengths = fabric.all_gather(torch.tensor(len(ours), device=fabric.device))
    assert isinstance(lengths, Tensor)
    padded = torch.frombuffer(bytearray(ours.ljust(int(lengths.max()))), dtype=torch.uint8)
    every = fabric.all_gather(padded.to(fabric.device))
    assert isinstance(every, Tensor)
    first, *others = [json.loads(bytes(row.tolist())) for row in every.cpu()]
    for rank, other in enumerate(others, start=1):
        if differing := [name for name in first | other if first.get(name) != other.get(name)]:
            raise UserError(
                f"{describe_ranks([0, rank], fabric.world_size)} do not have the same "
                f"{list_first(differing)}: {remedy}"
            )


def describe_ranks(ranks: Iterable[int], world: int) -> str:
    """ "process 2 of 4 (rank 1)": numbers from 1, and PyTorch's ranks from 0."""
    listed = sorted(ranks)
    numbers, own = (
        " and ".join(str(rank + first) for rank in listed)
        if len(listed) < 3
        else list_first([rank + first for rank in listed], 8)
        for first in (1, 0)
    )
    several = "es" if len(listed) > 1 else ""
    return f"process{several} {numbers} of {world} (rank{several[1:]} {own})"


@dataclass
class RankStatus:
    """Status of the other ranks: waiting, exited normally, or crashed."""

    waiting: set[int] = field(default_factory=set)
    exited: set[int] = field(default_factory=set)
    crashed: set[int] = field(default_factory=set)
    is_explained: bool = False
    """A rank printed why it ended."""
    has_store: bool = True
    """The store can be reached."""


class RankRegistry:
    """Registry of the ranks of this launch; their process group must be initialized."""

    def __init__(self) -> None:
        # the store outlives the connections between the ranks
        self._store = distributed.distributed_c10d._get_default_store()
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        self._per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        first = self.rank - self.rank % self._per_node
        # ranks of this machine, with processes that can be checked
        self._here = range(first, first + self._per_node)

    def announce(self) -> None:
        """Register the process id, so that ranks of this machine can check it later."""
        self._store.set(f"pid/{self.rank}", str(os.getpid()))

    def is_first_to_report(self) -> bool:
        """True in the first process that reports an error."""
        try:
            return self._store.add("reported", 1) == 1
        except RuntimeError:
            # the store ended with a process that reported before
            return False

    def deregister(self, *, explained: bool) -> None:
        """Record the normal exit of this process; `explained` if it printed why."""
        try:
            self._store.set(f"exited/{self.rank}", json.dumps(explained))
        except RuntimeError:
            return
        if explained and self.world > self._per_node:
            # the store may end with this node; the others read it once their connection closes
            distributed.destroy_process_group()
            self._wait_for_status(is_waiting=False)

    @staticmethod
    def is_loss(error: BaseException) -> bool:
        """Whether `error` means that another process is gone."""
        return isinstance(error, distributed.DistError) or "gloo" in str(error)

    def has_lost_sibling(self) -> bool:
        """Whether a rank of this machine crashed."""
        try:
            return bool(self._find_crashed())
        except RuntimeError:
            return False

    def describe_loss(self) -> str | None:
        """Describe the lost rank, within `PATIENCE` seconds; None if another rank prints it."""
        # the launcher sends SIGTERM to the remaining ranks; they print first
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        status = self._wait_for_status(is_waiting=True)
        reporters = {self.rank} | status.waiting
        if not status.has_store:
            # without the store the first rank of each machine prints
            reporters.add(self._here.start)
        if status.is_explained or min(reporters) < self.rank:
            return None
        return f"{self._describe(status)}; rerun the same command to resume"

    def _describe(self, status: RankStatus) -> str:
        known = status.waiting | status.exited | status.crashed
        silent = {*range(self.world)} - {*self._here} - known
        if status.crashed:
            reason = "ended without a message: killed, perhaps for lack of memory, or crashed"
            return f"{describe_ranks(status.crashed, self.world)} {reason}"
        if not status.has_store:
            first = silent & {*range(self._per_node)}
            lost = f", and {describe_ranks(first, self.world)} with it" if first else ""
            return f"the launcher of the first machine is gone{lost}"
        if silent:
            reason = "cannot be reached any more: the machine, its launcher or the network is gone"
            return f"{describe_ranks(silent, self.world)} {reason}"
        return "the connection between the processes was lost"

    def _wait_for_status(self, *, is_waiting: bool) -> RankStatus:
        """Status once that of every rank is known, or after `PATIENCE` seconds.

        `is_waiting`: this rank lost another one; else it only lets the others read the store.
        """
        status, until = RankStatus(), time.monotonic() + PATIENCE
        try:
            while True:
                exited = self._read("exited", range(self.world))
                status.exited, status.is_explained = set(exited), any(exited.values())
                status.crashed |= self._find_crashed()
                if is_waiting:
                    self._store.set(f"waiting/{self.rank}", json.dumps(sorted(status.crashed)))
                waiting = self._read("waiting", range(self.world))
                status.waiting = set(waiting)
                status.crashed = status.crashed.union(*waiting.values()) - status.exited
                known = status.waiting | status.exited | status.crashed | {self.rank}
                if len(known) == self.world or time.monotonic() > until:
                    return status
                time.sleep(_PAUSE)
        except RuntimeError:
            status.has_store = False
            return status

    def _find_crashed(self) -> set[int]:
        """Ranks of this machine that crashed."""
        gone = {rank for rank, pid in self._read("pid", self._here).items() if not _is_alive(pid)}
        # read afterwards: a rank that records its exit in between has not crashed
        return gone - set(self._read("exited", gone))

    def _read(self, kind: str, ranks: Iterable[int]) -> dict[int, Any]:
        """Entries of a kind in the store, by rank."""
        # `get` would block on a missing key
        present = [rank for rank in ranks if self._store.check([f"{kind}/{rank}"])]
        return {rank: json.loads(self._store.get(f"{kind}/{rank}")) for rank in present}


def _is_alive(pid: int) -> bool:
    if os.name == "nt":
        # signal 0 is Ctrl-C on Windows
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
