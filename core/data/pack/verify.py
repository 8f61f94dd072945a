"""Verification of a pack: its checksums, and its images against the files that were packed."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core.data.images.decode import load_image
from core.data.images.pack_format import Pack, is_pack, open_packs
from core.data.pack.inputs import changed_rows, index_files
from core.errors import UserError, list_first, pluralize

_SHOWN = 20


def verify_pack(folder: Path, files: Path | None, threads: int) -> str:
    """Compute all checksums of a pack again, and compare it with the folder `files` if given, by
    pixels where a file's bytes or time of change differ. Returns a line for the user.

    Prints the first of the wrong blocks or images, then raises UserError.
    """
    if files is not None and (not files.is_dir() or is_pack(files)):
        raise UserError(f"--train_dir {files} is no folder of images: name that of the images")
    packs = open_packs(folder)
    blocks = pluralize(sum(len(pack.checksums.blocks) for pack in packs), "block")
    images = pluralize(sum(pack.plan.count for pack in packs), "image")
    if wrong := [line for pack in packs for line in _wrong_blocks(pack, threads)]:
        _show("wrong", wrong)
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {blocks} with a wrong checksum: {wrong[0]}; "
            "pack it again with --overwrite"
        )
    told = f"verified     {folder} ({images} in {blocks}: the checksums are right"
    if files is None:
        return f"{told})"
    if wrong := [line for pack in packs for line in _wrong_images(pack, files, threads)]:
        _show("differs", wrong)
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {images} not as in {files}: "
            f"{list_first(wrong)}; if that is the folder that was packed, pack it again with "
            "--overwrite"
        )
    return f"{told}, the images those of {files})"


def _show(what: str, lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        print(f"{what:<13}{line}")


def _wrong_blocks(pack: Pack, threads: int) -> Iterator[str]:
    """A description of each block without its checksum."""

    def is_whole(block: int) -> bool:
        rows = pack.plan.rows(block)
        pixels = pack.images[rows.start : rows.stop]
        return hashlib.sha256(pixels.data).hexdigest() == pack.checksums.blocks[block]

    blocks = range(pack.plan.blocks)
    with ThreadPoolExecutor(threads) as pool:
        whole = pool.map(is_whole, blocks)
        for block in tqdm(blocks, desc="verifying", unit="block", disable=None):
            if not next(whole):
                rows = pack.plan.rows(block)
                names = list_first(pack.index["name"].iloc[list(rows)].tolist())
                yield f"block {block} of {pack.folder} (rows {rows[0]} to {rows[-1]}: {names})"


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
