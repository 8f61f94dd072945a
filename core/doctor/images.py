"""The images themselves: can they be decoded, are they radiographs, are some nearly the same?"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from core.data.images.store import ImageStore
from core.data.loading.blank_images import told_constant
from core.doctor.findings import Findings
from core.doctor.near_duplicates import near_pairs, print_of
from core.doctor.tables import Tables
from core.errors import UserError, counted, some
from core.runtime.fabric import worker_count

SAMPLE = 200
_SEED = 0
_AT_ONCE = 16


class Seen(NamedTuple):
    """One image as it was decoded, or why it could not be."""

    reason: str = ""
    constant: bool = False
    shape: tuple[int, int] = (0, 0)
    print: np.ndarray | None = None


@dataclass(frozen=True)
class Pictures:
    """What decoding gave, of images `places` among those of all CSVs."""

    places: np.ndarray
    seen: list[Seen]
    seconds: float
    """for each image, of all threads together and with the wait for the disk"""
    threads: int = 1


def check_pictures(find: Findings, tables: Tables, *, full: bool, workers: Any) -> None:
    """Decode a sample, or with `full` all, and look at what decoding gave."""
    every = tables.every
    names = [name for one in every for name in one.ids]
    if not names:
        find.unseen(
            "unreadable, constant and near-duplicate images: every image needs a file first"
        )
        return
    store = ImageStore(
        [path for one in every for path in one.paths],
        tuple(dict.fromkeys(pack for one in every for pack in one.packs)),
    )
    places = np.arange(len(names))
    if not full and len(places) > SAMPLE:
        places = np.sort(np.random.default_rng(_SEED).choice(places, SAMPLE, replace=False))
    pictures = _decode(store, places, full, max(1, worker_count(workers)))
    what = counted(len(places), "image")
    if len(places) < len(names):
        what = f"a sample of {what} of {len(names):,} (always the same; --full decodes all)"
    find.look("unreadable images", _check_readable, pictures, names, what)
    find.look("constant images", _check_constant, pictures, names, what)
    if full:
        find.look("near-duplicates", _check_near, pictures, tables, names)
    else:
        find.unseen("near-duplicate images: --full looks for them")


def _decode(store: ImageStore, places: np.ndarray, full: bool, workers: int) -> Pictures:
    """Decode in threads: decoders let others compute, and the pixels need no shared memory."""

    def see(some_places: np.ndarray) -> list[Seen]:
        return [_see(store, place, full) for place in some_places.tolist()]

    # of a sample each thread gets some
    count = max(-(-len(places) // _AT_ONCE), min(len(places), 4 * workers))
    seen: list[Seen] = []
    threads = cv2.getNumThreads()
    # each would start one a core
    cv2.setNumThreads(1)
    began = time.perf_counter()
    try:
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(desc="decoding", total=len(places), unit="img", leave=False, disable=None) as bar,
        ):
            for found in pool.map(see, np.array_split(places, count)):
                seen += found
                bar.update(len(found))
    finally:
        cv2.setNumThreads(threads)
    return Pictures(places, seen, (time.perf_counter() - began) / max(1, len(places)), workers)


def _see(store: ImageStore, place: int, full: bool) -> Seen:
    try:
        pixels = store.read(place)
    except UserError as error:
        return Seen(reason=str(error))
    height, width = pixels.shape
    constant = bool(pixels.min() == pixels.max())
    own = print_of(pixels) if full and not constant else None
    return Seen(constant=constant, shape=(height, width), print=own)


def _check_readable(find: Findings, pictures: Pictures, names: list[str], what: str) -> None:
    bad = [
        (names[place], one.reason)
        for place, one in zip(pictures.places.tolist(), pictures.seen, strict=True)
        if one.reason
    ]
    if bad:
        find.bad(
            f"of {what}, {len(bad):,} cannot be read: {some([name for name, _ in bad], 20)} "
            f"({bad[0][1].rstrip('.')})",
            "mend or fetch them again, or take their rows out of the CSV",
        )
        return
    sides = np.array([one.shape for one in pictures.seen])
    low, high = sides.min(axis=0), sides.max(axis=0)
    find.good(
        f"{what} can be read, {low[1]} x {low[0]} to {high[1]} x {high[0]} px, "
        f"{1 / max(pictures.seconds, 1e-9):,.0f} a second by {counted(pictures.threads, 'thread')}"
    )


def _check_constant(find: Findings, pictures: Pictures, names: list[str], what: str) -> None:
    found = [
        names[place]
        for place, one in zip(pictures.places.tolist(), pictures.seen, strict=True)
        if one.constant
    ]
    if found:
        find.doubt(told_constant(found).removeprefix("Warning: "))
    else:
        find.good("none of these has the same grey everywhere")


def _check_near(find: Findings, pictures: Pictures, tables: Tables, names: list[str]) -> None:
    places = [place for place, one in enumerate(pictures.seen) if one.print is not None]
    prints = [one.print for one in pictures.seen if one.print is not None]
    if not prints:
        find.unseen("near-duplicate images: there is none to compare")
        return
    numbers: dict[tuple[int, str], int] = {}
    owners = np.array([numbers.setdefault(one, len(numbers)) for one in _owners(tables)])
    pairs, same = near_pairs(np.stack(prints), owners[places])
    pairs = np.array(places)[pairs]
    # those to predict have nobody to leak to
    start = len(names) - (0 if tables.test is None else len(tables.test))
    paths = [path for one in tables.every for path in one.paths]
    # one file in two CSVs was told before
    strangers = [(a, b) for a, b in pairs.tolist() if a < start and paths[a] != paths[b]]
    method = "by thumbnails; what was cropped, turned or mirrored is hardly found"
    if not strangers:
        find.good(
            f"no near-duplicates of different patients ({counted(same, 'pair')} of one patient's "
            f"own; {method})"
        )
        return
    told = some([f"{names[a]} ~ {names[b]}" for a, b in strangers], 10)
    whose = " of a different patient" if tables.train.patients is not None else ""
    find.doubt(
        f"{counted(len(strangers), 'image looks', 'images look')} nearly the same as another one"
        f"{whose}: {told} "
        f"({counted(same, 'pair')} of one patient's own; {method})",
        "look at them: the same radiograph in training and validation inflates every number; "
        "take one of each pair out, or give both one patient",
    )


def _owners(tables: Tables) -> Iterator[tuple[int, str]]:
    """Whose each image is; images to predict are another's than those of --train_csv."""
    for table in tables.every:
        for place, name in enumerate(table.ids):
            patient = name if table.patients is None else str(table.patients[place])
            yield int(table is tables.test), patient
