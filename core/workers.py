"""What is said where a process that decodes images ends, most often for want of shared memory."""

import errno
import os
import re
import shutil
from multiprocessing.queues import Queue
from pathlib import Path

from core.errors import UserError, see_doctor, size_of

# through it images come from those processes; some containers have 64 MB of it
SHARED = Path("/dev/shm")
_MEND = "give --num_workers 0, or enlarge /dev/shm (docker run --shm-size=8g)" + see_doctor(
    "tells how much is needed", " --num_workers NUMBER --img_size PIXELS --batch_size IMAGES"
)
_NO_ROOM = 77


def end_where_memory_is_full() -> None:
    """In such a process: let it end where an image finds no room, which otherwise never arrives."""
    hook = "_on_queue_feeder_error"
    assert hasattr(Queue, hook)
    setattr(Queue, hook, staticmethod(lambda *_: os._exit(_NO_ROOM)))


def cannot_start(error: OSError) -> UserError | None:
    """The sentence for such processes that cannot be started; None where it is something else."""
    if error.errno not in (errno.ENOSPC, errno.ENOENT) or error.filename is not None:
        return None
    return UserError(f"no processes can be started to decode images: {_room()}; {_MEND}")


def lost_worker(error: RuntimeError) -> UserError | None:
    """The sentence for one that ended; None where the error is something else."""
    # the number it ended with may be told in the cause alone
    told = f"{error} {error.__cause__}"
    # a mistake in such a process is told in other words
    if "DataLoader worker (pid" not in told:
        return None
    if re.search(rf"Bus error|exit code {_NO_ROOM}\b", told):
        return UserError(f"decoded images find no room in shared memory: {_room()}; {_MEND}")
    return UserError(
        f"a process that decoded images was ended, for want of memory perhaps ({_room()}): the "
        f"same command goes on; with fewer --num_workers, if need be, or a larger /dev/shm"
    )


def _room() -> str:
    try:
        room = shutil.disk_usage(SHARED)
    except OSError:
        return f"{SHARED} is not there"
    return f"{SHARED} has {size_of(room.total)}, of which {size_of(room.free)} are free"
