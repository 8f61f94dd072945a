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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import pandas as pd
from msgspec import Meta, Struct

from core.errors import UserError, list_first
from core.io.untrusted_files import check_regular, read_json

FORMAT, VERSION = "longtail-cxr pack", 1
FACTS, IMAGES, INDEX = "pack.json", "images.npy", "index.csv"
# what is there while it is made: its plan, and a line for each block that is done
BEGUN, DONE = "pack.begun.json", "pack.blocks.jsonl"
PARTS = "pack.parts.json"

_COLUMNS = ("name", "bytes", "modified", "unreadable")
_LEAVES = re.compile(r"^/|(?:^|/)\.\.(?:/|$)|\0")
# the checksums of half a million blocks
_LARGEST_FACTS = 50_000_000

Number = Annotated[int, Meta(ge=1, le=2**40)]
Part = Annotated[int, Meta(ge=1, le=100_000)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
S = TypeVar("S", bound=Struct)


class Plan(Struct, frozen=True, kw_only=True):
    """What a pack is to hold, fixed before its first image is decoded."""

    size: Annotated[int, Meta(ge=1, le=65_535)]
    """Side of its square images, in pixels."""
    count: Number
    """Images in it."""
    block_rows: Number
    """Images in a block (fewer in the last one)."""
    total: Number
    """Images in all parts together."""
    names_sha256: Sha256
    """Digest of the names of all parts."""
    part: Part = 1
    parts: Part = 1

    @property
    def shared(self) -> tuple[int, int, int, str]:
        """What all parts of a pack have in common."""
        return self.size, self.parts, self.total, self.names_sha256

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.count // self.block_rows)

    def rows(self, block: int) -> range:
        """The rows of `block` (from 0)."""
        start = block * self.block_rows
        return range(start, min(start + self.block_rows, self.count))


class Checksums(Struct):
    """SHA-256 of a finished pack's index and of each block of rows."""

    index_sha256: Sha256
    blocks: tuple[Sha256, ...]


@dataclass(frozen=True, eq=False)
class Pack:
    """A finished pack, or one part of several; the images themselves are not read."""

    folder: Path
    plan: Plan
    index: pd.DataFrame
    """`name` (object), `bytes` and `modified` (int64), `unreadable` ("" for a readable image)."""
    checksums: Checksums
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
        digests = [self.checksums.index_sha256, *self.checksums.blocks]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    @cached_property
    def images(self) -> np.memmap:
        """uint8 (count, size, size), read from the disk as it is used."""
        return map_images(self.folder / IMAGES, self.plan)

    def read(self, row: int) -> np.ndarray:
        """The image of a row, uint8 (size, size), read-only; UserError where it is unreadable."""
        if reason := self.unreadable.get(row):
            raise UserError(reason)
        return np.asarray(self.images[row])


def is_pack(folder: str | Path) -> bool:
    """Whether the folder is a pack, one in parts, or one that is not finished."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (FACTS, PARTS, BEGUN))


def part_folder(folder: Path, part: int, parts: int) -> Path:
    """Where part `part` (from 1) of `parts` is kept: the folder itself of a single one."""
    return folder if parts == 1 else folder / f"part_{part}_of_{parts}"


def open_packs(folder: str | Path) -> list[Pack]:
    """The pack in `folder`, or all its parts in order.

    Raises UserError for a pack or part that is missing, unfinished, damaged or of other images.
    """
    folder = Path(folder)
    if (folder / FACTS).is_file() or not (folder / PARTS).is_file():
        return [read_pack(folder)]
    whole = read_facts(folder / PARTS, Plan)
    found = [part_folder(folder, part + 1, whole.parts) for part in range(whole.parts)]
    if missing := [number for number, part in enumerate(found, 1) if not is_pack(part)]:
        raise UserError(
            f"the pack {folder} is in {whole.parts} parts and part {list_first(missing, 12)} is "
            f"missing: pack it with --part {missing[0]}/{whole.parts}"
        )
    packs = [read_pack(part) for part in found]
    for number, pack in enumerate(packs, 1):
        plan = pack.plan
        if (plan.part, plan.shared) != (number, whole.shared):
            raise UserError(
                f"{pack.folder} is no part of the pack {folder}: it is part {plan.part} of "
                f"{plan.parts} of a pack of {plan.total:,} images at {plan.size} px; pack it anew"
            )
    names = pd.concat([pack.index["name"] for pack in packs])
    if len(names) != whole.total or names.duplicated().any():
        raise UserError(f"the parts of the pack {folder} do not add up to its images: pack it anew")
    return packs


def read_pack(folder: Path) -> Pack:
    """The pack in `folder`, which is not in parts. Raises UserError as `open_packs` does."""
    facts = folder / FACTS
    if not facts.is_file():
        if (folder / BEGUN).is_file():
            raise UserError(
                f"the pack {folder} is not finished: give the command that packs it again"
            )
        raise UserError(f"{folder} is no pack: it has no {FACTS}")
    plan, checksums = read_facts(facts, Plan), read_facts(facts, Checksums)
    if len(checksums.blocks) != plan.blocks:
        raise _invalid(facts, "its checksums are not as many as its blocks")
    index = read_index(folder / INDEX, plan.count, checksums.index_sha256)
    map_images(folder / IMAGES, plan)
    reasons = index["unreadable"].to_numpy()
    unreadable = {int(row): str(reasons[row]) for row in np.flatnonzero(reasons != "")}
    return Pack(folder, plan, index, checksums, unreadable)


def map_images(path: Path, plan: Plan) -> np.memmap:
    """Memory map of a pack's array, uint8 (count, size, size); UserError where it is not one."""
    try:
        check_regular(path)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise _invalid(path, error) from error
    # NumPy parses the header as a Python literal, and lets all errors of that through
    except Exception as error:
        raise _invalid(path, "it is no array of images, or was cut short") from error
    shape = (plan.count, plan.size, plan.size)
    if not isinstance(images, np.memmap) or images.dtype != np.uint8 or images.shape != shape:
        raise _invalid(path, f"it does not hold {plan.count:,} grey images of {plan.size} px")
    if not images.flags.c_contiguous or path.stat().st_size != images.offset + images.nbytes:
        raise _invalid(path, "its size is not that of its images")
    return images


def read_index(path: Path, count: int, digest: str | None = None) -> pd.DataFrame:
    """The `count` rows of an index.csv of this SHA-256. Raises UserError where it is invalid."""
    try:
        check_regular(path)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _invalid(path, error) from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise _invalid(path, "it does not have its checksum")
    kinds = {"name": object, "bytes": np.int64, "modified": np.int64, "unreadable": object}
    try:
        index = pd.read_csv(
            io.BytesIO(data), dtype=kinds, keep_default_na=False, encoding_errors="surrogateescape"
        )
    except (ValueError, OverflowError) as error:
        raise _invalid(path, "it is no table of names, bytes and times") from error
    if tuple(index.columns) != _COLUMNS or len(index) != count:
        raise _invalid(path, f"it does not hold {count:,} images")
    names = index["name"]
    if names.duplicated().any() or (names == "").any() or names.str.contains(_LEAVES).any():
        raise _invalid(path, "a name is blank, there twice or leaves the folder")
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
    facts = {"format": FORMAT, "version": VERSION, **msgspec.structs.asdict(plan), **more}
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_facts(path: Path, kind: type[S]) -> S:
    """The `Plan` or `Checksums` in a pack's JSON file. Raises UserError where it is invalid."""
    try:
        found = read_json(path, _LARGEST_FACTS)
        facts = msgspec.convert(found, kind)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise _invalid(path, error) from error
    if found.get("format") != FORMAT or found.get("version") != VERSION:
        raise _invalid(path, f"it is not of version {VERSION}, which this software reads")
    if isinstance(facts, Plan) and (facts.part > facts.parts or facts.count > facts.total):
        raise _invalid(path, "its parts do not add up")
    return facts


def _invalid(path: Path, why: str | Exception) -> UserError:
    remedy = "pack the images anew with --overwrite"
    if isinstance(why, OSError):
        return UserError(f"{path} cannot be read ({why.strerror or why}): mend that, or {remedy}")
    return UserError(f"{path} is no valid file of a pack ({why}): {remedy}")
