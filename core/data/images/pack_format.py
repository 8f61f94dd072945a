"""Pack format: images decoded once into one array, with an index and checksums.

A pack is a folder of three files, all untrusted input:

    images.npy   uint8 (N, size, size) in NumPy's own format
    index.csv    a row per image: name in the packed folder, file size, modification time (ns since
                 1970), and the error if it is unreadable
    pack.json    size, counts, part, SHA-256 of index.csv and of each block of rows; written last:
                 a folder without it is not a finished pack

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
# files of an unfinished pack: its plan, and a line for each finished block
BEGUN, DONE = "pack.begun.json", "pack.blocks.jsonl"
PARTS = "pack.parts.json"

_COLUMNS = ("name", "bytes", "modified", "unreadable")
_LEAVES = re.compile(r"^/|(?:^|/)\.\.(?:/|$)|\0")
# enough for the checksums of half a million blocks
_LARGEST_FACTS = 50_000_000

Number = Annotated[int, Meta(ge=1, le=2**40)]
PartNumber = Annotated[int, Meta(ge=1, le=100_000)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
S = TypeVar("S", bound=Struct)


class Plan(Struct, frozen=True, kw_only=True):
    """Layout of a pack, fixed before its first image is decoded."""

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
    part: PartNumber = 1
    parts: PartNumber = 1

    @property
    def shared(self) -> tuple[int, int, int, str]:
        """Values that are equal in all parts of a pack."""
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
    """A finished pack, or one part of several; the images are memory-mapped."""

    folder: Path
    plan: Plan
    index: pd.DataFrame
    """`name` (object), `bytes` and `modified` (int64), `unreadable` ("" for a readable image)."""
    checksums: Checksums
    unreadable: dict[int, str]
    """Reason for each row with an unreadable image."""

    def __getstate__(self) -> dict[str, Any]:
        """State that a worker process needs for `read`."""
        return {name: self.__dict__[name] for name in ("folder", "plan", "unreadable")}

    @property
    def root(self) -> Path:
        """The folder of all parts."""
        return self.folder if self.plan.parts == 1 else self.folder.parent

    @cached_property
    def identity(self) -> str:
        """Digest of the index and all images."""
        digests = [self.checksums.index_sha256, *self.checksums.blocks]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    @cached_property
    def images(self) -> np.memmap:
        """Memory map, uint8 (count, size, size)."""
        return map_images(self.folder / IMAGES, self.plan)

    def read(self, row: int) -> np.ndarray:
        """Image of a row, uint8 (size, size), read-only. Raises UserError if it is unreadable."""
        if reason := self.unreadable.get(row):
            raise UserError(reason)
        return np.asarray(self.images[row])


def is_pack(folder: str | Path) -> bool:
    """Whether the folder is a pack, a pack in parts or an unfinished pack."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (FACTS, PARTS, BEGUN))


def part_folder(folder: Path, part: int, parts: int) -> Path:
    """Folder of part `part` (from 1) of `parts`; the folder itself for a single part."""
    return folder if parts == 1 else folder / f"part_{part}_of_{parts}"


def open_packs(folder: str | Path) -> list[Pack]:
    """Open the pack in `folder`, or all its parts in order.

    Raises UserError if a pack or part is missing, unfinished, damaged or of other images.
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
                f"{pack.folder} is not a part of the pack {folder} but part {plan.part} of "
                f"{plan.parts} of a pack of {plan.total:,} images at {plan.size} px: pack it again"
            )
    names = pd.concat([pack.index["name"] for pack in packs])
    if len(names) != whole.total or names.duplicated().any():
        raise UserError(f"the parts of the pack {folder} do not add up to its images: repack it")
    return packs


def read_pack(folder: Path) -> Pack:
    """Read a single pack or part. Raises UserError like `open_packs`."""
    facts = folder / FACTS
    if not facts.is_file():
        if (folder / BEGUN).is_file():
            raise UserError(
                f"the pack {folder} is not finished: rerun the command that packs it to resume"
            )
        raise UserError(f"{folder} is not a pack: it has no {FACTS}")
    plan, checksums = read_facts(facts, Plan), read_facts(facts, Checksums)
    if len(checksums.blocks) != plan.blocks:
        raise _invalid(facts, "the numbers of checksums and blocks differ")
    index = read_index(folder / INDEX, plan.count, checksums.index_sha256)
    map_images(folder / IMAGES, plan)
    reasons = index["unreadable"].to_numpy()
    unreadable = {int(row): str(reasons[row]) for row in np.flatnonzero(reasons != "")}
    return Pack(folder, plan, index, checksums, unreadable)


def map_images(path: Path, plan: Plan) -> np.memmap:
    """Map a pack's array, uint8 (count, size, size), into memory. Raises UserError if invalid."""
    try:
        check_regular(path)
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise _invalid(path, error) from error
    # NumPy parses the header as a Python literal, which may raise any exception
    except Exception as error:
        raise _invalid(path, "it is not an array of images, or is truncated") from error
    shape = (plan.count, plan.size, plan.size)
    if not isinstance(images, np.memmap) or images.dtype != np.uint8 or images.shape != shape:
        raise _invalid(path, f"it does not hold {plan.count:,} grey images of {plan.size} px")
    if not images.flags.c_contiguous or path.stat().st_size != images.offset + images.nbytes:
        raise _invalid(path, "its size does not match its images")
    return images


def read_index(path: Path, count: int, digest: str | None = None) -> pd.DataFrame:
    """Read index.csv with `count` rows and this SHA-256. Raises UserError if it is invalid."""
    try:
        check_regular(path)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _invalid(path, error) from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise _invalid(path, "its checksum is wrong")
    kinds = {"name": object, "bytes": np.int64, "modified": np.int64, "unreadable": object}
    try:
        index = pd.read_csv(
            io.BytesIO(data), dtype=kinds, keep_default_na=False, encoding_errors="surrogateescape"
        )
    except (ValueError, OverflowError) as error:
        raise _invalid(path, "it is not a table of names, bytes and times") from error
    if tuple(index.columns) != _COLUMNS or len(index) != count:
        raise _invalid(path, f"it does not hold {count:,} images")
    names = index["name"]
    if names.duplicated().any() or (names == "").any() or names.str.contains(_LEAVES).any():
        raise _invalid(path, "a name is blank, repeated or outside the folder")
    return index


def write_index(path: Path, index: pd.DataFrame) -> None:
    """Write `index` for `read_index`; names may have any bytes."""
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
    """Write a pack's JSON file: its plan and `more`."""
    facts = {"format": FORMAT, "version": VERSION, **msgspec.structs.asdict(plan), **more}
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_facts(path: Path, kind: type[S]) -> S:
    """Read the `Plan` or `Checksums` of a pack's JSON file. Raises UserError if it is invalid."""
    try:
        found = read_json(path, _LARGEST_FACTS)
        facts = msgspec.convert(found, kind)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise _invalid(path, error) from error
    if found.get("format") != FORMAT or found.get("version") != VERSION:
        raise _invalid(path, f"its version is not {VERSION}, the supported one")
    if isinstance(facts, Plan) and (facts.part > facts.parts or facts.count > facts.total):
        raise _invalid(path, "its parts do not add up")
    return facts


def _invalid(path: Path, why: str | Exception) -> UserError:
    remedy = "pack the images again with --overwrite"
    if isinstance(why, OSError):
        return UserError(f"{path} cannot be read ({why.strerror or why}): fix that, or {remedy}")
    return UserError(f"{path} is not a valid file of a pack ({why}): {remedy}")
