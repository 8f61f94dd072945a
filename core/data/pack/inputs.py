"""Input files of a pack: selection, division into parts, and change detection."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.config.data import LabelReading
from core.data.csv.columns import find_image_column
from core.data.images.find_files import images_among, match_images, scan_folder
from core.data.images.pack_format import Plan, is_pack
from core.data.sources import read_source_table
from core.data.tables.label_table import read_ids
from core.errors import UserError, pluralize

# size of a block, which one process decodes before it is written
_BLOCK_BYTES = 2**21
_MOST_ROWS = 64


def list_images(
    folder: Path, csvs: Sequence[Path], reading: LabelReading, remedy: str = ""
) -> list[str]:
    """Sorted names in `folder` of the images listed in the CSVs, or of all images without CSVs.

    Raises UserError if there are no images or, with `remedy`, a listed one has no file.
    """
    if is_pack(folder):
        raise UserError(f"{folder} is a pack already: name the folder of its images")
    if not csvs:
        names = images_among(folder, scan_folder(folder))
        if not names:
            raise UserError(f"the image folder {folder} holds no image: give another folder")
        return sorted(names)
    start = len(os.path.join(folder, ""))
    found: set[str] = set()
    for place, csv in enumerate(csvs):
        own = reading.of_csv(place)
        sheet = read_source_table(csv, own)
        name = find_image_column(csv, sheet.columns, own.image_column, sheet.image)
        images = match_images(read_ids(sheet.columns[name]), folder, remedy)
        found.update(path[start:] for path in images.paths)
    return sorted(found)


def plan_part(names: Sequence[str], size: int, part: int, parts: int) -> tuple[Plan, list[str]]:
    """Plan of part `part` (from 1) of `parts`, and its slice of the sorted `names`.

    Raises UserError for more parts than names.
    """
    total = len(names)
    if total < parts:
        raise UserError(f"--part: {pluralize(total, 'image')} cannot be divided into {parts} parts")
    own = list(names[total * (part - 1) // parts : total * part // parts])
    digest = hashlib.sha256(b"".join(os.fsencode(name) + b"\0" for name in names)).hexdigest()
    return Plan(
        size=size,
        count=len(own),
        block_rows=max(1, min(_MOST_ROWS, _BLOCK_BYTES // size**2)),
        total=total,
        names_sha256=digest,
        part=part,
        parts=parts,
    ), own


def index_files(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    """Index of a pack of the files `names` in `folder`, with their current size and mtime."""
    states = [file_state(os.path.join(folder, name)) for name in names]
    size, modified = np.array(states, dtype=np.int64).reshape(-1, 2).T
    columns = {"name": list(names), "bytes": size, "modified": modified, "unreadable": ""}
    return pd.DataFrame(columns).astype({"name": object, "unreadable": object})


def file_state(path: str) -> tuple[int, int]:
    """Size (bytes) and modification time (ns since 1970) of a file; (-1, -1) if not accessible."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def changed_rows(index: pd.DataFrame, now: pd.DataFrame) -> np.ndarray:
    """Rows with another file size or modification time in `now`, int64."""
    same = (index["bytes"] == now["bytes"]) & (index["modified"] == now["modified"])
    return np.flatnonzero(~same)
