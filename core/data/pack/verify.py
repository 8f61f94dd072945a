"""Verification of a pack: checksums, and comparison with the packed files."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from core.data.images.decode import load_image
from core.data.images.pack_format import Pack, is_pack, open_packs
from core.data.pack.inputs import changed_rows, index_files
from core.errors import UserError, list_first, pluralize
from core.runtime.log import logger
from core.runtime.progress_bar import ProgressBar

_SHOWN = 20


def verify_pack(folder: Path, files: Path | None, threads: int) -> str:
    """Recompute all checksums of a pack, and compare its images with the folder `files` if given.

    Pixels are compared if a file's size or modification time changed. Returns a summary line. If
    blocks or images are wrong, prints the first of them and raises UserError.
    """
    if files is not None and (not files.is_dir() or is_pack(files)):
        raise UserError(
            f"--train_dir {files} is not an image folder: give the folder of the images"
        )
    packs = open_packs(folder)
    blocks = pluralize(sum(len(pack.checksums.blocks) for pack in packs), "block")
    images = pluralize(sum(pack.plan.count for pack in packs), "image")
    if wrong := [line for pack in packs for line in _wrong_blocks(pack, threads)]:
        _show("wrong", wrong)
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {blocks} with a wrong checksum: {wrong[0]}; "
            "pack it again with --overwrite"
        )
    summary = f"verified     {folder} ({images} in {blocks}: the checksums are right"
    if files is None:
        return f"{summary})"
    if wrong := [line for pack in packs for line in _wrong_images(pack, files, threads)]:
        _show("differs", wrong)
        raise UserError(
            f"the pack {folder} has {len(wrong):,} of {images} not as in {files}: "
            f"{list_first(wrong)}; if that is the folder that was packed, pack it again with "
            "--overwrite"
        )
    return f"{summary}, the images equal those of {files})"


def _show(what: str, lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        logger.info(f"{what:<13}{line}")


def _wrong_blocks(pack: Pack, threads: int) -> Iterator[str]:
    """Description of each block with a wrong checksum."""

    def is_valid(block: int) -> bool:
        rows = pack.plan.rows(block)
        pixels = pack.images[rows.start : rows.stop]
        return hashlib.sha256(pixels.data).hexdigest() == pack.checksums.blocks[block]

    blocks = range(pack.plan.blocks)
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(is_valid, blocks)
        for block in ProgressBar(blocks, desc="verifying", unit="block", disable=None):
            if not next(results):
                rows = pack.plan.rows(block)
                names = list_first(pack.index["name"].iloc[list(rows)].tolist())
                yield f"block {block} of {pack.folder} (rows {rows[0]} to {rows[-1]}: {names})"


def _wrong_images(pack: Pack, folder: Path, threads: int) -> Iterator[str]:
    """Description of each image that differs from its file."""
    now = index_files(folder, pack.index["name"].tolist())
    names, changed = now["name"], changed_rows(pack.index, now)

    def find_problem(row: int) -> str:
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
        for row, problem in zip(changed, pool.map(find_problem, changed), strict=True):
            if problem:
                yield f"{names[row]} {problem}"
