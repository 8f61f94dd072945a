"""The lock of a folder: against other processes and this one, with moved folders and forks."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from core.errors import UserError
from core.io.lock import LOCK, is_held, is_locked, lock_folder
from tests.helpers.training.small_run import ROOT

HOLD = """
import os, sys, time
from pathlib import Path
from core.io.lock import lock_folder
lock = lock_folder(Path(sys.argv[1]), "here")
"""
FORK = """
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
sys.stdin.read()
"""


@contextmanager
def holder(code: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a folder, and the line that it prints."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD + code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        try:
            yield running, running.stdout.readline()
        finally:
            running.stdin.close()


def test_a_folder_is_locked_until_the_end_of_the_holder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    assert not is_locked(folder)
    with lock_folder(folder, "here"):
        other = [sys.executable, "-c", HOLD, str(folder)]
        done = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "another process is here" in done.stderr
        # a second one in this process too, and the first one stays
        with pytest.raises(UserError, match="another process is here"):
            lock_folder(folder, "here")
        assert is_locked(folder)
    assert not is_locked(folder)
    with holder("print('held', flush=True); sys.stdin.read()", folder) as (_, line):
        assert line == "held\n"
        assert is_locked(folder)
        with pytest.raises(UserError, match="another process is here"):
            lock_folder(folder, "here")
    lock_folder(folder, "here").close()


def test_the_file_stays_and_a_folder_that_is_moved_is_not_held(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock_folder(folder, "here").close()
    before = (folder / LOCK).stat().st_ino
    with lock_folder(folder, "here") as lock:
        assert (folder / LOCK).stat().st_ino == before
        assert is_held(folder, lock)
        if os.name == "posix":
            folder.rename(tmp_path / "away")
            assert not is_held(folder, lock)
            folder.mkdir()
            (folder / LOCK).touch()
            assert not is_held(folder, lock)


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        fail = Mock(side_effect=OSError(number, os.strerror(number)))
        monkeypatch.setattr("core.io.lock.lock_descriptor", fail)
        with pytest.raises(UserError, match=r"has no locks: give an --out_dir \(or --out\) on an"):
            lock_folder(tmp_path, "here")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_fork_does_not_keep_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    with holder(FORK, tmp_path) as (parent, line):
        child = int(line)
        # the fork closes its copy, which is no release
        with pytest.raises(UserError, match="another process is here"):
            lock_folder(tmp_path, "here")
        parent.kill()
        parent.wait()
        try:
            os.kill(child, 0)
            lock_folder(tmp_path, "here").close()
        finally:
            os.kill(child, signal.SIGKILL)
