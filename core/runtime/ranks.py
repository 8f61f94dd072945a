"""Ranks of one launch: equal settings on all, and which of them was lost.

Each rank writes to the launcher's store when it starts and when it ends. The store is read only
after a failure, so that a training step costs nothing more.
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

# less than the 30 s after which torchrun ends those that it asked to end
PATIENCE = 10.0
_PAUSE = 0.05


def check_equal(fabric: Fabric, texts: dict[str, str], mend: str) -> None:
    """Raise UserError, on all ranks, where they do not have the same `texts`, by what these are.

    Says which rank differs in what from the first, and how to `mend` it.
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
                f"{named([0, rank], fabric.world_size)} do not have the same "
                f"{list_first(differing)}: {mend}"
            )


def named(ranks: Iterable[int], world: int) -> str:
    """ "process 2 of 4 (rank 1)": numbers as a user counts them, and as PyTorch does."""
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
class Account:
    """Status of the ranks: waiting for an answer too, ended normally, or crashed."""

    asking: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    explained: bool = False
    """One of them printed why it ended."""
    hosted: bool = True
    """The store can be reached."""


class Roll:
    """The ranks of this launch, whose processes must be connected."""

    def __init__(self) -> None:
        # it outlives the connections between the processes
        self._store = distributed.distributed_c10d._get_default_store()
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        self._per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        first = self.rank - self.rank % self._per_node
        # the ranks of this machine, whose processes can be looked up
        self._here = range(first, first + self._per_node)

    def announce(self) -> None:
        """Let the others on this machine see later whether this process is alive."""
        self._store.set(f"pid/{self.rank}", str(os.getpid()))

    def first_to_tell(self) -> bool:
        """True in the first process that sees an error, which is to print it."""
        try:
            return self._store.add("told", 1) == 1
        except RuntimeError:
            # the store went down with a process that told before
            return False

    def leave(self, *, explained: bool) -> None:
        """Record the normal end of this process; `explained` where it printed why."""
        try:
            self._store.set(f"left/{self.rank}", json.dumps(explained))
        except RuntimeError:
            return
        if explained and self.world > self._per_node:
            # the store may end with this node; the others read it once their connection is closed
            distributed.destroy_process_group()
            self._account(asks=False)

    @staticmethod
    def is_loss(error: BaseException) -> bool:
        """Whether `error` is what a process gets when another one is no longer there."""
        return isinstance(error, distributed.DistError) or "gloo" in str(error)

    def sibling_is_gone(self) -> bool:
        """Whether a process of this machine crashed."""
        try:
            return bool(self._gone_here())
        except RuntimeError:
            return False

    def sentence_of_loss(self) -> str | None:
        """Which process was lost, found within `PATIENCE` seconds; None where another prints it."""
        # the launcher asks those that are left to end; they print first
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        known = self._account(asks=True)
        tellers = {self.rank} | known.asking
        if not known.hosted:
            # without the store the first rank of each machine prints
            tellers.add(self._here.start)
        if known.explained or min(tellers) < self.rank:
            return None
        return f"{self._describe(known)}; the same command goes on from the last state"

    def _describe(self, known: Account) -> str:
        silent = {*range(self.world)} - {*self._here} - known.asking - known.left - known.gone
        if known.gone:
            ended = "ended without a word: killed, perhaps for want of memory, or crashed"
            return f"{named(known.gone, self.world)} {ended}"
        if not known.hosted:
            first = silent & {*range(self._per_node)}
            lost = f", and {named(first, self.world)} with it" if first else ""
            return f"the launcher of the first machine is gone{lost}"
        if silent:
            lost = "cannot be reached any more: the machine, its launcher or the network is gone"
            return f"{named(silent, self.world)} {lost}"
        return "the connection between the processes was lost"

    def _account(self, *, asks: bool) -> Account:
        """Status once every rank is accounted for, or `PATIENCE` is over.

        `asks`: this rank lost another; else it only waits until those that did have read the store.
        """
        known, until = Account(), time.monotonic() + PATIENCE
        try:
            while True:
                left = self._read("left", range(self.world))
                known.left, known.explained = set(left), any(left.values())
                known.gone |= self._gone_here()
                if asks:
                    self._store.set(f"asks/{self.rank}", json.dumps(sorted(known.gone)))
                asking = self._read("asks", range(self.world))
                known.asking = set(asking)
                known.gone = known.gone.union(*asking.values()) - known.left
                met = known.asking | known.left | known.gone | {self.rank}
                if len(met) == self.world or time.monotonic() > until:
                    return known
                time.sleep(_PAUSE)
        except RuntimeError:
            known.hosted = False
            return known

    def _gone_here(self) -> set[int]:
        """Ranks of this machine that crashed."""
        gone = {rank for rank, pid in self._read("pid", self._here).items() if not _is_there(pid)}
        # read afterwards: a rank that records its end in between has not crashed
        return gone - set(self._read("left", gone))

    def _read(self, kind: str, ranks: Iterable[int]) -> dict[int, Any]:
        """Entries of a kind in the store, by rank."""
        # to get what is not there would wait for it
        there = [rank for rank in ranks if self._store.check([f"{kind}/{rank}"])]
        return {rank: json.loads(self._store.get(f"{kind}/{rank}")) for rank in there}


def _is_there(pid: int) -> bool:
    if os.name == "nt":
        # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
