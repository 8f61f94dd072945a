"""The lock of a folder: against this version and version 0.1, with forks, on NFS, without fcntl."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.io import lock as module
from core.io.lock import LOCK, is_held, is_locked, lock_folder
from tests.conftest import Train
from tests.helpers.training.small_run import ROOT, flags

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl and fork")

# as version 0.1 locked a folder
OLD = """
import fcntl, sys
lock = open(sys.argv[1] + "/.lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""
NEW = """
import sys
from pathlib import Path
from core.io.lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
"""
FORK = """
import os, time
if (child := os.fork()) == 0:
    time.sleep(60)
print(child, flush=True)
"""
WAIT = "print('held', flush=True); sys.stdin.read()"


@contextmanager
def process(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code` on a folder; its input is closed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            assert running.stdin is not None
            running.stdin.close()


@contextmanager
def held(code: str, folder: Path) -> Iterator[None]:
    """Hold a folder in another process."""
    with process(code + WAIT, folder) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield


def refused(code: str, folder: Path) -> bool:
    """Whether another process cannot take the folder."""
    words = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "BlockingIOError" in done.stderr, done.stderr
    return done.returncode != 0


@posix
def test_this_version_and_version_0_1_exclude_each_other(tmp_path: Path) -> None:
    with held(OLD, tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(BlockingIOError):
            lock_folder(tmp_path)
    assert not is_locked(tmp_path)
    with lock_folder(tmp_path):
        assert refused(OLD, tmp_path)
    assert not refused(OLD, tmp_path)


@posix
def test_a_training_beside_one_of_version_0_1_is_one_sentence(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with held(OLD, out):
        code, _, error = train(*flags(phantom, out))
    assert (code, error) == (2, f"error: another process is training in {out}\n")
    assert sorted(path.name for path in out.iterdir()) == [LOCK]


def test_this_version_is_excluded_until_the_end_of_the_holder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with lock_folder(folder):
        assert refused(NEW, folder)
        # a second one in this process too, and the first one stays
        with pytest.raises(BlockingIOError):
            lock_folder(folder)
        assert is_locked(folder)
        assert refused(NEW, folder)
        if sys.platform != "win32":
            assert refused(OLD, folder)
    assert not is_locked(folder)
    with held(NEW, folder), pytest.raises(BlockingIOError):
        lock_folder(folder)
    lock_folder(folder).close()


def test_the_file_stays_and_a_folder_that_is_moved_is_not_held(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock_folder(folder).close()
    before = (folder / LOCK).stat().st_ino
    with lock_folder(folder) as lock:
        assert (folder / LOCK).stat().st_ino == before
        assert is_held(folder, lock)
        if os.name == "posix":
            folder.rename(tmp_path / "away")
            assert not is_held(folder, lock)
            folder.mkdir()
            (folder / LOCK).touch()
            assert not is_held(folder, lock)


@posix
def test_a_fork_does_not_keep_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    with process(NEW + FORK + WAIT, tmp_path) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        # a fork may close its copy, which is no release
        with pytest.raises(BlockingIOError):
            lock_folder(tmp_path)
        assert refused(OLD, tmp_path)
        holder.kill()
        holder.wait()
        try:
            os.kill(child, 0)
            lock_folder(tmp_path).close()
        finally:
            os.kill(child, signal.SIGKILL)


@posix
def test_one_lock_is_enough_where_the_server_has_one_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS: a lock by flock and a record lock of one process exclude each other."""
    import fcntl

    lockf = fcntl.lockf

    def on_nfs(descriptor: int, operation: int) -> None:
        with (tmp_path / LOCK).open("a") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lockf(descriptor, operation)

    monkeypatch.setattr(fcntl, "lockf", on_nfs)
    with lock_folder(tmp_path):
        assert refused(OLD, tmp_path)
        assert refused(NEW, tmp_path)
    with held(OLD, tmp_path), pytest.raises(BlockingIOError):
        lock_folder(tmp_path)


@posix
def test_record_locks_do_where_there_is_no_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(module, "lock_descriptor", unsupported)
    with lock_folder(tmp_path):
        assert refused(NEW, tmp_path)
    with held(NEW, tmp_path), pytest.raises(BlockingIOError):
        lock_folder(tmp_path)
    monkeypatch.setattr(module, "fcntl", None)
    with pytest.raises(OSError, match="not supported"):
        lock_folder(tmp_path)


def test_without_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fcntl", None)
    with lock_folder(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(BlockingIOError):
            lock_folder(tmp_path)
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "nowhere")
    lock_folder(tmp_path).close()
