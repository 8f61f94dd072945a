"""Which errors tell of a process that decoded images and is lost."""

import os
import signal

import pytest
from torch.utils.data import DataLoader

from core.workers import lost_worker


class Broken:
    """Images of which none can be read, for one reason or another."""

    def __init__(self, killed: bool) -> None:
        self.killed = killed

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> int:
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a mistake in the program")


@pytest.mark.parametrize("killed", [True, False])
def test_a_mistake_in_such_a_process_is_no_loss_of_it(killed: bool) -> None:
    with pytest.raises(RuntimeError) as raised:
        list(DataLoader(Broken(killed), num_workers=1))  # type: ignore[arg-type]
    assert ("same command goes on" in str(lost_worker(raised.value))) == killed
