"""Folder lock: one process at a time trains, packs or predicts into a folder.

The lock is that of `filelock` (flock on POSIX, LockFileEx on Windows) on the file `.lock`, which
stays when it is released.
"""

import errno
import os
import weakref
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

from core.errors import UserError

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_HELD: weakref.WeakSet[IO[str]] = weakref.WeakSet()


def lock_folder(folder: Path, doing: str) -> IO[str]:
    """Make `folder` and hold it until what this returns is closed, or the process ends.

    Raises UserError where it is held, by this process too ("another process is `doing`"), or its
    file system has no locks, and OSError where it cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # "w" would truncate a file that another process has locked
    lock = (folder / LOCK).open("a")
    try:
        if not lock_descriptor(lock.fileno(), blocking=False):
            raise UserError(f"another process is {doing}")
    except (OSError, UserError) as error:
        lock.close()
        if isinstance(error, OSError) and error.errno in _NO_LOCKS:
            raise UserError(
                f"{folder} cannot be locked, as its file system has no locks: give an --out_dir "
                "(or --out) on another one"
            ) from error
        raise
    _HELD.add(lock)
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
    path = folder / LOCK
    try:
        # a lock on NFS needs a file that may be written to
        with path.open("r+" if os.access(path, os.W_OK) else "r") as lock:
            # released at once, when the file is closed
            return not lock_descriptor(lock.fileno(), blocking=False)
    except OSError:
        return False


def _close_in_fork() -> None:
    """Leave locks to the parent: loader workers outlive a killed run for seconds."""
    for inherited in list(_HELD):
        inherited.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
