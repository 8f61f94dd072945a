"""Training in this process with a stop request."""

import os
import signal

import pytest

from core.runs.log import FoldLog
from tests.conftest import Train


def stopped_at(train: Train, update: int, *arguments: object) -> str:
    """Run the command until a signal stops it at this update; return its output."""
    updates, advance = 0, FoldLog.advance

    def ask(self: FoldLog, images: int) -> None:
        nonlocal updates
        updates += 1
        if updates == update:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FoldLog, "advance", ask)
        code, printed, _ = train(*arguments)
    assert code == 128 + signal.SIGTERM
    return printed
