"""Folder lock: one process at a time trains, packs or predicts into a folder.

The lock is the file `.lock`, which stays when it is released. It is locked twice: by `filelock`
(flock on POSIX, LockFileEx on Windows), and on POSIX by a record lock, the only one that version
0.1 takes and sees.
"""

import errno
import os
import weakref
from pathlib import Path
from typing import IO

from filelock import lock_descriptor, unlock_descriptor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
# what this process holds, by device and inode: to close any file of a lock drops its record locks
_HELD: dict[tuple[int, int], weakref.ref[IO[str]]] = {}


def lock_folder(folder: Path) -> IO[str]:
    """Make `folder` and hold it until what this returns is closed, or the process ends.

    Raises BlockingIOError where it is held, by this process too, and other OSErrors where it cannot
    be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _is_held_here(folder):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    # "w" would truncate a file that another process has locked
    lock = (folder / LOCK).open("a")
    try:
        _acquire(lock.fileno())
    except OSError:
        lock.close()
        raise
    status = os.fstat(lock.fileno())
    _HELD[status.st_dev, status.st_ino] = weakref.ref(lock)
    return lock


def is_held(folder: Path, lock: IO[str]) -> bool:
    """Whether `lock` still holds this folder, which may have been removed, moved or replaced."""
    try:
        there = (folder / LOCK).stat()
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(lock.fileno()))


def is_locked(folder: Path) -> bool:
    """Whether a process holds `folder`, which may be read-only."""
    if _is_held_here(folder):
        return True
    try:
        with (folder / LOCK).open() as lock:
            # released at once, when the file is closed
            if fcntl is None:
                return not lock_descriptor(lock.fileno(), blocking=False)
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_held_here(folder: Path) -> bool:
    """Whether this process holds the folder, by whatever path."""
    try:
        status = (folder / LOCK).stat()
    except OSError:
        return False
    reference = _HELD.get((status.st_dev, status.st_ino))
    lock = reference() if reference else None
    return lock is not None and not lock.closed


def _acquire(descriptor: int) -> None:
    """Take both locks of an open file. Raises BlockingIOError where another process has one."""
    try:
        free = lock_descriptor(descriptor, blocking=False)
    except OSError:
        # a network file system may offer record locks alone
        if fcntl is None:
            raise
        free = True
    if not free:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if fcntl is None:
        return
    exclusive = fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.lockf(descriptor, exclusive)
    except BlockingIOError:
        # NFS turns flock into a record lock of another owner, which then refuses this one
        unlock_descriptor(descriptor)
        fcntl.lockf(descriptor, exclusive)


def _close_in_fork() -> None:
    """Let no fork share a flock: loader workers outlive a killed run for seconds.

    Closing leaves the lock with the parent; record locks are not inherited at all.
    """
    for reference in _HELD.values():
        if inherited := reference():
            inherited.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
