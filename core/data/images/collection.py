"""Images by place, from files or from packs."""

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
    """N images, each a file or a row of one of `packs`. By image there are arrays alone: lists of
    Python objects would be copied into every worker."""

    encoded_paths: np.ndarray
    """(N,) bytes; of an image of a pack the pack's folder and its name there"""
    pack: np.ndarray
    """(N,) int32: which of `packs`; -1 for a file"""
    row: np.ndarray
    """(N,) int64: its row in the pack"""
    packs: tuple[Pack, ...] = ()

    @classmethod
    def of_files(cls, paths: Sequence[str]) -> Images:
        """The image files `paths`."""
        encoded = np.array([os.fsencode(path) for path in paths] or [b""])[: len(paths)]
        return cls(encoded, np.full(len(paths), -1, np.int32), np.zeros(len(paths), np.int64))

    @classmethod
    def in_folder(
        cls, folder: str | Path, names: Sequence[str], packs: Sequence[Pack] = ()
    ) -> Images:
        """The images `names` of a folder, or of its `packs`, which must hold them."""
        root = os.path.join(folder, "")
        images = cls.of_files([root + name for name in names])
        for number, pack in enumerate(packs):
            rows = pd.Index(pack.index["name"]).get_indexer(pd.Index(np.array(names, dtype=object)))
            held = rows >= 0
            images.pack[held], images.row[held] = number, rows[held]
        return replace(images, packs=tuple(packs))

    @classmethod
    def concatenate(cls, several: Sequence[Images]) -> Images:
        """All images of `several`, one after another; packs of one folder are one."""
        packs = {pack.folder: pack for images in several for pack in images.packs}
        number = {folder: place for place, folder in enumerate(packs)}
        # the last, for files, is what -1 takes
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
        """The images at `places`, (M,) int or (N,) bool."""
        return replace(
            self,
            encoded_paths=self.encoded_paths[places],
            pack=self.pack[places],
            row=self.row[places],
        )

    @cached_property
    def paths(self) -> list[str]:
        """The path of each; below the pack's folder for an image of a pack."""
        return [os.fsdecode(path) for path in self.encoded_paths.tolist()]

    def read(self, place: int) -> np.ndarray:
        """Image `place`: grey uint8 (H, W), read-only from a pack; UserError if unreadable."""
        pack = self.pack[place]
        if pack < 0:
            return read_image(os.fsdecode(self.encoded_paths[place]))
        return self.packs[pack].read(int(self.row[place]))

    def load(self, place: int, size: int) -> np.ndarray:
        """Image `place` resized to a square: uint8 (size, size)."""
        return resize(self.read(place), size)

    def digest_sizes(self, size: int) -> np.ndarray:
        """Pixels a side at which a training at `size` takes each image's digest, int (N,): `size`,
        or that of its pack, which image files can be resized to."""
        return np.array([*(pack.plan.size for pack in self.packs), size])[self.pack]

    def unreadable(self) -> list[tuple[int, str]]:
        """(place, reason) of the images that could not be read when they were packed."""
        found = []
        for number, pack in enumerate(self.packs):
            for place in np.flatnonzero(
                (self.pack == number) & np.isin(self.row, [*pack.unreadable])
            ):
                found.append((int(place), pack.unreadable[int(self.row[place])]))
        return sorted(found)

    @cached_property
    def file_sizes(self) -> np.ndarray:
        """Bytes of each file, int64 (N,); 0 for one that cannot be seen, or an image of a pack."""
        sizes = np.zeros(len(self), dtype=np.int64)
        for place in np.flatnonzero(self.pack < 0).tolist():
            try:
                sizes[place] = os.stat(self.encoded_paths[place]).st_size
            except OSError:  # whoever reads it will say so
                continue
        return sizes

    def digest(self) -> str:
        """A digest that changes with the size of a file, and with any pixel of a pack."""
        digest = hashlib.sha256(self.file_sizes.tobytes())
        for pack in self.packs:
            digest.update(pack.identity.encode())
        return digest.hexdigest()

    def state(self, place: int) -> str:
        """What changes where the image does: a file's size and time of change, or its pack."""
        pack = self.pack[place]
        if pack >= 0:
            return self.packs[pack].identity
        try:
            found = os.stat(self.encoded_paths[place])
        except OSError as error:
            return str(error.strerror)
        return f"{found.st_size} {found.st_mtime_ns}"

    def check_sizes(self, sizes: Sequence[int]) -> list[str]:
        """A sentence for each pack that is larger than one of `sizes`, at which they will be read;
        UserError for one that is smaller."""
        told = []
        for folder, size in {pack.root: pack.plan.size for pack in self.packs}.items():
            if size < max(sizes):
                raise UserError(
                    f"the pack {folder} holds images of {size} px and {max(sizes)} px are wanted: "
                    f"pack them again with --size {max(sizes)}, or give the folder of the images"
                )
            if size > min(sizes):
                told.append(
                    f"The pack {folder} holds images of {size} px, resized to "
                    f"{list_first(sorted({one for one in sizes if one < size}))} px as they are "
                    "read: this does not give exactly what the image files give."
                )
        return told
