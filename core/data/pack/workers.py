"""Decoding and writing of a pack's blocks by worker processes."""

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
from tqdm import tqdm

from core.data.images.decode import load_image
from core.data.images.pack_format import Plan, Sha256
from core.data.pack.inputs import file_state
from core.errors import UserError
from core.runtime.signals import STOPS, answer_stops, put_back
from core.runtime.worker_failures import require_files

# blocks are noted as done as often as this; each time waits for the disk
_SECONDS = 2.0
# Windows waits for no more
_MOST = 61 if os.name == "nt" else 10_000
# what the packer decides for its processes
_OF_PACKER: list[int] = [number for number in STOPS if number != signal.SIGTERM]
_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()


class Done(NamedTuple):
    """A block that is decoded and written: its rows' SHA-256, and (row of the pack, reason) of each
    unreadable image, which is black."""

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
    note: Callable[[list[Done]], None],
) -> None:
    """Decode `blocks` of `plan` from the files of `index` in `folder` with `workers` processes.

    Their rows go to the file and offset of `target`; `note` gets the finished blocks every few
    seconds and at the end. Raises UserError where a process ended, OSError where the disk is full,
    and KeyboardInterrupt with the number of a stop signal, once a block is done.
    """
    if not blocks:
        return
    workers = min(workers, len(blocks), _MOST)
    # open files of all processes together, and of each; their server would print a traceback
    require_files(14 + 2 * workers)
    before = plan.count - sum(len(plan.rows(block)) for block in blocks)
    finished: list[Done] = []
    last = -_SECONDS  # the first one at once
    with _interrupts() as interrupted:
        context = multiprocessing.get_context("forkserver" if _HAS_FORKSERVER else "spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_start)
        rows = ((block, index.iloc[list(plan.rows(block))]) for block in blocks)
        tasks = (pool.submit(_decode_block, plan, *one, folder, target) for one in rows)
        bar = tqdm(desc="packing", total=plan.count, initial=before, unit="img", disable=None)
        try:
            for done in _in_turn(tasks, 2 * workers):
                finished.append(done)
                bar.update(len(plan.rows(done.block)))
                if interrupted:
                    break
                if time.monotonic() - last > _SECONDS:
                    note(finished)
                    finished, last = [], time.monotonic()
        except BrokenProcessPool as error:
            # a signal to all of a job ends the decoding processes too
            if not interrupted:
                raise UserError(
                    f"a process that decoded images of {folder} was ended, perhaps for want of "
                    "memory: the same command goes on, with fewer --num_workers if need be"
                ) from error
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)
            if finished:
                note(finished)
    if interrupted:
        raise KeyboardInterrupt(interrupted[0])


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that gets the number of a stop signal: an exception inside of the pool would leave
    it locked. Processes that are started meanwhile ignore Ctrl-C and SIGUSR1."""
    asked: list[int] = []
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _OF_PACKER}
    before[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
    try:
        if _HAS_FORKSERVER:
            # late: Windows has none
            from multiprocessing import forkserver

            # imported once, not in each process
            forkserver.set_forkserver_preload([__name__, "core.config.command_line"])
            forkserver.ensure_running()
        answer_stops(asked.append)
        yield asked
    finally:
        put_back(before)


def _in_turn(tasks: Iterator[Future[Done]], most: int) -> Iterator[Done]:
    """Results of the tasks as they come; at most `most` are submitted at a time."""
    running: set[Future[Done]] = set()
    while running := running.union(islice(tasks, most - len(running))):
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (one.result() for one in done)


def _decode_block(
    plan: Plan, block: int, files: pd.DataFrame, folder: Path, target: tuple[Path, int]
) -> Done:
    """Decode the images of a block, write their rows and give their checksum."""
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
    # through a map a full disk would be a crash
    with array.open("r+b", buffering=0) as file:
        file.seek(offset + rows.start * plan.size**2)
        data = pixels.data.cast("B")
        while data:
            data = data[file.write(data) :]
    return Done(block, hashlib.sha256(pixels.data).hexdigest(), unreadable)


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
