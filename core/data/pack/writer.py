"""Make a pack: begin it or go on, decode its blocks in parallel, and finish it."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.images.pack_format import (
    BEGUN,
    DONE,
    FACTS,
    IMAGES,
    INDEX,
    PARTS,
    Pack,
    Plan,
    map_images,
    part_folder,
    read_index,
    read_pack,
    read_plan,
    write_facts,
    write_index,
)
from core.data.pack.inputs import Files, changed_rows, differing_names
from core.data.pack.progress import Done, lines_of, read_done
from core.data.pack.workers import decode_blocks
from core.errors import UserError, counted, size_of, some
from core.io.atomic import make_folder, write_atomically
from core.io.lock import LOCK, lock_folder
from core.runtime.worker_failures import lost_worker

# in this order a kill in the midst of deleting leaves no pack that looks whole
_OURS = (FACTS, BEGUN, DONE, INDEX, IMAGES)
# what a kill leaves of a file that was being written
_LEFT = re.compile(r"\.(index|pack(\.\w+)?)\.\d+\.(csv|jsonl?)")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, eq=False)
class Begun:
    """An unfinished pack: what its folder held when it was taken up."""

    folder: Path
    plan: Plan
    index: pd.DataFrame
    done: dict[int, Done]


def write_pack(
    files: Files, plan: Plan, out: Path, *, workers: int, skip_unreadable: bool, overwrite: bool
) -> dict[str, str]:
    """Pack `files` into `out` (one of several parts: below it) and return the unreadable ones.

    What an earlier call did is kept; images that could not be read then are tried again. Where some
    still cannot (by name, with the reason), the pack is left unfinished unless `skip_unreadable`
    marks them in its index. Raises UserError where the folder is another process's, holds something
    else or a pack of other images, settings or files (unless `overwrite`), and where the disk
    cannot hold it.
    """
    folder = out if plan.parts == 1 else part_folder(out, plan.part, plan.parts)
    _check_folder(out, folder, plan, overwrite=overwrite)
    _check_space(folder, plan, files)
    with ExitStack() as stack, _told(folder):
        make_folder(folder)
        try:
            stack.enter_context(lock_folder(folder))
        except BlockingIOError as error:
            raise UserError(f"another process is packing into {folder}") from error
        _tidy(folder)
        if plan.parts > 1:
            _note_parts(out, folder, plan)
        if overwrite:
            delete_pack(folder)
        begun = _take_up(folder, plan, files)
        if isinstance(begun, Pack):
            return _named_unreadable(begun.index, begun.unreadable)
        _decode(begun, files.folder, workers)
        reasons = {row: why for done in begun.done.values() for row, why in done.unreadable}
        if not reasons or skip_unreadable:
            _finish(begun, reasons)
        return _named_unreadable(begun.index, reasons)


def delete_pack(folder: Path) -> None:
    """Delete the files of a pack, finished or not, and nothing else."""
    for name in _OURS:
        (folder / name).unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Delete what a kill left of files that were being written."""
    for name in os.listdir(folder):
        if _LEFT.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
    # on its way to the folder of all parts
    (folder / PARTS).unlink(missing_ok=True)


def _check_folder(out: Path, folder: Path, plan: Plan, *, overwrite: bool) -> None:
    """Raise UserError where `out` holds no pack but something else, or is divided otherwise."""
    for place in {out, folder}:
        there = set(os.listdir(place)) if place.is_dir() else set()
        ours = {name for name in there if name.startswith("part_") or _LEFT.fullmatch(name)}
        if there - {LOCK, *_OURS, *ours} and not there & {FACTS, BEGUN, PARTS}:
            raise UserError(f"{place} holds files that are no pack's: give a new or empty --out")
    if plan.parts == 1:
        if (out / PARTS).exists():
            raise UserError(
                f"{out} holds a pack in parts: go on with --part, or give another --out"
            )
        return
    if (out / FACTS).exists() or (out / BEGUN).exists():
        raise UserError(f"{out} holds a pack that is not in parts: give another --out")
    if not (out / PARTS).exists() or overwrite:
        return
    begun = read_plan(out / PARTS)
    if replace(begun, block_rows=plan.block_rows) != _whole(plan):
        raise UserError(
            f"the pack {out} was begun with {_difference(begun, _whole(plan))}: give another "
            "--out, or --overwrite to pack each part anew"
        )


def _note_parts(out: Path, folder: Path, plan: Plan) -> None:
    """Let a folder of parts say what they all have in common.

    It is written in the part's own folder: what a kill leaves in the other nobody may clear away.
    """
    whole = _whole(plan)
    if not (out / PARTS).exists() or read_plan(out / PARTS) != whole:
        write_atomically(folder / PARTS, lambda path: write_facts(path, whole))
        (folder / PARTS).replace(out / PARTS)


def _whole(plan: Plan) -> Plan:
    """What a folder of parts says of them all."""
    return replace(plan, count=plan.total, part=1)


def _difference(begun: Plan, plan: Plan) -> str:
    """In words what `begun` has otherwise than `plan`."""
    if begun.size != plan.size:
        return f"--size {begun.size}, not {plan.size}"
    if begun.parts != plan.parts:
        return f"{begun.parts} parts, not {plan.parts}"
    if begun.total != plan.total:
        return f"{counted(begun.total, 'image')}, not {plan.total:,}"
    return "images of other names"


def _check_space(folder: Path, plan: Plan, files: Files) -> None:
    """Raise UserError where the disk cannot hold the pack besides what is there of it already."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    index = sum(map(len, files.names)) + 64 * plan.count
    needed = plan.count * plan.size**2 + 2 * index
    with suppress(OSError):
        there_already = (folder / IMAGES).stat()
        # Windows counts no blocks, and keeps no file sparse unless asked
        needed -= getattr(there_already, "st_blocks", there_already.st_size // 512) * 512
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"the pack {folder} needs {size_of(needed)} more and {size_of(free)} are free there: "
            "free some space, or take a smaller --size or another --out"
        )


def _take_up(folder: Path, plan: Plan, files: Files) -> Begun | Pack:
    """Begin a pack, or go on with what is in its folder; a whole one with nothing to do as it is.

    Raises UserError where the folder was begun otherwise.
    """
    whole = read_pack(folder) if (folder / FACTS).exists() else None
    if whole is None and not (folder / BEGUN).exists():
        return _begin(folder, plan, files)
    before = read_plan(folder / (BEGUN if whole is None else FACTS))
    index = whole.index if whole else read_index(folder / INDEX, before.count)
    _check_same(folder, before, plan, index, files)
    done = _done_of(whole) if whole else read_done(folder / DONE, before)
    spoiled = {row: why for one in done.values() for row, why in one.unreadable}
    changed = changed_rows(index, files)
    others = [files.names[row] for row in changed if row not in spoiled]
    if others:
        have = counted(len(others), "file has", "files have")
        raise UserError(
            f"{have} other bytes or another time of change than when the pack {folder} was begun: "
            f"{some(others)}; pass --overwrite to pack all anew"
        )
    if whole and not len(changed):
        for name in (BEGUN, DONE):
            (folder / name).unlink(missing_ok=True)
        return whole
    index = files.index()
    # in this order, so that a kill leaves a whole pack or an unfinished one
    write_atomically(folder / DONE, lambda path: path.write_text(lines_of(done.values())))
    write_atomically(folder / BEGUN, lambda path: write_facts(path, before))
    (folder / FACTS).unlink(missing_ok=True)
    write_atomically(folder / INDEX, lambda path: write_index(path, index))
    return Begun(folder, before, index, done)


def _done_of(whole: Pack) -> dict[int, Done]:
    """The blocks of a finished pack as they were noted."""
    spoiled, done = whole.unreadable, {}
    for block, checksum in enumerate(whole.blocks):
        reasons = [(row, spoiled[row]) for row in whole.plan.rows(block) if row in spoiled]
        done[block] = Done(block, checksum, reasons)
    return done


def _check_same(folder: Path, before: Plan, plan: Plan, index: pd.DataFrame, files: Files) -> None:
    """Raise UserError where a pack was begun with another plan; it names what differs."""
    # the block is no matter of the user's
    if before == replace(plan, block_rows=before.block_rows):
        return
    what = _difference(before, plan)
    names = differing_names(index, files.names)
    if before.size == plan.size and before.part == plan.part and names:
        what = f"other images: {names} now"
    raise UserError(
        f"the pack {folder} was begun with {what}: give another --out, or --overwrite to pack all "
        "anew"
    )


def _begin(folder: Path, plan: Plan, files: Files) -> Begun:
    """The files of a new pack, with the room for all of its images."""
    shape = (plan.count, plan.size, plan.size)
    try:
        with (folder / IMAGES).open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            _reserve(file.fileno(), file.tell(), plan.count * plan.size**2)
            os.fsync(file.fileno())
    except OSError:
        # what it got of the room is of no use yet
        with suppress(OSError):
            (folder / IMAGES).unlink()
        raise
    index = files.index()
    write_atomically(folder / INDEX, lambda path: write_index(path, index))
    write_atomically(folder / DONE, lambda path: path.write_text(""))
    write_atomically(folder / BEGUN, lambda path: write_facts(path, plan))
    return Begun(folder, plan, index, {})


def _reserve(file: int, start: int, length: int) -> None:
    """Let the file have its length, on the disk too where the system can say so."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, start, length)
        except OSError as error:
            # some file systems cannot; a full one is told now
            if error.errno in (*_FULL, errno.EFBIG):
                raise
        else:
            return
    os.ftruncate(file, start + length)


def _decode(begun: Begun, folder: Path, workers: int) -> None:
    """Decode the blocks that are missing or hold an unreadable image, and note each that is done.

    A block is noted after its rows are on the disk.
    """
    plan = begun.plan
    offset = map_images(begun.folder / IMAGES, plan.count, plan.size).offset
    missing = [
        block
        for block in range(plan.blocks)
        if block not in begun.done or begun.done[block].unreadable
    ]
    images = begun.folder / IMAGES
    with images.open("rb+") as data, (begun.folder / DONE).open("a", encoding="utf-8") as notes:

        def note(done: list[Done]) -> None:
            os.fsync(data.fileno())
            notes.write(lines_of(done))
            notes.flush()
            os.fsync(notes.fileno())
            begun.done.update({one.block: one for one in done})

        decode_blocks(plan, missing, begun.index, folder, (images, offset), workers, note)


def _finish(begun: Begun, reasons: dict[int, str]) -> None:
    """Write index and facts; from then on it is a whole pack."""
    folder = begun.folder
    index = begun.index.copy()
    index.loc[list(reasons), "unreadable"] = list(reasons.values())
    write_atomically(folder / INDEX, lambda path: write_index(path, index))
    facts = {
        "index_sha256": hashlib.sha256((folder / INDEX).read_bytes()).hexdigest(),
        "blocks": [begun.done[block].sha256 for block in range(begun.plan.blocks)],
    }
    write_atomically(folder / FACTS, lambda path: write_facts(path, begun.plan, **facts))
    (folder / BEGUN).unlink()
    (folder / DONE).unlink()


def _named_unreadable(index: pd.DataFrame, reasons: dict[int, str]) -> dict[str, str]:
    return {index["name"].iloc[row]: reasons[row] for row in sorted(reasons)}


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Make a sentence of a disk that is full or a folder that cannot be written to."""
    try:
        yield
    except OSError as error:
        if told := lost_worker(error):
            raise told from error
        raise UserError(
            f"the pack {folder} cannot be written: {error.strerror or error}; what is done of it "
            "is kept, and the same command goes on once that is mended"
        ) from error
