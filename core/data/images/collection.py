"""Images: an indexed collection of image files and pack rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.images.decode import read_image, resize
from core.data.images.pack_format import Pack
from core.errors import UserError, list_first


@dataclass(frozen=True, eq=False)
class Images:
    """N images, each a file or a row of one of `packs`.

    Stored as arrays, because lists of Python objects would be copied into every worker.
    """

    encoded_paths: np.ndarray
    """(N,) bytes; for an image of a pack, the pack's folder and its name there"""
    pack: np.ndarray
    """(N,) int32: index into `packs`; -1 for a file"""
    row: np.ndarray
    """(N,) int64: row in the pack"""
    packs: tuple[Pack, ...] = ()

    @classmethod
    def of_files(cls, paths: Sequence[str]) -> Images:
        """Images from the files `paths`."""
        encoded = np.array([os.fsencode(path) for path in paths] or [b""])[: len(paths)]
        return cls(encoded, np.full(len(paths), -1, np.int32), np.zeros(len(paths), np.int64))

    @classmethod
    def in_folder(
        cls, folder: str | Path, names: Sequence[str], packs: Sequence[Pack] = ()
    ) -> Images:
        """Images `names` of a folder, or of its `packs`, which must contain them."""
        root = os.path.join(folder, "")
        images = cls.of_files([root + name for name in names])
        for number, pack in enumerate(packs):
            rows = pd.Index(pack.index["name"]).get_indexer(pd.Index(np.array(names, dtype=object)))
            held = rows >= 0
            images.pack[held], images.row[held] = number, rows[held]
        return replace(images, packs=tuple(packs))

    @classmethod
    def concatenate(cls, several: Sequence[Images]) -> Images:
        """Concatenate collections; packs of the same folder are merged."""
        packs = {pack.folder: pack for images in several for pack in images.packs}
        number = {folder: place for place, folder in enumerate(packs)}
        # the last entry is for files, index -1
        moved = [
            np.array([*(number[pack.folder] for pack in images.packs), -1], np.int32)[images.pack]
            for images in several
        ]
        return cls(
            np.concatenate([images.encoded_paths for images in several]),
            np.concatenate(moved),
            np.concatenate([images.row for images in several]),
            tuple(packs.values()),
        )

    def __len__(self) -> int:
        return len(self.encoded_paths)

    def take(self, places: np.ndarray) -> Images:
        """Images at `places`, (M,) int or (N,) bool."""
        return replace(
            self,
            encoded_paths=self.encoded_paths[places],
            pack=self.pack[places],
            row=self.row[places],
        )

    @cached_property
    def paths(self) -> list[str]:
        """Path of each image; for an image of a pack, a path below the pack's folder."""
        return [os.fsdecode(path) for path in self.encoded_paths.tolist()]

    def read(self, place: int) -> np.ndarray:
        """Image `place`, grey uint8 (H, W), read-only if from a pack. UserError if unreadable."""
        pack = self.pack[place]
        if pack < 0:
            return read_image(os.fsdecode(self.encoded_paths[place]))
        return self.packs[pack].read(int(self.row[place]))

    def load(self, place: int, size: int) -> np.ndarray:
        """Image `place` resized to a square: uint8 (size, size)."""
        return resize(self.read(place), size)

    def digest_sizes(self, size: int) -> np.ndarray:
        """Pixels a side at which a training at `size` computes each image's digest, int (N,).

        This is `size` for files, and the size of the pack for its images.
        """
        return np.array([*(pack.plan.size for pack in self.packs), size])[self.pack]

    def unreadable(self) -> list[tuple[int, str]]:
        """(place, reason) of images that were unreadable when packed."""
        found = []
        for number, pack in enumerate(self.packs):
            for place in np.flatnonzero(
                (self.pack == number) & np.isin(self.row, [*pack.unreadable])
            ):
                found.append((int(place), pack.unreadable[int(self.row[place])]))
        return sorted(found)

    @cached_property
    def file_sizes(self) -> np.ndarray:
        """Size of each file in bytes, int64 (N,); 0 if not accessible, and for images of packs."""
        sizes = np.zeros(len(self), dtype=np.int64)
        for place in np.flatnonzero(self.pack < 0).tolist():
            try:
                sizes[place] = os.stat(self.encoded_paths[place]).st_size
            except OSError:  # reported when the image is read
                continue
        return sizes

    def digest(self) -> str:
        """Digest of all file sizes and all pixels of packs."""
        digest = hashlib.sha256(self.file_sizes.tobytes())
        for pack in self.packs:
            digest.update(pack.identity.encode())
        return digest.hexdigest()

    def state(self, place: int) -> str:
        """Change marker of an image: size and modification time of the file, or pack digest."""
        pack = self.pack[place]
        if pack >= 0:
            return self.packs[pack].identity
        try:
            found = os.stat(self.encoded_paths[place])
        except OSError as error:
            return str(error.strerror)
        return f"{found.st_size} {found.st_mtime_ns}"

    def check_sizes(self, sizes: Sequence[int]) -> list[str]:
        """Notes on packs larger than one of `sizes`, the sizes at which images will be read.

        Raises UserError for a pack that is smaller.
        """
        notes = []
        for folder, size in {pack.root: pack.plan.size for pack in self.packs}.items():
            if size < max(sizes):
                raise UserError(
                    f"the pack {folder} holds images of {size} px and {max(sizes)} px are needed: "
                    f"pack them again with --size {max(sizes)}, or give the folder of the images"
                )
            if size > min(sizes):
                notes.append(
                    f"The pack {folder} holds images of {size} px, resized to "
                    f"{list_first(sorted({one for one in sizes if one < size}))} px as they are "
                    "read: the result differs slightly from that of the image files."
                )
        return notes
