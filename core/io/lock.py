"""Folder lock: one process at a time trains, packs or predicts into a folder.

The lock is that of `filelock` (flock on POSIX, LockFileEx on Windows) on the file `.lock`, which
remains after the release.
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
    """Create `folder` and lock it until the returned file is closed or the process ends.

    Raises UserError if it is locked ("another process is `doing`"; by this process too) or its file
    system has no locks, and OSError if it cannot be created or written to.
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
                f"the file system of {folder} has no locks: give an --out_dir (or --out) on "
                "another one"
            ) from error
        raise
    _HELD.add(lock)
    return lock


def is_held(folder: Path, lock: IO[str]) -> bool:
    """Whether `lock` still belongs to this folder, which may have been moved or replaced."""
    try:
        current = (folder / LOCK).stat()
    except OSError:
        return False
    return os.path.samestat(current, os.fstat(lock.fileno()))


def is_locked(folder: Path) -> bool:
    """Whether a process has locked `folder`, which may be read-only."""
    path = folder / LOCK
    try:
        # a lock on NFS needs a file that may be written to
        with path.open("r+" if os.access(path, os.W_OK) else "r") as lock:
            # released at once, when the file is closed
            return not lock_descriptor(lock.fileno(), blocking=False)
    except OSError:
        return False


def _close_in_fork() -> None:
    """Close inherited locks: loader workers outlive a killed run for seconds."""
    for inherited in list(_HELD):
        inherited.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
