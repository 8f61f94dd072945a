"""Pack writer: begin or resume a pack, decode its blocks in parallel, and finish it."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from core.data.images.pack_format import (
    BEGUN,
    DONE,
    FACTS,
    IMAGES,
    INDEX,
    PARTS,
    Plan,
    map_images,
    part_folder,
    read_facts,
    read_index,
    read_pack,
    write_facts,
    write_index,
)
from core.data.pack.inputs import changed_rows
from core.data.pack.workers import FinishedBlock, decode_blocks
from core.errors import UserError, format_size, list_first, pluralize
from core.io.atomic import make_folder, write_atomically
from core.io.lock import lock_folder
from core.runtime.worker_failures import explain_lost_worker

# deleted in this order, so that an interrupted deletion leaves no pack that looks finished
_OWN_FILES = (FACTS, BEGUN, DONE, INDEX, IMAGES)


def write_pack(
    source: Path,
    index: pd.DataFrame,
    plan: Plan,
    out: Path,
    *,
    workers: int,
    skip_unreadable: bool,
    overwrite: bool,
) -> dict[str, str]:
    """Pack the files of `index` in `source` into `out`, or into a sub-folder if in several parts.

    Resumes an earlier call and retries unreadable images. Returns the error of each image that is
    still unreadable, by name; the pack is then unfinished unless `skip_unreadable` marks them.
    Raises UserError if the folder is in use, holds other files or (unless `overwrite`) a pack of
    other images, settings or files, and if the disk is too small.
    """
    folder = part_folder(out, plan.part, plan.parts)
    _check_folder(out, folder, plan, overwrite=overwrite)
    with _locked(folder):
        # temporary files of a killed process
        temporary = (".index.", ".pack.")
        _remove(folder, *(name for name in os.listdir(folder) if name.startswith(temporary)))
        if plan.parts > 1:
            whole = msgspec.structs.replace(plan, count=plan.total, part=1)
            # written in the part's folder first, because `out` is shared by several processes
            write_atomically(folder / PARTS, lambda path: write_facts(path, whole))
            (folder / PARTS).replace(out / PARTS)
        if overwrite:
            _remove(folder, *_OWN_FILES)
        plan, done = _resume_or_begin(folder, plan, index)
        unfinished = not (folder / FACTS).exists()
        if unfinished:
            _decode(folder, plan, index, done, source, workers)
        reasons = {row: why for one in done.values() for row, why in one.unreadable}
        if unfinished and (skip_unreadable or not reasons):
            _finish(folder, plan, index, [done[block].sha256 for block in sorted(done)], reasons)
        return {index["name"].iloc[row]: reasons[row] for row in sorted(reasons)}


def format_done(done: Iterable[FinishedBlock]) -> str:
    """JSON lines of the finished blocks."""
    return "".join(json.dumps(one) + "\n" for one in done)


def read_done(path: Path) -> dict[int, FinishedBlock]:
    """Read the finished blocks, up to the first line that is incomplete."""
    found: dict[int, FinishedBlock] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            done = msgspec.convert(json.loads(line), FinishedBlock)
        except (ValueError, msgspec.ValidationError):
            break
        found[done.block] = done
    return found


def _check_folder(out: Path, folder: Path, plan: Plan, *, overwrite: bool) -> None:
    """Raise UserError if `out` holds other files or another pack, or its disk is too small."""
    for place in {out, folder}:
        there = set(os.listdir(place)) if place.is_dir() else set()
        others = {name for name in there if not name.startswith((".", "part_"))} - {*_OWN_FILES}
        if others and not there & {FACTS, BEGUN, PARTS}:
            raise UserError(f"{place} holds files of something else: give a new or empty --out")
    in_parts = (out / PARTS).exists()
    if plan.parts == 1 and in_parts:
        raise UserError(f"{out} holds a pack in parts: resume with --part, or give another --out")
    if plan.parts > 1 and ((out / FACTS).exists() or (out / BEGUN).exists()):
        raise UserError(f"{out} holds a pack that is not in parts: give another --out")
    if in_parts and not overwrite:
        _check_same(out, read_facts(out / PARTS, Plan), plan)
    above = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    needed, free = plan.count * plan.size**2, shutil.disk_usage(above).free
    if needed > free and not (folder / IMAGES).exists():
        raise UserError(
            f"the pack {folder} needs {format_size(needed)} and {format_size(free)} are free "
            "there: free some space, or give a smaller --size or another --out"
        )


def _resume_or_begin(
    folder: Path, plan: Plan, index: pd.DataFrame
) -> tuple[Plan, dict[int, FinishedBlock]]:
    """Plan and finished blocks of the pack in the folder; begins one if there is none.

    A finished pack stays finished unless the file of an unreadable image has changed.
    """
    whole = read_pack(folder) if (folder / FACTS).exists() else None
    if whole is None and not (folder / BEGUN).exists():
        _begin(folder, plan, index)
        return plan, {}
    before = whole.plan if whole else read_facts(folder / BEGUN, Plan)
    known = whole.index if whole else read_index(folder / INDEX, before.count)
    there, named = set(known["name"]), set(index["name"])
    differing = " and ".join(
        f"{pluralize(len(ones), 'is', 'are')} {what} ({list_first(sorted(ones))})"
        for ones, what in ((named - there, "new"), (there - named, "gone"))
        if ones
    )
    _check_same(folder, before, plan, differing)
    done = read_done(folder / DONE)
    if whole:
        done = {
            block: FinishedBlock(block, sha, []) for block, sha in enumerate(whole.checksums.blocks)
        }
        for row, why in whole.unreadable.items():
            done[row // before.block_rows].unreadable.append((row, why))
    unreadable = {row for one in done.values() for row, _ in one.unreadable}
    changed = changed_rows(known, index)
    if others := index["name"].iloc[[row for row in changed if row not in unreadable]].tolist():
        have = pluralize(len(others), "file has", "files have")
        raise UserError(
            f"{have} changed in size or modification time since the pack {folder} was begun: "
            f"{list_first(others)}; pass --overwrite to pack all again"
        )
    if whole and not len(changed):
        _remove(folder, BEGUN, DONE)
        return before, done
    # in this order, so that a kill leaves either a finished or an unfinished pack
    write_atomically(folder / DONE, lambda path: path.write_text(format_done(done.values())))
    write_atomically(folder / BEGUN, lambda path: write_facts(path, before))
    _remove(folder, FACTS)
    write_atomically(folder / INDEX, lambda path: write_index(path, index))
    return before, done


def _check_same(folder: Path, before: Plan, plan: Plan, names: str = "") -> None:
    """Raise UserError if a pack was begun with another plan; `names` describes changed images."""
    if before.shared == plan.shared and not names:
        return
    what = f"other images ({names or f'{before.total:,}, not {plan.total:,}'})"
    if before.size != plan.size:
        what = f"--size {before.size}, not {plan.size}"
    elif before.parts != plan.parts:
        what = f"{before.parts} parts, not {plan.parts}"
    raise UserError(
        f"the pack {folder} was begun with {what}: give another --out, or --overwrite to pack all "
        "again"
    )


def _begin(folder: Path, plan: Plan, index: pd.DataFrame) -> None:
    """Write the files of a new pack, with an empty image array."""
    with (folder / IMAGES).open("wb") as file:
        shape = (plan.count, plan.size, plan.size)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + plan.count * plan.size**2)
    write_atomically(folder / INDEX, lambda path: write_index(path, index))
    write_atomically(folder / DONE, lambda path: path.write_text(""))
    write_atomically(folder / BEGUN, lambda path: write_facts(path, plan))


def _decode(
    folder: Path,
    plan: Plan,
    index: pd.DataFrame,
    done: dict[int, FinishedBlock],
    source: Path,
    workers: int,
) -> None:
    """Decode blocks that are missing or have unreadable images, and add them to `done`."""
    images = folder / IMAGES
    offset = map_images(images, plan).offset
    missing = [block for block in range(plan.blocks) if block not in done or done[block].unreadable]
    with images.open("rb+") as data, (folder / DONE).open("a", encoding="utf-8") as notes:

        def note(new: list[FinishedBlock]) -> None:
            os.fsync(data.fileno())
            notes.write(format_done(new))
            notes.flush()
            os.fsync(notes.fileno())
            done.update({one.block: one for one in new})

        decode_blocks(plan, missing, index, source, (images, offset), workers, note)


def _finish(
    folder: Path, plan: Plan, index: pd.DataFrame, blocks: list[str], reasons: dict[int, str]
) -> None:
    """Write the index and pack.json, which makes the pack finished."""
    index = index.copy()
    index.loc[list(reasons), "unreadable"] = list(reasons.values())
    write_atomically(folder / INDEX, lambda path: write_index(path, index))
    facts = {
        "index_sha256": hashlib.sha256((folder / INDEX).read_bytes()).hexdigest(),
        "blocks": blocks,
    }
    write_atomically(folder / FACTS, lambda path: write_facts(path, plan, **facts))
    _remove(folder, BEGUN, DONE)


def _remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, and raise disk errors as UserError."""
    try:
        make_folder(folder)
        with lock_folder(folder, f"packing into {folder}"):
            yield
    except OSError as error:
        if explained := explain_lost_worker(error):
            raise explained from error
        raise UserError(
            f"the pack {folder} cannot be written ({error.strerror or error}): fix that, then "
            "rerun the command to resume"
        ) from error
