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
_SEED = 0


class Decoded(NamedTuple):
    """One of the images, and what its pixels are; `reason` where it cannot be read."""

    place: int
    reason: str = ""
    is_constant: bool = False
    shape: tuple[int, ...] = (0, 0)
    print: np.ndarray | None = None


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
    places = np.arange(len(names))
    what = counted(len(names), "image")
    if not full and len(names) > SAMPLE:
        places = np.sort(np.random.default_rng(_SEED).choice(places, SAMPLE, replace=False))
        what = (
            f"a sample of {SAMPLE} images of {len(names):,} (always the same; --full decodes all)"
        )

    def decode(place: int) -> Decoded:
        try:
            pixels = files.read(place)
        except UserError as error:
            return Decoded(place, str(error))
        is_constant = bool(pixels.min() == pixels.max())
        print = print_of(pixels) if full and not is_constant else None
        return Decoded(place, "", is_constant, pixels.shape, print)

    with ThreadPoolExecutor(max(1, worker_count(workers))) as pool:
        found = pool.map(decode, places.tolist())
        images = list(tqdm(found, "decoding", len(places), unit="img", leave=False, disable=None))
    _check_pixels(find, images, names, what)
    if full:
        find.look("near-duplicates", _check_near, images, tables, names)
    else:
        find.unseen("near-duplicate images: --full looks for them")


def _check_pixels(find: Findings, images: list[Decoded], names: list[str], what: str) -> None:
    if bad := [one for one in images if one.reason]:
        which = some([names[one.place] for one in bad], 20)
        find.bad(
            f"of {what}, {len(bad):,} cannot be read: {which} ({bad[0].reason.rstrip('.')})",
            "fix or fetch them again, or take their rows out of the CSV",
        )
    else:
        low, high = (limit([one.shape for one in images], axis=0) for limit in (np.min, np.max))
        find.good(f"{what} can be read, {low[1]} x {low[0]} to {high[1]} x {high[0]} px")
    if constant := [names[one.place] for one in images if one.is_constant]:
        find.doubt(told_constant(constant).removeprefix("Warning: "))
    else:
        find.good("none of these has the same grey everywhere")


def _check_near(find: Findings, images: list[Decoded], tables: Tables, names: list[str]) -> None:
    places = np.array([one.place for one in images if one.print is not None])
    prints = [one.print for one in images if one.print is not None]
    if not prints:
        find.unseen("near-duplicate images: there is none to compare")
        return
    # those to predict are of other patients than those of --train_csv, and leak to nobody
    owners = [
        f"{table is tables.test} {name if table.patients is None else table.patients[place]}"
        for table in tables.every
        for place, name in enumerate(table.ids)
    ]
    trained = len(names) - (0 if tables.test is None else len(tables.test))
    paths = [path for table in tables.every for path in table.paths]
    pairs = places[near_pairs(np.stack(prints), np.array(owners)[places])]
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
