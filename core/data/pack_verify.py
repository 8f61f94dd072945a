"""Whether a pack still is what was packed: its checksums, and its files where they are at hand."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core.data.image import load_image
from core.data.pack_files import changed_rows, look_at
from core.data.pack_format import Pack, open_packs
from core.errors import UserError, some


def verify_pack(folder: Path, files: Path | None, threads: int) -> str:
    """Compute all checksums of a pack again, and compare it with the folder `files` if given.

    A file of other bytes or another time of change is decoded and compared by its pixels. Returns a
    line for the user. Prints a line for each wrong block or image, then raises UserError; as
    `open_packs` does too.
    """
    packs = open_packs(folder)
    wrong = [line for pack in packs for line in _wrong_blocks(pack, threads)]
    blocks = sum(len(pack.blocks) for pack in packs)
    images = sum(pack.plan.count for pack in packs)
    for line in wrong:
        print(f"wrong        {line}")
    if wrong:
        raise UserError(
            f"{len(wrong):,} of {blocks:,} blocks of the pack {folder} do not have their checksum: "
            f"{wrong[0]}; pack it anew with --overwrite"
        )
    told = f"verified     {folder} ({images:,} images in {blocks:,} blocks have their checksums"
    if files is None:
        return f"{told})"
    for pack in packs:
        wrong += [f"{name} {what}" for name, what in _wrong_images(pack, files, threads)]
    for line in wrong:
        print(f"differs      {line}")
    if wrong:
        raise UserError(
            f"{len(wrong):,} of {images:,} images of the pack {folder} are not those of {files}: "
            f"{some(wrong)}; pack them anew with --overwrite"
        )
    return f"{told} and are those of {files})"


def _wrong_blocks(pack: Pack, threads: int) -> Iterator[str]:
    """What to say of each block without its checksum."""
    images = pack.images()
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
    images, marked = pack.images(), pack.unreadable()

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
