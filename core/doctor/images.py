"""Check of the images: can they be decoded, are they radiographs, are some nearly the same?"""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from core.data.images.collection import Images
from core.data.loading.blank_images import told_constant
from core.doctor.findings import Findings
from core.doctor.near_duplicates import near_pairs, print_of
from core.doctor.tables import Tables
from core.errors import UserError, counted, some
from core.runtime.fabric import worker_count

SAMPLE = 200


class Decoded(NamedTuple):
    """Shape and print of an image in greyscale; `reason` where it cannot be read."""

    reason: str
    shape: tuple[int, ...] = ()
    print: np.ndarray | None = None
    is_constant: bool = False


def check_images(
    find: Findings, tables: Tables, *, full: bool, workers: Literal["auto"] | int
) -> None:
    """Decode a sample, or with `full` all, and check the pixels."""
    names = [name for one in tables.every for name in one.ids]
    if not names:
        find.unseen(
            "unreadable, constant and near-duplicate images: every image needs a file first"
        )
        return
    files = Images.joined([one.images for one in tables.every])
    places, what = np.arange(len(names)), counted(len(names), "image")
    if not full and len(names) > SAMPLE:
        places = np.sort(np.random.default_rng(0).choice(places, SAMPLE, replace=False))
        what = (
            f"a sample of {SAMPLE} images of {len(names):,} (always the same; --full decodes all)"
        )

    def decode(place: int) -> Decoded:
        try:
            pixels = files.read(place)
        except UserError as error:
            return Decoded(str(error))
        if pixels.min() == pixels.max():
            return Decoded("", pixels.shape, is_constant=True)
        return Decoded("", pixels.shape, print_of(pixels) if full else None)

    with ThreadPoolExecutor(max(1, worker_count(workers))) as pool:
        found = pool.map(decode, places.tolist())
        progress = tqdm(found, "decoding", len(places), unit="img", leave=False, disable=None)
        images = dict(zip(places.tolist(), progress, strict=True))
    _check_pixels(find, images, names, what)
    if full:
        find.look("near-duplicates", _check_near, images, tables, names)
    else:
        find.unseen("near-duplicate images: --full looks for them")


def _check_pixels(find: Findings, images: dict[int, Decoded], names: list[str], what: str) -> None:
    if bad := {place: one.reason for place, one in images.items() if one.reason}:
        reason = next(iter(bad.values())).rstrip(".")
        find.bad(
            f"of {what}, {len(bad):,} cannot be read: {some([names[n] for n in bad], 20)} "
            f"({reason})",
            "fix or fetch them again, or take their rows out of the CSV",
        )
    else:
        shapes = np.array([one.shape for one in images.values()])
        low, high = shapes.min(axis=0), shapes.max(axis=0)
        find.good(f"{what} can be read, {low[1]} x {low[0]} to {high[1]} x {high[0]} px")
    if constant := [names[place] for place, one in images.items() if one.is_constant]:
        find.doubt(told_constant(constant).removeprefix("Warning: "))
    else:
        find.good("none of these has the same grey everywhere")


def _check_near(
    find: Findings, images: dict[int, Decoded], tables: Tables, names: list[str]
) -> None:
    prints = {place: one.print for place, one in images.items() if one.print is not None}
    if not prints:
        find.unseen("near-duplicate images: there is none to compare")
        return
    # those to predict are of other patients than those of --train_csv, and leak to nobody
    owners = [
        f"{table is tables.test} {owner}"
        for table in tables.every
        for owner in (table.ids if table.patients is None else table.patients)
    ]
    trained = len(names) - (0 if tables.test is None else len(tables.test))
    paths = [path for table in tables.every for path in table.paths]
    places = np.array(list(prints))
    pairs = places[near_pairs(np.stack(list(prints.values())), np.array(owners)[places])]
    # one file in two CSVs is a finding of its own
    strangers = [(a, b) for a, b in pairs.tolist() if a < trained and paths[a] != paths[b]]
    method = "by thumbnails; what was cropped, turned or mirrored is hardly found"
    if not strangers:
        find.good(f"no near-duplicates of different patients ({method})")
        return
    whose = " of a different patient" if tables.train.patients is not None else ""
    find.doubt(
        f"{counted(len(strangers), 'image looks', 'images look')} nearly the same as another one"
        f"{whose}: {some([f'{names[a]} ~ {names[b]}' for a, b in strangers], 10)} ({method})",
        "look at them: the same radiograph in training and validation inflates every number; "
        "take one of each pair out, or give both one patient",
    )
