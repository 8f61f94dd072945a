"""Images to predict, from a folder or a CSV, and their studies."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from lightning_fabric import Fabric

from core.data.csv.columns import (
    PATIENT_COLUMNS,
    VIEW_COLUMNS,
    Column,
    find_column,
    find_image_column,
    read_columns,
)
from core.data.csv.patients import PATIENT_IN_PATH
from core.data.csv.views import view_group
from core.data.images import find_files
from core.data.images.collection import Images
from core.data.tables.label_table import LabelTable, read_ids
from core.errors import UserError, list_first
from core.runtime.progress_bar import ProgressBar


def find_images(
    folder: Path,
    csv: Path | None,
    *,
    image_column: str = "",
    group_by: str = "",
    view_column: str = "",
    like: Sequence[str] = (),
    remedy: str = "",
) -> LabelTable:
    """Find the images that `csv` names, or all images of `folder`; the table has no labels.

    Without a CSV the ids are paths relative to the folder. If the identifiers in `like` have no
    folders or no file extension, the ids have none either, as long as they stay unique. `group_by`
    is the column of the studies. Raises UserError if there are no images or, with `remedy`, one has
    no file.
    """
    if csv is None:
        return _all_images(folder, like)
    columns = read_columns(csv)
    name = find_image_column(csv, columns, image_column)
    ids = read_ids(columns[name])
    root = os.path.join(os.path.abspath(folder), "")
    for value in columns[name].values:
        full = value.startswith(("/", "\\")) or value[1:2] == ":"
        if full and not os.path.abspath(value).startswith(root):
            raise UserError(
                f"{columns[name].place(value)}: '{value}' in column '{name}' is outside {folder}: "
                "give paths inside the image folder"
            )
    images = _unlabelled(ids, find_files.match_images(ids, folder, remedy), name)
    images = replace(images, patients=_patients(csv, columns, ids))
    if not group_by:
        return images
    study = find_column(csv, columns, group_by, (), "--group_by")
    if study is None:
        raise UserError("--group_by none has no effect: leave it out")
    if "" in columns[study].values:
        raise UserError(f"{columns[study].place('')} is blank in column '{study}'")
    view = find_column(csv, columns, view_column, VIEW_COLUMNS, "--view_column")
    views = None if view is None else columns[view].cells
    return replace(images, studies=columns[study].cells, views=views, id_column=study)


def _patients(csv: Path, columns: dict[str, Column], ids: Sequence[str]) -> np.ndarray | None:
    """Patients (N,) str from the usual columns or image paths; "" if unknown, None if none is."""
    with suppress(UserError):
        if name := find_column(csv, columns, "", PATIENT_COLUMNS, "--patient_column"):
            return columns[name].cells
    found = [PATIENT_IN_PATH.search(image) for image in ids]
    named = [match.group(1) if match else "" for match in found]
    return np.array(named, dtype=object) if any(named) else None


def refuse_links_out(images: LabelTable, folder: Path) -> None:
    """Raise UserError if an image is reached by a symbolic link that leaves `folder`."""
    root, real_path = os.path.join(os.path.realpath(folder), ""), cache(os.path.realpath)
    out = []
    for name, path in zip(images.ids, images.paths, strict=True):
        target = os.path.join(real_path(os.path.dirname(path)), "")
        if os.path.islink(path):
            target = os.path.realpath(path)
        if not target.startswith(root):
            out.append(name)
    if out:
        raise UserError(
            f"{len(out):,} of {len(images):,} images are links to files outside {folder}: "
            f"{list_first(out)}; if you made these links, pass --follow_links"
        )


def view_groups(views: np.ndarray | None, images: int) -> np.ndarray:
    """Index of each image's view group, int64 (N,): frontal, lateral, or the view's own name."""
    if views is None:
        return np.zeros(images, dtype=np.int64)
    codes, names = pd.factorize(views)
    return pd.factorize(np.array([view_group(n) for n in names], dtype=object))[0][codes]


def _all_images(folder: Path, like: Sequence[str]) -> LabelTable:
    files, packs = find_files.list_folder(folder)
    images = sorted(files if packs else find_files.images_among(folder, files))
    if not images:
        raise UserError(
            f"The image folder {folder} holds no image among its {len(files):,} files "
            f"({', '.join(find_files.IMAGE_ENDINGS)}, or DICOM of any name): give another folder."
        )
    ids = images
    names = [name.rpartition("/")[2] for name in images]
    if like and not any("/" in name for name in like) and len(set(names)) == len(names):
        ids = names
    if like and not any(name.lower().endswith(find_files.IMAGE_ENDINGS) for name in like):
        ids = [find_files.strip_ending(name) or name for name in ids]
        if twice := sorted(name for name, count in Counter(ids).items() if count > 1):
            raise UserError(
                f"{folder} has images that differ only in their ending: {list_first(twice)}. Keep "
                "one."
            )
    return _unlabelled(ids, Images.in_folder(folder, images, packs), "ImageID")


def _unlabelled(ids: list[str], images: Images, id_column: str) -> LabelTable:
    return LabelTable(
        ids=ids,
        images=images,
        targets=np.empty((len(ids), 0), dtype=np.float32),
        class_names=(),
        id_column=id_column,
    )


def check_readable(fabric: Fabric, table: LabelTable, threads: int) -> None:
    """Decode every image once, on rank 0; raise UserError if some cannot be read."""

    def find_error(place: int) -> str:
        try:
            table.images.read(place)
        except UserError as error:
            return str(error)
        return ""

    unreadable: list[tuple[str, str]] = []
    if fabric.is_global_zero:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            errors = pool.map(find_error, range(len(table)))
            bar = ProgressBar(
                errors, desc="checking the test images", total=len(table), disable=None
            )
            unreadable = [pair for pair in zip(table.ids, bar, strict=True) if pair[1]]
    unreadable = fabric.broadcast(unreadable)
    if unreadable:
        names = [name for name, _ in unreadable]
        raise UserError(
            f"{len(unreadable):,} of the {len(table):,} images to predict cannot be read: "
            f"{list_first(names, 20)} ({unreadable[0][1].rstrip('.')}). List the others in a "
            "--test_csv."
        )
