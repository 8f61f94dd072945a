"""Step monitor: decisions of all ranks on numbers that are not finite, saving and stopping."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.errors import UserError, list_first
from core.runtime.ranks import Roll
from core.runtime.signals import answer_stops, leave, put_back


class StepMonitor:
    """Watches updates without waiting for the device, and decides for all ranks together.

    A loss or gradient that is not finite raises a flag on the device; `decide` reads it, with every
    rank's stop signal and the first rank's clock, in one collective.
    """

    def __init__(
        self,
        fabric: Fabric,
        ids: Sequence[str],
        where: Callable[[], str],
        *,
        remember: int,
        save_minutes: float,
    ) -> None:
        """`ids` name the rows of the table, and `where` says which epoch it is."""
        self.fabric, self._ids, self._where = fabric, ids, where
        # the first update with a loss, and with a gradient norm, that was not finite
        self._first_bad = torch.full((2,), torch.inf, device=fabric.device)
        self._recent: deque[tuple[int, Tensor]] = deque(maxlen=remember)
        self._save_seconds = save_minutes * 60
        self._saved_at = time.monotonic()
        self._stop_code = 0

    def remember(self, update: int, rows: Tensor) -> None:
        """Keep which table rows (B,) went into `update`."""
        self._recent.append((update, rows))

    def mark(self, update: int, loss: Tensor, norm: Tensor) -> Tensor:
        """Note on the device whether `update` was finite; 1.0 where its norm was not, else 0.0."""
        bad = ~torch.isfinite(torch.stack([loss.detach(), norm.detach()]))
        self._first_bad = torch.where(bad & self._first_bad.isinf(), update, self._first_bad)
        return bad[1].float()

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Let SIGTERM, SIGUSR1 and Ctrl-C ask for a stop at the next decision; a second Ctrl-C ends
        the process at once."""
        before = answer_stops(self._ask_to_stop)
        try:
            yield
        finally:
            put_back(before)

    def decide(self) -> tuple[int, bool]:
        """(exit code of a requested stop, or 0; whether to save), the same on all ranks.

        Waits for the device. Raises UserError on all ranks where an update was not finite.
        """
        due = time.monotonic() - self._saved_at > self._save_seconds
        wishes = torch.tensor([float(self._stop_code), float(due)], device=self.fabric.device)
        views = self.fabric.all_gather(torch.cat([self._first_bad, wishes]))
        assert isinstance(views, Tensor)
        ranks = views.reshape(self.fabric.world_size, 4).cpu()
        if ranks[:, :2].isfinite().any():
            raise self._not_finite(ranks[:, :2])
        return int(ranks[:, 2].max()), bool(ranks[0, 3])

    @property
    def stops_now(self) -> bool:
        """Whether a stop was asked for to which no other process need agree."""
        return self._stop_code != 0 and self.fabric.world_size == 1

    def saved(self) -> None:
        """Start the clock of `save_minutes` anew."""
        self._saved_at = time.monotonic()

    def _ask_to_stop(self, number: int) -> None:
        if self.fabric.world_size > 1 and Roll().sibling_is_gone():
            # there will be no next decision
            leave(number)
        self._stop_code = 128 + number

    def _not_finite(self, first_bad: Tensor) -> UserError:
        """The sentence for the first bad update.

        A rank whose own loss was bad knows the images; a gradient is that of all ranks together.
        """
        what = "loss" if first_bad[:, 0].isfinite().any() else "gradient"
        column = first_bad[:, 0 if what == "loss" else 1]
        rank, update = int(column.argmin()), int(column.min())
        rows = [row for at, row in self._recent if at == update]
        if what == "loss":
            bad = self.fabric.broadcast(torch.cat(rows).tolist() if rows else [], src=rank)
        else:
            every = self.fabric.all_gather(torch.cat(rows).to(self.fabric.device))
            assert isinstance(every, Tensor)
            bad = every.flatten().tolist()
        return UserError(
            f"the {what} was not finite at update {update + 1} ({self._where()}; images "
            f"{list_first([self._ids[row] for row in bad], 8)}); nothing of it was saved. Mend the "
            "images, and the same command goes on from the last state; or start anew with lower "
            "learning rates in another --out_dir"
        )
