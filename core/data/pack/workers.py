"""Blocks of a pack, decoded and written by processes of their own."""

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
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from core.data.images.decode import load_image
from core.data.images.pack_format import Plan
from core.data.pack.inputs import state
from core.data.pack.progress import Done
from core.errors import UserError
from core.runtime.signals import STOPS, answer_stops, put_back
from core.runtime.worker_failures import require_files

# blocks are noted as done as often as this; each time waits for the disk
_SECONDS = 2.0
# files that are open for the processes together, and for each
_FILES, _FILES_EACH = 14, 2
# Windows waits for no more
_MOST = 61 if os.name == "nt" else 10_000
# what the packer decides for its processes
_OF_PACKER: list[int] = [number for number in STOPS if number != signal.SIGTERM]


@dataclass(frozen=True)
class _Task:
    block: int
    first_row: int
    size: int
    folder: Path
    files: list[tuple[str, int, int]]
    """Name in `folder`, bytes and time of change."""
    target: tuple[Path, int]
    """The array's file, and where its rows begin in it."""


def decode_blocks(
    plan: Plan,
    blocks: Sequence[int],
    index: pd.DataFrame,
    folder: Path,
    target: tuple[Path, int],
    workers: int,
    note: Callable[[list[Done]], None],
) -> None:
    """Decode `blocks` of `plan` from the files of `index` in `folder` with `workers` processes.

    Their rows go to the file and offset of `target`. `note` gets the finished blocks every few
    seconds and at the end, also where that is an exception. Raises UserError where a process ended,
    OSError where the disk is full, and after Ctrl-C, SIGTERM or SIGUSR1, once the blocks under way
    are done, KeyboardInterrupt with that signal's number.
    """
    if not blocks:
        return
    columns = [index[name].tolist() for name in ("name", "bytes", "modified")]

    def tasks() -> Iterator[_Task]:
        for block in blocks:
            rows = plan.rows(block)
            files = [tuple(column[row] for column in columns) for row in rows]
            yield _Task(block, rows.start, plan.size, folder, files, target)

    images = sum(len(plan.rows(block)) for block in blocks)
    finished: list[Done] = []
    last = -_SECONDS  # the first one at once
    workers = min(workers, len(blocks), _MOST)
    # the server of the processes would print a traceback
    require_files(_FILES + _FILES_EACH * workers)
    with _interrupts() as interrupted:
        context = multiprocessing.get_context("forkserver" if _has_forkserver() else "spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_start)
        bar = tqdm(
            desc="packing", total=plan.count, initial=plan.count - images, unit="img", disable=None
        )
        try:
            with bar:
                for done in _in_turn(pool, tasks(), 2 * workers, interrupted):
                    finished.append(done)
                    bar.update(len(plan.rows(done.block)))
                    if time.monotonic() - last > _SECONDS:
                        note(finished)
                        finished, last = [], time.monotonic()
        except BrokenProcessPool as error:
            # a signal to all of a job ends the decoding processes too
            if not interrupted:
                raise UserError(
                    f"a process that decoded images of {folder} was ended, perhaps for want of "
                    "memory: the same command goes on where this one was, with fewer --num_workers "
                    "if need be"
                ) from error
        finally:
            pool.shutdown(cancel_futures=True)
            if finished:
                note(finished)
    if interrupted:
        raise KeyboardInterrupt(interrupted[0])


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list to which a stop is added that was asked for, in place of an exception wherever the
    program is: one inside of the pool would leave it locked. What is started meanwhile ignores
    Ctrl-C and SIGUSR1, and a second stop ends the program at once."""
    asked: list[int] = []
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _OF_PACKER}
    before[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
    try:
        if _has_forkserver():
            # late: Windows has none
            from multiprocessing import forkserver

            # imported once, not in each process
            forkserver.set_forkserver_preload([__name__, "core.config.command_line"])
            forkserver.ensure_running()
        answer_stops(asked.append)
        yield asked
    finally:
        put_back(before)


def _has_forkserver() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


def _in_turn(
    pool: ProcessPoolExecutor, tasks: Iterator[_Task], most: int, interrupted: list[int]
) -> Iterator[Done]:
    """What becomes of the tasks, of which at most `most` are waiting or under way.

    Once `interrupted` holds anything, only those under way are brought to their end.
    """
    running: set[Future[Done]] = set()
    more = True
    while more or running:
        if interrupted:
            running = {one for one in running if not one.cancel()}
            more = False
        while more and len(running) < most:
            task = next(tasks, None)
            if task is None:
                more = False
            else:
                running.add(pool.submit(_decode_block, task))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (one.result() for one in done)


def _decode_block(task: _Task) -> Done:
    """Decode the images of a block, write their rows and give their checksum."""
    pixels = np.zeros((len(task.files), task.size, task.size), dtype=np.uint8)
    unreadable = []
    for position, (name, *known) in enumerate(task.files):
        path = os.path.join(task.folder, name)
        try:
            image = load_image(path, task.size)
            if state(path) != tuple(known):
                raise UserError(f"Image {path} was changed while it was packed.")
        except UserError as error:
            unreadable.append((task.first_row + position, str(error)))
        else:
            pixels[position] = image
    images, offset = task.target
    _write(images, pixels.data.cast("B"), offset + task.first_row * task.size**2)
    return Done(task.block, hashlib.sha256(pixels.data).hexdigest(), unreadable)


def _write(path: Path, data: memoryview, start: int) -> None:
    """Write at a place of a file; through a map a full disk would be a crash."""
    with path.open("r+b", buffering=0) as file:
        file.seek(start)
        while data:
            data = data[file.write(data) :]


def _start() -> None:
    cv2.setNumThreads(0)
    # the packer decides what they mean, also where this is forked by another's server
    for number in _OF_PACKER:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_packer, daemon=True).start()


def _end_with_packer() -> None:
    """Leave no process behind when the packer is killed."""
    packer = multiprocessing.parent_process()
    assert packer is not None
    wait_for([packer.sentinel])
    os._exit(1)
