"""Step monitor: non-finite values, saves and stops, decided on all ranks together."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor

from core.errors import UserError, list_first
from core.runtime.ranks import RankRegistry
from core.runtime.signals import exit_on_signal, handle_stops, restore_handlers


class StepMonitor:
    """Check updates without a host sync, and decide on saves and stops for all ranks.

    A loss or gradient that is not finite sets a flag on the device. `decide` gathers this flag, the
    stop signal of every rank and the clock of the first rank in one collective.
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
        """`ids`: names of the table's rows; `where`: text that names fold and epoch."""
        self.fabric, self._ids, self._where = fabric, ids, where
        # first update with a non-finite loss, and with a non-finite gradient norm
        self._first_bad = torch.full((2,), torch.inf, device=fabric.device)
        self._recent: deque[tuple[int, Tensor]] = deque(maxlen=remember)
        self._save_seconds = save_minutes * 60
        self._saved_at = time.monotonic()
        self._stop_code = 0

    def remember(self, update: int, rows: Tensor) -> None:
        """Remember the table rows (B,) of `update`, for the error message."""
        self._recent.append((update, rows))

    def mark(self, update: int, loss: Tensor, norm: Tensor) -> Tensor:
        """Record on the device whether `update` was finite; 1.0 for a non-finite norm, else 0.0."""
        bad = ~torch.isfinite(torch.stack([loss.detach(), norm.detach()]))
        self._first_bad = torch.where(bad & self._first_bad.isinf(), update, self._first_bad)
        return bad[1].float()

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Let SIGTERM, SIGUSR1 and Ctrl-C request a stop at the next decision.

        A second Ctrl-C ends the process at once.
        """
        before = handle_stops(self._ask_to_stop)
        try:
            yield
        finally:
            restore_handlers(before)

    def decide(self) -> tuple[int, bool]:
        """Exit code of a requested stop (or 0) and whether to save; equal on all ranks.

        Waits for the device. Raises UserError on all ranks if an update was not finite.
        """
        due = time.monotonic() - self._saved_at > self._save_seconds
        requests = torch.tensor([float(self._stop_code), float(due)], device=self.fabric.device)
        gathered = self.fabric.all_gather(torch.cat([self._first_bad, requests]))
        assert isinstance(gathered, Tensor)
        ranks = gathered.reshape(self.fabric.world_size, 4).cpu()
        if ranks[:, :2].isfinite().any():
            raise self._not_finite(ranks[:, :2])
        return int(ranks[:, 2].max()), bool(ranks[0, 3])

    @property
    def stops_now(self) -> bool:
        """True if a stop was requested and this is the only process."""
        return self._stop_code != 0 and self.fabric.world_size == 1

    def reset_clock(self) -> None:
        """Restart the clock of `save_minutes`, after a save."""
        self._saved_at = time.monotonic()

    def _ask_to_stop(self, number: int) -> None:
        if self.fabric.world_size > 1 and RankRegistry().has_lost_sibling():
            # no further collective can succeed
            exit_on_signal(number)
        self._stop_code = 128 + number

    def _not_finite(self, first_bad: Tensor) -> UserError:
        """Error for the first non-finite update.

        A bad loss belongs to the images of one rank; a gradient is shared by all ranks.
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
            f"{list_first([self._ids[row] for row in bad], 8)}) and was not saved. Fix the images "
            "and rerun the command to resume, or restart with lower learning rates in another "
            "--out_dir"
        )
