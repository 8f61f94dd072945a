"""Pack on disk: images decoded once into one array, with an index and checksums.

A pack is a folder of three files, all untrusted input:

    images.npy   uint8 (N, size, size) in NumPy's own format
    index.csv    a row an image: its name in the packed folder, its file's bytes and time of change
                 (ns since 1970), and why it cannot be read where that is so
    pack.json    size, counts, part, the SHA-256 of index.csv and of each block of rows; written
                 last: a folder without it is not a finished pack

A pack in parts is a folder of packs beside a pack.parts.json.
"""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.errors import UserError, some
from core.io.untrusted_files import check_regular, read_json

FORMAT, VERSION = "longtail-cxr pack", 1
FACTS, IMAGES, INDEX = "pack.json", "images.npy", "index.csv"
# what is there while it is made: its plan, and a line for each block that is done
BEGUN, DONE = "pack.begun.json", "pack.blocks.jsonl"
PARTS = "pack.parts.json"

_COLUMNS = ("name", "bytes", "modified", "unreadable")
_LEAVES = re.compile(r"^/|(?:^|/)\.\.(?:/|$)|\0")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ANEW = "pack the images anew with --overwrite"
# the checksums of half a million blocks
_LARGEST_FACTS = 50_000_000
_MOST = {"size": 65_535, "parts": 100_000}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a pack is to hold, fixed before its first image is decoded."""

    size: int
    """Side of its square images, in pixels."""
    count: int
    """Images in it."""
    block_rows: int
    """Images in a block (fewer in the last one)."""
    total: int
    """Images in all parts together."""
    names_sha256: str
    """Digest of the names of all parts."""
    part: int = 1
    parts: int = 1

    @property
    def shared(self) -> tuple[int, int, int, str]:
        """What all parts of a pack have in common."""
        return self.size, self.parts, self.total, self.names_sha256

    def whole(self) -> "Plan":
        """What the folder of all parts holds of them."""
        return replace(self, count=self.total, part=1)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.count // self.block_rows)

    def rows(self, block: int) -> range:
        """The rows of `block` (from 0)."""
        start = block * self.block_rows
        return range(start, min(start + self.block_rows, self.count))


@dataclass(frozen=True, eq=False)
class Pack:
    """A finished pack, or one part of several; the images themselves are not read."""

    folder: Path
    plan: Plan
    index: pd.DataFrame
    """`name` (object), `bytes` and `modified` (int64), `unreadable` ("" for a readable image)."""
    index_sha256: str
    blocks: tuple[str, ...]
    """SHA-256 of each block of rows."""
    unreadable: dict[int, str]
    """The reason of each row whose image could not be read."""

    def __getstate__(self) -> dict[str, Any]:
        """What a process that is started afresh needs to `read`."""
        return {name: self.__dict__[name] for name in ("folder", "plan", "unreadable")}

    @property
    def root(self) -> Path:
        """The folder of all parts."""
        return self.folder if self.plan.parts == 1 else self.folder.parent

    @cached_property
    def identity(self) -> str:
        """A digest that a pack of other images does not share."""
        told = [self.index_sha256, *self.blocks]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    @cached_property
    def images(self) -> np.memmap:
        """uint8 (count, size, size), read from the disk as it is used."""
        return map_images(self.folder / IMAGES, self.plan.count, self.plan.size)

    def read(self, row: int) -> np.ndarray:
        """The image of a row, uint8 (size, size), read-only; UserError where it is unreadable."""
        if reason := self.unreadable.get(row):
            raise UserError(reason)
        return np.asarray(self.images[row])


def is_pack(folder: str | Path) -> bool:
    """Whether the folder is a pack, one in parts, or one that is not finished."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (FACTS, PARTS, BEGUN))


def part_folder(folder: Path, part: int, parts: int) -> Path:
    """Where part `part` (from 1) of `parts` is kept."""
    return folder / f"part_{part}_of_{parts}"


def open_packs(folder: str | Path) -> list[Pack]:
    """The pack in `folder`, or all its parts in order.

    Raises UserError where it is unfinished, damaged or no pack, and names a part that is missing,
    unfinished or of other images.
    """
    folder = Path(folder)
    if (folder / FACTS).is_file() or not (folder / PARTS).is_file():
        return [read_pack(folder)]
    whole = read_plan(folder / PARTS)
    found = [part_folder(folder, part + 1, whole.parts) for part in range(whole.parts)]
    if missing := [number for number, part in enumerate(found, 1) if not is_pack(part)]:
        raise UserError(
            f"the pack {folder} is in {whole.parts} parts and part {some(missing, 12)} is missing: "
            f"pack it with --part {missing[0]}/{whole.parts}"
        )
    packs = [read_pack(part) for part in found]
    for number, pack in enumerate(packs, 1):
        plan = pack.plan
        if (plan.part, plan.shared) != (number, whole.shared):
            raise UserError(
                f"{pack.folder} is no part of the pack {folder}: it is part {plan.part} of "
                f"{plan.parts} of a pack of {plan.total:,} images at {plan.size} px; pack it anew"
            )
    if sum(pack.plan.count for pack in packs) != whole.total:
        raise UserError(f"the parts of the pack {folder} do not add up to its images: pack it anew")
    names = pd.concat([pack.index["name"] for pack in packs])
    if names.duplicated().any():
        raise UserError(f"two parts of the pack {folder} hold the same image: pack it anew")
    return packs


def read_pack(folder: Path) -> Pack:
    """The pack in `folder`, which is not in parts. Raises UserError as `open_packs` does."""
    facts = folder / FACTS
    if not facts.is_file() and (folder / BEGUN).is_file():
        raise UserError(f"the pack {folder} is not finished: give the command that packs it again")
    if not facts.is_file():
        raise UserError(f"{folder} is no pack: it has no {FACTS}")
    plan, found = read_plan(facts), _read_json(facts)
    digest, blocks = found.get("index_sha256"), found.get("blocks")
    blocks = blocks if isinstance(blocks, list) else []
    if len(blocks) != plan.blocks or not all(map(is_sha256, [digest, *blocks])):
        raise _spoiled(facts, "its checksums are not as many as its blocks")
    index = read_index(folder / INDEX, plan.count, digest)
    map_images(folder / IMAGES, plan.count, plan.size)
    reasons = index["unreadable"].to_numpy()
    unreadable = {int(row): str(reasons[row]) for row in np.flatnonzero(reasons != "")}
    return Pack(folder, plan, index, str(digest), tuple(blocks), unreadable)


def map_images(path: Path, count: int, size: int) -> np.memmap:
    """The array of a pack as a memory map, uint8 (count, size, size).

    Raises UserError where the file is missing or holds anything else.
    """
    try:
        check_regular(path)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise _unread(path, error) from error
    # NumPy parses the header as a Python literal, and lets all errors of that through
    except Exception as error:
        raise _spoiled(path, "it is no array of images, or was cut short") from error
    shape = (count, size, size)
    if not isinstance(images, np.memmap) or images.dtype != np.uint8 or images.shape != shape:
        raise _spoiled(path, f"it does not hold {count:,} grey images of {size} px")
    if not images.flags.c_contiguous or path.stat().st_size != images.offset + images.nbytes:
        raise _spoiled(path, "its size is not that of its images")
    return images


def read_index(path: Path, count: int, digest: str | None = None) -> pd.DataFrame:
    """The `count` rows of an index.csv of this SHA-256. Raises UserError where it is invalid."""
    try:
        check_regular(path)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unread(path, error) from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise _spoiled(path, "it does not have its checksum")
    kinds = {"name": object, "bytes": np.int64, "modified": np.int64, "unreadable": object}
    try:
        text = io.BytesIO(data)
        index = pd.read_csv(
            text, dtype=kinds, keep_default_na=False, encoding_errors="surrogateescape"
        )
    except (ValueError, OverflowError) as error:
        raise _spoiled(path, "it is no table of names, bytes and times") from error
    if tuple(index.columns) != _COLUMNS or len(index) != count:
        raise _spoiled(path, f"it does not hold {count:,} images")
    names = index["name"]
    if names.duplicated().any() or (names == "").any() or names.str.contains(_LEAVES).any():
        raise _spoiled(path, "a name is blank, there twice or leaves the folder")
    return index


def write_index(path: Path, index: pd.DataFrame) -> None:
    """Write `index` so that `read_index` gives it again, names of any bytes included."""
    index.to_csv(
        path,
        index=False,
        columns=list(_COLUMNS),
        quoting=csv.QUOTE_NONNUMERIC,
        lineterminator="\n",
        encoding="utf-8",
        errors="surrogateescape",
    )


def write_facts(path: Path, plan: Plan, **more: object) -> None:
    """Write a pack's JSON file: its plan, and what else is given."""
    facts = {"format": FORMAT, "version": VERSION, **asdict(plan), **more}
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_plan(path: Path) -> Plan:
    """The plan in a pack's JSON file. Raises UserError where it is none, or of a newer version."""
    found = _read_json(path)
    if found.get("format") != FORMAT:
        raise _spoiled(path, "it does not say that it is one")
    if found.get("version") != VERSION:
        raise UserError(
            f"{path} is of a pack of version {str(found.get('version'))[:20]}, and this software "
            f"reads version {VERSION}: pack the images anew, or take newer software"
        )
    values: dict[str, Any] = {}
    for field in fields(Plan):
        value = values[field.name] = found.get(field.name)
        if field.name == "names_sha256":
            valid = is_sha256(value)
        else:
            valid = type(value) is int and 1 <= value <= _MOST.get(field.name, 2**40)
        if not valid:
            raise _spoiled(path, f"its {field.name} is {str(value)[:40]}")
    plan = Plan(**values)
    if plan.part > plan.parts or plan.count > plan.total:
        raise _spoiled(path, "its parts do not add up")
    return plan


def digest_of_names(names: Iterable[str]) -> str:
    """SHA-256 of names in their order."""
    return hashlib.sha256(b"".join(os.fsencode(name) + b"\0" for name in names)).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, _LARGEST_FACTS)
    except (OSError, ValueError) as error:
        raise _unread(path, error) from error


def is_sha256(value: object) -> bool:
    """Whether it is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _spoiled(path: Path, why: str) -> UserError:
    return UserError(f"{path} is no valid file of a pack ({why}): {_ANEW}")


def _unread(path: Path, error: OSError | ValueError) -> UserError:
    if not isinstance(error, OSError):
        return _spoiled(path, str(error))
    return UserError(f"{path} cannot be read ({error.strerror or error}): mend that, or {_ANEW}")
