"""A training in this process that is asked to stop."""

import os
import signal

import pytest

from core.runs.log import FoldLog
from tests.conftest import Train


def stopped_at(train: Train, update: int, *arguments: object) -> str:
    """Runs the command until a signal asks for a stop at this update; what it printed."""
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
