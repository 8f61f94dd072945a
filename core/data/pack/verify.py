"""Whether a pack still is what was packed: its checksums, and its files where they are at hand."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from core.data.images.decode import load_image
from core.data.images.pack_format import Pack, is_pack, open_packs
from core.data.pack.inputs import changed_rows, differing_names, look_at
from core.errors import UserError, counted, some

# differing images that are printed
_SHOWN = 20


def verify_pack(
    folder: Path,
    files: Path | None,
    threads: int,
    *,
    names: Sequence[str] | None = None,
    size: int | None = None,
) -> str:
    """Compute all checksums of a pack again, and compare it with the folder `files`, the `names` of
    all its images and their `size` where those are given.

    A file of other bytes or another time of change is decoded and compared by its pixels. Returns a
    line for the user. Prints a line for each wrong block and the first of the wrong images, then
    raises UserError; as `open_packs` does, and where `files` is no folder of images.
    """
    _check_files(files)
    packs = open_packs(folder)
    if size not in (None, packs[0].plan.size):
        raise UserError(f"the pack {folder} is of --size {packs[0].plan.size}, not {size}")
    if names is not None:
        index = pd.concat([pack.index for pack in packs])
        if differing := differing_names(index, names):
            raise UserError(
                f"--train_csv does not name the images of the pack {folder} any more: {differing}; "
                "pack them into another --out"
            )
    wrong = [line for pack in packs for line in _wrong_blocks(pack, threads)]
    blocks = sum(len(pack.blocks) for pack in packs)
    images = sum(pack.plan.count for pack in packs)
    for line in wrong:
        print(f"wrong        {line}")
    if wrong:
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {counted(blocks, 'block')} with a wrong "
            f"checksum: {wrong[0]}; pack it anew with --overwrite"
        )
    told = (
        f"verified     {folder} ({counted(images, 'image')} in {counted(blocks, 'block')}: the "
        "checksums are right"
    )
    if files is None:
        return f"{told})"
    for pack in packs:
        wrong += [f"{name} {what}" for name, what in _wrong_images(pack, files, threads)]
    for line in wrong[:_SHOWN]:
        print(f"differs      {line}")
    if len(wrong) > _SHOWN:
        print(f"             and {len(wrong) - _SHOWN:,} more")
    if wrong:
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {counted(images, 'image')} not as in "
            f"{files}: {some(wrong)}; if that is the folder that was packed, pack it anew with "
            "--overwrite"
        )
    return f"{told}, the images those of {files})"


def _check_files(files: Path | None) -> None:
    """Raise UserError where there is no folder of images to compare a pack with."""
    if files is None:
        return
    if not files.is_dir():
        found = "is not a folder" if files.exists() else "does not exist"
        raise UserError(f"--train_dir {files} {found}: name the folder of the images")
    if is_pack(files):
        raise UserError(f"--train_dir {files} is a pack: name the folder of the images")


def _wrong_blocks(pack: Pack, threads: int) -> Iterator[str]:
    """What to say of each block without its checksum."""
    images = pack.images
    names = pack.index["name"].tolist()

    def is_whole(block: int) -> bool:
        rows = pack.plan.rows(block)
        return hashlib.sha256(images[rows.start : rows.stop].data).hexdigest() == pack.blocks[block]

    with ThreadPoolExecutor(threads) as pool:
        whole = pool.map(is_whole, range(pack.plan.blocks))
        told = tqdm(whole, desc="verifying", total=pack.plan.blocks, unit="block", disable=None)
        for block, good in enumerate(told):
            if not good:
                rows = pack.plan.rows(block)
                yield (
                    f"block {block} of {pack.folder} (rows {rows.start} to {rows.stop - 1}: "
                    f"{some([names[row] for row in rows])})"
                )


def _wrong_images(pack: Pack, folder: Path, threads: int) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of the images that are not those of the files."""
    files = look_at(folder, pack.index["name"].tolist())
    images, marked = pack.images, pack.unreadable

    def problem(row: int) -> str:
        path = os.path.join(folder, files.names[row])
        if not os.path.exists(path):
            return "is no longer there"
        try:
            now = load_image(path, pack.plan.size)
        except UserError as error:
            return "" if row in marked else f"can no longer be read ({error})"
        if row in marked:
            return "can be read now"
        return "" if np.array_equal(now, images[row]) else "has other pixels"

    changed = changed_rows(pack.index, files)
    with ThreadPoolExecutor(threads) as pool:
        for row, what in zip(changed, pool.map(problem, changed), strict=True):
            if what:
                yield files.names[row], what
