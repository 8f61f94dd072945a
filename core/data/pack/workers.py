"""Worker processes that decode and write the blocks of a pack."""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from core.data.images.decode import load_image
from core.data.images.pack_format import Plan, Sha256
from core.data.pack.inputs import file_state
from core.errors import UserError
from core.runtime.progress_bar import ProgressBar
from core.runtime.signals import STOPS, handle_stops, restore_handlers
from core.runtime.worker_failures import require_files

# seconds between records of finished blocks, each of which syncs the disk
_NOTE_INTERVAL = 2.0
# limit of Windows
_MAX_WORKERS = 61 if os.name == "nt" else 10_000
# stop signals that workers ignore: the parent process handles them
_IGNORED: list[int] = [number for number in STOPS if number != signal.SIGTERM]
_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()


class FinishedBlock(NamedTuple):
    """A decoded and written block: SHA-256 of its rows, and (row, reason) of unreadable images.

    Rows of unreadable images are black.
    """

    block: int
    sha256: Sha256
    unreadable: list[tuple[int, str]]


def decode_blocks(
    plan: Plan,
    blocks: Sequence[int],
    index: pd.DataFrame,
    folder: Path,
    target: tuple[Path, int],
    workers: int,
    note: Callable[[list[FinishedBlock]], None],
) -> None:
    """Decode `blocks` of `plan` from the files of `index` in `folder` with `workers` processes.

    The rows are written to the file and offset of `target`; `note` gets the finished blocks every
    few seconds and at the end. Raises UserError if a process ended, OSError if the disk is full,
    and KeyboardInterrupt with the number of a stop signal, after the current block.
    """
    if not blocks:
        return
    workers = min(workers, len(blocks), _MAX_WORKERS)
    # checked first: the fork server would print a traceback
    require_files(14 + 2 * workers)
    before = plan.count - sum(len(plan.rows(block)) for block in blocks)
    finished: list[FinishedBlock] = []
    last = -_NOTE_INTERVAL  # the first one at once
    with _catch_stops() as interrupted:
        context = multiprocessing.get_context("forkserver" if _HAS_FORKSERVER else "spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
        rows = ((block, index.iloc[list(plan.rows(block))]) for block in blocks)
        tasks = (pool.submit(_decode_block, plan, *one, folder, target) for one in rows)
        bar = ProgressBar(
            desc="packing", total=plan.count, initial=before, unit="img", disable=None
        )
        try:
            for done in _as_completed(tasks, 2 * workers):
                finished.append(done)
                bar.update(len(plan.rows(done.block)))
                if interrupted:
                    break
                if time.monotonic() - last > _NOTE_INTERVAL:
                    note(finished)
                    finished, last = [], time.monotonic()
        except BrokenProcessPool as error:
            # a signal to the process group ends the workers too
            if not interrupted:
                raise UserError(
                    f"a process that decoded images of {folder} was killed, perhaps for lack of "
                    "memory: rerun the command to resume, if necessary with fewer --num_workers"
                ) from error
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)
            if finished:
                note(finished)
    if interrupted:
        raise KeyboardInterrupt(interrupted[0])


@contextmanager
def _catch_stops() -> Iterator[list[int]]:
    """Collect the numbers of stop signals in a list: an exception would leave the pool locked.

    Processes started meanwhile ignore Ctrl-C and SIGUSR1.
    """
    received: list[int] = []
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _IGNORED}
    before[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
    try:
        if _HAS_FORKSERVER:
            # late: not available on Windows
            from multiprocessing import forkserver

            # imported once in the server, not in each process
            forkserver.set_forkserver_preload([__name__, "core.config.command_line"])
            forkserver.ensure_running()
        handle_stops(received.append)
        yield received
    finally:
        restore_handlers(before)


def _as_completed(tasks: Iterator[Future[FinishedBlock]], most: int) -> Iterator[FinishedBlock]:
    """Results of the tasks as they finish; at most `most` are submitted at a time."""
    running: set[Future[FinishedBlock]] = set()
    while running := running.union(islice(tasks, most - len(running))):
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (one.result() for one in done)


def _decode_block(
    plan: Plan, block: int, files: pd.DataFrame, folder: Path, target: tuple[Path, int]
) -> FinishedBlock:
    """Decode the images of a block, write its rows and compute its checksum."""
    pixels = np.zeros((len(files), plan.size, plan.size), dtype=np.uint8)
    unreadable = []
    rows = plan.rows(block)
    for place, (name, *known) in enumerate(files[["name", "bytes", "modified"]].values.tolist()):
        path = os.path.join(folder, name)
        try:
            image = load_image(path, plan.size)
            if [*file_state(path)] != known:
                raise UserError(f"Image {path} was changed while it was packed.")
            pixels[place] = image
        except UserError as error:
            unreadable.append((rows[place], str(error)))
    array, offset = target
    # with a memory map, a full disk would crash the process
    with array.open("r+b", buffering=0) as file:
        file.seek(offset + rows.start * plan.size**2)
        data = pixels.data.cast("B")
        while data:
            data = data[file.write(data) :]
    return FinishedBlock(block, hashlib.sha256(pixels.data).hexdigest(), unreadable)


def _start_worker() -> None:
    cv2.setNumThreads(0)
    # the parent handles these, even if another process's fork server started this one
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the parent process ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)
