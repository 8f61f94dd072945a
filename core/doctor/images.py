"""Check of the images: unreadable files, constant images, near-duplicates."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from core.data.images.collection import Images
from core.data.loading.dataset import describe_blank_images
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.doctor.leaks import TEST, TRAIN, Tables, owners_of
from core.doctor.near_duplicates import find_near_pairs, perceptual_hash
from core.errors import UserError, list_first, pluralize
from core.runtime.fabric import worker_count
from core.runtime.progress_bar import ProgressBar

SAMPLE = 200


def check_images(find: Findings, tables: Tables, config: Config) -> None:
    """Decode a sample, or all with --full, and check the pixels."""
    tables = {flag: table for flag, table in tables.items() if table.paths}
    names = [name for table in tables.values() for name in table.ids]
    if not names:
        find.skip("unreadable, constant and similar images: every image needs a file first")
        return
    files = Images.concatenate([table.images for table in tables.values()])
    places, what, full = np.arange(len(names)), pluralize(len(names), "image"), config.full
    if not full and len(names) > SAMPLE:
        places = np.sort(np.random.default_rng(0).choice(places, SAMPLE, replace=False))
        what = (
            f"a sample of {SAMPLE} images of {len(names):,} (always the same; --full decodes all)"
        )

    def decode(place: int) -> tuple[str, tuple[int, ...], bool, np.ndarray | None]:
        """Error of an unreadable image, or ""; its shape, whether it is constant, and its hash."""
        try:
            pixels = files.read(place)
        except UserError as error:
            return str(error), (), False, None
        is_constant = bool(pixels.min() == pixels.max())
        return (
            "",
            pixels.shape,
            is_constant,
            perceptual_hash(pixels) if full and not is_constant else None,
        )

    with ThreadPoolExecutor(max(1, worker_count(config.num_workers))) as pool:
        found = pool.map(decode, places.tolist())
        progress = ProgressBar(
            found, "decoding", len(places), unit="img", leave=False, disable=None
        )
        reasons, shapes, constant, hashes = zip(*progress, strict=True)
    chosen = [names[place] for place in places]
    if bad := [name for name, reason in zip(chosen, reasons, strict=True) if reason]:
        reason = next(filter(None, reasons)).rstrip(".")
        find.bad(
            f"of {what}, {len(bad):,} cannot be read: {list_first(bad, 20)} ({reason})",
            "replace these files, or remove their rows from the CSV",
        )
    else:
        low, high = np.min(shapes, axis=0), np.max(shapes, axis=0)
        find.good(f"{what} can be read, {low[1]} x {low[0]} to {high[1]} x {high[0]} px")
    if blank := [name for name, is_blank in zip(chosen, constant, strict=True) if is_blank]:
        find.doubt(describe_blank_images(blank).removeprefix("Warning: "))
    else:
        find.good("none of these has a single grey level")
    if full:
        find.attempt(_check_near, hashes, tables, names)
    else:
        find.skip("near-duplicate images: --full looks for them")


def _check_near(
    find: Findings, hashes: Sequence[np.ndarray | None], tables: Tables, names: list[str]
) -> None:
    places = np.flatnonzero([one is not None for one in hashes])
    if not len(places):
        find.skip("near-duplicate images: there is none to compare")
        return
    # images to predict have other patients, and count as different from those of --train_csv
    owners = [
        f"{flag == TEST} {owner}" for flag, table in tables.items() for owner in owners_of(table)
    ]
    trained = len(names) - len(tables.get(TEST, ()))
    paths = [path for table in tables.values() for path in table.paths]
    vectors = np.stack([one for one in hashes if one is not None])
    pairs = places[find_near_pairs(vectors, np.array(owners)[places])]
    # one file in two CSVs is reported by `check_copies`
    strangers = [(a, b) for a, b in pairs.tolist() if a < trained and paths[a] != paths[b]]
    method = "by thumbnails; cropped, rotated or mirrored images are mostly missed"
    if not strangers:
        find.good(f"no near-duplicates of different patients ({method})")
        return
    is_known = TRAIN in tables and tables[TRAIN].patients is not None
    find.doubt(
        f"{pluralize(len(strangers), 'image looks', 'images look')} nearly the same as another one"
        f"{' of a different patient' if is_known else ''}: "
        f"{list_first([f'{names[a]} ~ {names[b]}' for a, b in strangers], 10)} ({method})",
        "check them: the same radiograph in training and validation inflates all scores; remove "
        "one of each pair, or give both the same patient",
    )
