"""Images by their place in a table, from files or from packs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.data.images.decode import read_image, resize
from core.data.images.pack_format import IMAGES, Pack, map_images, open_packs
from core.errors import UserError, counted, some


class ImageStore:
    """The images of `paths`, as a table names them: a path below one of `packs` is an image in it.

    Everything by image is an array: lists of Python objects would be copied into every worker as
    their reference counts change. A pack is mapped when it is first read from, so that processes
    share its pages however they were started. Raises UserError for a pack that cannot be used, and
    for a path that is none of its images.
    """

    def __init__(self, paths: Sequence[str], packs: Sequence[str] = ()) -> None:
        # of each image: its pack (-1: a file), and its row there or its place among the files
        self._pack = np.full(len(paths), -1, dtype=np.int32)
        self._row = np.zeros(len(paths), dtype=np.int64)
        self._sources: list[tuple[str, int, int]] = []
        self._unreadable: dict[tuple[int, int], str] = {}
        self._maps: dict[int, np.memmap] = {}
        for number, (pack, places, rows) in enumerate(_places(paths, packs)):
            self._pack[places], self._row[places] = number, rows
            self._sources.append((str(pack.folder / IMAGES), pack.plan.count, pack.plan.size))
            reasons = pack.unreadable()
            for row in rows[np.isin(rows, list(reasons))]:
                self._unreadable[number, int(row)] = reasons[int(row)]
        of_files = np.flatnonzero(self._pack < 0)
        self._row[of_files] = np.arange(len(of_files))
        self._files = np.array([os.fsencode(paths[place]) for place in of_files.tolist()] or [b""])

    def __getstate__(self) -> dict[str, Any]:
        """Without its maps, which a process that is started afresh opens anew."""
        return {**self.__dict__, "_maps": {}}

    def read(self, place: int) -> np.ndarray:
        """Image `place`: grey uint8 (H, W); one of a pack cannot be written to.

        Raises UserError where it cannot be read, or could not when it was packed.
        """
        pack, row = int(self._pack[place]), int(self._row[place])
        if pack < 0:
            return read_image(os.fsdecode(self._files[row]))
        if reason := self._unreadable.get((pack, row)):
            raise UserError(reason)
        if pack not in self._maps:
            path, count, size = self._sources[pack]
            self._maps[pack] = map_images(Path(path), count, size)
        return np.asarray(self._maps[pack][row])

    def load(self, place: int, size: int) -> np.ndarray:
        """Image `place` resized to a square: uint8 (size, size)."""
        return resize(self.read(place), size)

    def unreadable(self) -> list[tuple[int, str]]:
        """(place, reason) of the images that could not be read when they were packed."""
        if not self._unreadable:
            return []
        pairs = zip(self._pack.tolist(), self._row.tolist(), strict=True)
        return [
            (place, why) for place, key in enumerate(pairs) if (why := self._unreadable.get(key))
        ]


def check_sizes(packs: Iterable[str], sizes: Sequence[int]) -> list[str]:
    """Sentences about packs that are larger than one of `sizes`, at which they will be read.

    Raises UserError for a pack that is smaller than one of them.
    """
    told = []
    for folder in packs:
        size = open_packs(folder)[0].plan.size
        if size < max(sizes):
            raise UserError(
                f"the pack {folder} holds images of {size} px and {max(sizes)} px are wanted: pack "
                f"them anew with --size {max(sizes)}, or give the folder of the images"
            )
        if size > min(sizes):
            told.append(
                f"The pack {folder} holds images of {size} px, resized to "
                f"{some(sorted({one for one in sizes if one < size}))} px as they are read: this "
                "does not give exactly what the image files give."
            )
    return told


def _places(
    paths: Sequence[str], packs: Sequence[str]
) -> Iterable[tuple[Pack, np.ndarray, np.ndarray]]:
    """For each pack, or part of one: the places of its images among `paths`, and their rows."""
    texts = pd.Series(paths, dtype=object) if packs else pd.Series(dtype=object)
    left = np.ones(len(texts), dtype=bool)
    # a pack inside of another's folder goes first
    for folder in sorted(set(packs), key=len, reverse=True):
        root = os.path.join(folder, "")
        inside = np.flatnonzero(left & texts.str.startswith(root).to_numpy(dtype=bool))
        names = texts.iloc[inside].str.slice(len(root))
        left[inside] = False
        lost = np.ones(len(inside), dtype=bool)
        for pack in open_packs(folder):
            rows = pd.Index(pack.index["name"]).get_indexer(pd.Index(names))
            found = np.flatnonzero(rows >= 0)
            lost[found] = False
            yield pack, inside[found], rows[found].astype(np.int64)
        if lost.any():
            raise UserError(
                f"{counted(int(lost.sum()), 'image is', 'images are')} not in the pack {folder}: "
                f"{some(names[lost].tolist())}; was it packed anew meanwhile?"
            )
