"""Verification of a pack: its checksums, and its images against the files that were packed."""

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
from core.data.pack.inputs import changed_rows, describe_differing_names, index_files
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
    line for the user. Prints each wrong block and the first of the wrong images, then raises
    UserError; so it does where `files` is no folder of images, and as `open_packs`.
    """
    _check_files(files)
    packs = open_packs(folder)
    if size not in (None, packs[0].plan.size):
        raise UserError(f"the pack {folder} is of --size {packs[0].plan.size}, not {size}")
    index = pd.concat([pack.index for pack in packs])
    if names is not None and (differing := describe_differing_names(index, names)):
        raise UserError(
            f"--train_csv does not name the images of the pack {folder} any more: {differing}; "
            "pack them into another --out"
        )
    blocks = counted(sum(len(pack.blocks) for pack in packs), "block")
    images = counted(len(index), "image")
    wrong = [line for pack in packs for line in _wrong_blocks(pack, threads)]
    for line in wrong:
        print(f"wrong        {line}")
    if wrong:
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {blocks} with a wrong checksum: {wrong[0]}; "
            "pack it again with --overwrite"
        )
    told = f"verified     {folder} ({images} in {blocks}: the checksums are right"
    if files is None:
        return f"{told})"
    wrong = [line for pack in packs for line in _wrong_images(pack, files, threads)]
    for line in wrong[:_SHOWN]:
        print(f"differs      {line}")
    if len(wrong) > _SHOWN:
        print(f"             and {len(wrong) - _SHOWN:,} more")
    if wrong:
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {images} not as in {files}: {some(wrong)}; "
            "if that is the folder that was packed, pack it again with --overwrite"
        )
    return f"{told}, the images those of {files})"


def _check_files(files: Path | None) -> None:
    """Raise UserError where there is no folder of images to compare a pack with."""
    if files is None or (files.is_dir() and not is_pack(files)):
        return
    found = "does not exist"
    if files.exists():
        found = "is a pack" if files.is_dir() else "is not a folder"
    raise UserError(f"--train_dir {files} {found}: name the folder of the images")


def _wrong_blocks(pack: Pack, threads: int) -> Iterator[str]:
    """A description of each block without its checksum."""

    def is_whole(block: int) -> bool:
        rows = pack.plan.rows(block)
        pixels = pack.images[rows.start : rows.stop]
        return hashlib.sha256(pixels.data).hexdigest() == pack.blocks[block]

    with ThreadPoolExecutor(threads) as pool:
        whole = pool.map(is_whole, range(pack.plan.blocks))
        told = tqdm(whole, desc="verifying", total=pack.plan.blocks, unit="block", disable=None)
        for block, good in enumerate(told):
            if not good:
                rows = pack.plan.rows(block)
                names = some(pack.index["name"].iloc[list(rows)].tolist())
                last = rows.stop - 1
                yield (f"block {block} of {pack.folder} (rows {rows.start} to {last}: {names})")


def _wrong_images(pack: Pack, folder: Path, threads: int) -> Iterator[str]:
    """A description of each image that is not that of its file."""
    now = index_files(folder, pack.index["name"].tolist())
    names, changed = now["name"], changed_rows(pack.index, now)

    def problem(row: int) -> str:
        path, marked = os.path.join(folder, names[row]), row in pack.unreadable
        if not os.path.exists(path):
            return "is no longer there"
        try:
            pixels = load_image(path, pack.plan.size)
        except UserError as error:
            return "" if marked else f"can no longer be read ({error})"
        if marked:
            return "can be read now"
        return "" if np.array_equal(pixels, pack.images[row]) else "has other pixels"

    with ThreadPoolExecutor(threads) as pool:
        for row, what in zip(changed, pool.map(problem, changed), strict=True):
            if what:
                yield f"{names[row]} {what}"
