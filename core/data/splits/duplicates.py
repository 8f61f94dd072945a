"""Duplicate images: detection, and grouping so that no fold divides them.

Files are compared byte by byte, images of packs pixel by pixel. Blank images (one grey level, as in
failed exports) are not duplicates.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from core.data.images.collection import Images
from core.errors import UserError, list_first, pluralize
from core.runtime.progress_bar import ProgressBar

# bytes from the middle of an image that are compared before the whole image
_SAMPLE = 4096
_READERS, _TOGETHER = 16, 256


def find_duplicates(images: Images) -> np.ndarray:
    """Index of the first duplicate of each image, (N,) int64; its own index if it has none before.

    Files of equal size, and images of packs, are compared by a sample of 4 KiB first; only those
    with equal samples are read whole. Blank images are not duplicates.
    """
    first = np.arange(len(images))
    for places, content in (_among_files(images), _in_packs(images)):
        for alike in _with_same_sample(places, content):
            groups: dict[bytes, list[int]] = {}
            for place in alike:
                with suppress(OSError):
                    groups.setdefault(content(place, True), []).append(place)
            for equal in groups.values():
                if len(equal) > 1 and not _is_blank(images, equal[0]):
                    first[equal] = equal[0]
    return first


def _is_blank(images: Images, place: int) -> bool:
    """Whether the image is readable and has a single grey level."""
    with suppress(UserError):
        pixels = images.read(place)
        return bool(pixels.min() == pixels.max())
    return False


def merge_patients(patients: np.ndarray | None, first: np.ndarray) -> np.ndarray | None:
    """Groups (N,) that no fold may divide: patients, merged if they share an image.

    `first` (N,) is from `find_duplicates`; without patients each image is its own group. Without
    duplicates between patients it is `patients` itself.
    """
    owners = _owners(patients, len(first))
    if (owners == owners[first]).all():
        return patients
    count = int(owners.max()) + 1
    edges = coo_array((np.ones(len(first)), (owners, owners[first])), shape=(count, count))
    return connected_components(edges, directed=False)[1][owners]


def describe_duplicates(ids: Sequence[str], patients: np.ndarray | None, first: np.ndarray) -> str:
    """Warning about images that are duplicates of another patient's; "" if there are none.

    ids, patients and `first`, from `find_duplicates`: (N,).
    """
    owners = _owners(patients, len(first))
    copies = np.flatnonzero(owners != owners[first])
    if not len(copies):
        return ""
    other = "" if patients is None else " of another patient"
    return (
        f"Warning: {pluralize(len(copies), 'image equals', 'images equal')} another one{other} "
        f"({_pairs(ids, copies, first)}): duplicates are kept in one fold. If they are mistakes, "
        "remove them from the CSV."
    )


def check_no_duplicates(train: Sequence[str], val: Sequence[str], first: np.ndarray) -> None:
    """Raise UserError if an image of --val_csv is a duplicate of one of --train_csv.

    `train` (T) and `val` (V) are image names; `first` (T + V,) is `find_duplicates` of both,
    concatenated.
    """
    copies = len(train) + np.flatnonzero(first[len(train) :] < len(train))
    if len(copies):
        raise UserError(
            f"{pluralize(len(copies), 'image')} of --val_csv can be found in --train_csv under "
            f"another name ({_pairs([*train, *val], copies, first)}), which inflates every score: "
            "remove them from one of the two, or use --folds in place of --val_csv"
        )


def _pairs(ids: Sequence[str], copies: np.ndarray, first: np.ndarray) -> str:
    return list_first([f"{ids[copy]} = {ids[first[copy]]}" for copy in copies.tolist()])


def _owners(patients: np.ndarray | None, images: int) -> np.ndarray:
    """Patient index of each image; without patients the image's own index."""
    return np.arange(images) if patients is None else pd.factorize(patients)[0]


# (index, whole) -> a digest of the whole image, or a sample of its bytes
_Content = Callable[[int, bool], bytes]


def _among_files(images: Images) -> tuple[np.ndarray, _Content]:
    """Indices of files that share their size with another, and a function to read them."""
    paths, sizes = images.encoded_paths, images.file_sizes
    _, codes, counts = np.unique(sizes, return_inverse=True, return_counts=True)

    def content(place: int, whole: bool) -> bytes:
        size = int(sizes[place])
        with open(paths[place], "rb", buffering=0) as file:
            if whole:
                return hashlib.file_digest(file, "sha256").digest()
            file.seek(max(0, size - _SAMPLE) // 2)
            return size.to_bytes(8, "little") + file.read(_SAMPLE)

    return np.flatnonzero((counts[codes] > 1) & (sizes > 0)), content


def _in_packs(images: Images) -> tuple[np.ndarray, _Content]:
    """Indices of readable images of packs, and a function to read them."""
    packed = images.pack >= 0
    packed[[place for place, _ in images.unreadable()]] = False

    def content(place: int, whole: bool) -> bytes:
        pixels = images.read(place)
        if whole:
            return hashlib.sha256(pixels.tobytes()).digest()
        start = max(0, pixels.size - _SAMPLE) // 2
        return len(pixels).to_bytes(8, "little") + pixels.reshape(-1)[start:][:_SAMPLE].tobytes()

    return np.flatnonzero(packed), content


def _with_same_sample(places: np.ndarray, content: _Content) -> Iterator[list[int]]:
    """Groups of `places` with equal samples; keeps only 8 bytes per image in memory."""

    def digests_of(some_places: np.ndarray) -> np.ndarray:
        found = []
        for place in some_places.tolist():
            data = place.to_bytes(8, "big")
            with suppress(OSError):
                data = content(place, False)
            digest = hashlib.blake2b(data, digest_size=8).digest()
            found.append(int.from_bytes(digest, "big"))
        return np.array(found, dtype=np.uint64)

    pieces = np.array_split(places, max(1, len(places) // _TOGETHER))
    is_silent = True if os.environ.get("RANK", "0") != "0" else None
    shown: dict[str, Any] = {"delay": 2, "leave": False, "disable": is_silent}
    # threads, because network file systems are slow to answer
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(digests_of, pieces)
        digests = np.concatenate([*ProgressBar(found, "finding duplicates", len(pieces), **shown)])
    order = np.argsort(digests, kind="stable")
    ends = np.flatnonzero(np.diff(digests[order])) + 1
    for alike in np.split(order, ends):
        if len(alike) > 1:
            yield places[alike].tolist()
