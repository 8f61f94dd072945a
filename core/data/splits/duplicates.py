"""Equal images under two names: a leak between folds that patients do not show.

Files are equal byte for byte, images of packs pixel for pixel. Images of one grey everywhere, as
failed exports are, have nothing in common but that.
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
from tqdm import tqdm

from core.data.images.collection import Images
from core.errors import UserError, list_first, pluralize

# bytes of the middle of an image that are looked at before the whole of it
_SAMPLE = 4096
_READERS, _TOGETHER = 16, 256


def find_duplicates(images: Images) -> np.ndarray:
    """Of each image the first one that equals it, (N,) int64: itself where there is none before.

    Of files those of the same size are opened for a sample of 4 KiB; of these, as of the images of
    packs, those with the same sample are read whole. An image of one grey everywhere is no copy.
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
    """Whether it can be read, and is of one grey everywhere."""
    with suppress(UserError):
        pixels = images.read(place)
        return bool(pixels.min() == pixels.max())
    return False


def merge_patients(patients: np.ndarray | None, first: np.ndarray) -> np.ndarray | None:
    """Groups (N,) that no fold may divide: patients, joined where they share an image.

    `first` of `find_duplicates`. Without a copy of another patient's image they are `patients`.
    """
    owners = _owners(patients, len(first))
    if (owners == owners[first]).all():
        return patients
    count = int(owners.max()) + 1
    edges = coo_array((np.ones(len(first)), (owners, owners[first])), shape=(count, count))
    return connected_components(edges, directed=False)[1][owners]


def describe_duplicates(ids: Sequence[str], patients: np.ndarray | None, first: np.ndarray) -> str:
    """A sentence on the images that another patient has too; "" where there is none."""
    owners = _owners(patients, len(first))
    copies = np.flatnonzero(owners != owners[first])
    if not len(copies):
        return ""
    whose = "" if patients is None else " of another patient"
    return (
        f"Warning: {pluralize(len(copies), 'image equals', 'images equal')} another one{whose} "
        f"({_pairs(ids, copies, first)}): equal images are kept in one fold, as if one patient's. "
        "If they are mistakes, take them out of the CSV."
    )


def check_no_duplicates(train: Sequence[str], val: Sequence[str], first: np.ndarray) -> None:
    """Raise UserError where an image of --val_csv equals one of --train_csv.

    `train` and `val` name their images; `first` is of both, one after the other.
    """
    copies = len(train) + np.flatnonzero(first[len(train) :] < len(train))
    if len(copies):
        raise UserError(
            f"{pluralize(len(copies), 'image')} of --val_csv can be found in --train_csv under "
            f"another name ({_pairs([*train, *val], copies, first)}), which inflates every number: "
            "take them out of one of the two, or leave --val_csv out and let --folds split"
        )


def _pairs(ids: Sequence[str], copies: np.ndarray, first: np.ndarray) -> str:
    return list_first([f"{ids[copy]} = {ids[first[copy]]}" for copy in copies.tolist()])


def _owners(patients: np.ndarray | None, images: int) -> np.ndarray:
    """Whose each image is, as a number; its own where no patients are known."""
    return np.arange(images) if patients is None else pd.factorize(patients)[0]


# of an image by its place: a digest of the whole, or a sample
_Content = Callable[[int, bool], bytes]


def _among_files(images: Images) -> tuple[np.ndarray, _Content]:
    """The files of which another has the same size, and their content."""
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
    """The readable images of packs, and their pixels."""
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
    """Those of `places` that share a sample, together; in little memory for a million of them."""

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
    # of files on a server it is the waiting that takes long
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(digests_of, pieces)
        parts = tqdm(found, "looking for equal images", len(pieces), **shown)
        digests = np.concatenate([*parts])
    order = np.argsort(digests, kind="stable")
    ends = np.flatnonzero(np.diff(digests[order])) + 1
    for alike in np.split(order, ends):
        if len(alike) > 1:
            yield places[alike].tolist()
