"""The images to predict: found in a folder, named by a CSV, and looked at before any model is."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from tqdm import tqdm

from core.data.columns import IMAGE_COLUMNS, find_column, read_columns
from core.data.files import IMAGE_ENDINGS, match_images, scan_folder
from core.data.image import read_image
from core.data.table import LabelTable, read_ids
from core.errors import UserError, some


def find_images(
    folder: Path, csv: Path | None, *, image_column: str = "", like: Sequence[str] = ()
) -> LabelTable:
    """The images that `csv` names, or without one every image of `folder`, without labels.

    Those of a folder go by their path in it; as the identifiers of `like` without sub-folders
    (where that is unique) and without ending. Raises UserError where there is none, and where one
    that is named has no file.
    """
    if csv is None:
        return _all_images(folder, like)
    columns = read_columns(csv)
    name = find_column(csv, columns, image_column or None, IMAGE_COLUMNS, "--image_column")
    if name is None:
        raise UserError(f"{csv} has no column with the images' names: call it ImageID.")
    ids = read_ids(csv, name, columns[name])
    return _unlabelled(ids, match_images(ids, folder), name)


def _all_images(folder: Path, like: Sequence[str]) -> LabelTable:
    files = scan_folder(folder)
    images = sorted(name for name in files if name.lower().endswith(IMAGE_ENDINGS))
    if not images:
        raise UserError(
            f"The image folder {folder} holds no image ({', '.join(IMAGE_ENDINGS)}) among its "
            f"{len(files):,} files: there is nothing to predict."
        )
    ids = images
    names = [name.rpartition("/")[2] for name in images]
    if like and not any("/" in name for name in like) and len(set(names)) == len(names):
        ids = names
    if like and not any(name.lower().endswith(IMAGE_ENDINGS) for name in like):
        ids = [name.rpartition(".")[0] for name in ids]
        twice = sorted(name for name, count in Counter(ids).items() if count > 1)
        if twice:
            raise UserError(
                f"{folder} holds several images that differ in their ending only: {some(twice)}. "
                "Keep one of each."
            )
    return _unlabelled(ids, [str(folder / name) for name in images], "ImageID")


def _unlabelled(ids: list[str], paths: list[str], id_column: str) -> LabelTable:
    return LabelTable(
        ids=ids,
        paths=paths,
        patients=None,
        studies=None,
        views=None,
        targets=np.empty((len(ids), 0), dtype=np.float32),
        class_names=(),
        notes=(),
        id_column=id_column,
    )


def check_readable(fabric: Fabric, table: LabelTable, threads: int) -> None:
    """Decode every image once, on the first rank.

    Raises UserError that names those which cannot be read: hours of training should not end in one.
    """

    def problem(path: str) -> str:
        try:
            read_image(path)
        except UserError as error:
            return str(error)
        return ""

    spoiled: list[tuple[str, str]] = []
    if fabric.is_global_zero:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            told = tqdm(
                pool.map(problem, table.paths),
                desc="reading the test images once",
                total=len(table),
                disable=None,
            )
            spoiled = [pair for pair in zip(table.ids, told, strict=True) if pair[1]]
    spoiled = fabric.broadcast(spoiled)
    if spoiled:
        names = [name for name, _ in spoiled]
        raise UserError(
            f"{len(spoiled):,} of the {len(table):,} images to predict cannot be read: "
            f"{some(names, 20)} ({spoiled[0][1].rstrip('.')}). Mend them, or name the others in a "
            "--test_csv; nothing was written."
        )
