"""Errors that mean a lost image worker."""

import errno
import os
import signal
import sys

import pytest
from torch.utils.data import DataLoader

from core.data.images.decode import read_image
from core.errors import UserError
from core.runtime.worker_failures import explain_failed_start, explain_lost_worker


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


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("killed", [True, False])
def test_an_exception_in_a_worker_is_not_reported_as_a_lost_worker(
    killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # seconds that PyTorch's loader waits for its worker
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    with pytest.raises(RuntimeError) as raised:
        list(DataLoader(Broken(killed), num_workers=1))  # type: ignore[arg-type]
    assert ("rerun the command to resume" in str(explain_lost_worker(raised.value))) == killed


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_lack_of_resources_is_not_blamed_on_an_image(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be left out of predictions, or noted as unreadable in a pack."""

    def lack(_: str) -> bytes:
        raise OSError(number, os.strerror(number), "a.png")

    monkeypatch.setattr("core.data.images.decode._read_bytes", lack)
    with pytest.raises(OSError, match=r"a\.png"):
        read_image("a.png")
    monkeypatch.setattr("core.data.images.decode._read_bytes", lambda _: b"")
    with pytest.raises(UserError, match="the file is empty"):
        read_image("a.png")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no /dev/shm")
@pytest.mark.parametrize(
    ("number", "expected", "room"),
    [
        (errno.EMFILE, "too many open files: a process may have", False),
        (errno.ENFILE, "too many open files on this computer", False),
        (errno.EAGAIN, "no further process or thread can be started", False),
        (errno.ENOMEM, "memory is used up", False),
        (errno.ENOSPC, "shared memory is full: /dev/shm", True),
        (errno.ENOENT, "/dev/shm", True),
    ],
)
def test_the_sentence_of_a_start_and_of_an_end_name_the_same_cause(
    number: int, expected: str, room: bool
) -> None:
    start = str(explain_failed_start(OSError(number, os.strerror(number))))
    ended = f"DataLoader worker (pid 3) exited unexpectedly with exit code {100 + number}. Details"
    for sentence in (start, str(explain_lost_worker(RuntimeError(ended)))):
        assert expected in sentence
        assert ("/dev/shm" in sentence) == room
    # the connection of a crashed worker does not carry the cause
    reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    assert "crashed (SIGSEGV)" in str(explain_lost_worker(reset, (-signal.SIGSEGV,)))
    # what has a name is a matter of that file
    assert explain_failed_start(OSError(number, os.strerror(number), "a.csv")) is None
