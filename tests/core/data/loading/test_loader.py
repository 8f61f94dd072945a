"""Lost loader workers: the cause is known once their exit code is."""

import errno
import os

import pytest

from core.data.loading.loader import _Batches
from core.errors import UserError
from core.runtime.worker_failures import _EXIT


class LateWorker:
    """Process that closes its files before it can be waited for, as at every exit."""

    exitcode: int | None = None

    def __init__(self) -> None:
        self.sentinel, end = os.pipe()
        os.close(end)

    def join(self) -> None:
        self.exitcode = _EXIT + errno.EMFILE

    def kill(self) -> None:
        pass


def test_the_exit_code_of_a_lost_worker_is_waited_for() -> None:
    batches = _Batches.__new__(_Batches)
    batches._workers = [LateWorker()]
    with pytest.raises(UserError, match="too many open files"), batches._raise_worker_errors():
        raise EOFError
