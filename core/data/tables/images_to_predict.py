"""The images to predict: found in a folder or named by a CSV, and the studies they belong to."""

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
from tqdm import tqdm

from core.data.csv.columns import (
    PATIENT_COLUMNS,
    VIEW_COLUMNS,
    Column,
    find_column,
    find_image_column,
    read_columns,
)
from core.data.csv.views import view_group
from core.data.images import find_files
from core.data.images.collection import Images
from core.data.tables.label_table import PATIENT_IN_PATH, LabelTable, read_ids
from core.errors import UserError, list_first


def find_images(
    folder: Path,
    csv: Path | None,
    *,
    image_column: str = "",
    group_by: str = "",
    view_column: str = "",
    like: Sequence[str] = (),
) -> LabelTable:
    """The images that `csv` names, or without one every image of `folder`, without labels.

    Those of a folder go by their path in it, or as the identifiers of `like` without sub-folders
    (where that is unique) and ending. `group_by` names the column of their studies. Raises
    UserError where there is no image, and where one that is named has no file in the folder.
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
                f"{columns[name].place(value)} names '{value}' in column '{name}', which is not "
                f"below {folder}: give paths below the image folder"
            )
    images = _unlabelled(ids, find_files.match_images(ids, folder), name)
    images = replace(images, patients=_patients(csv, columns, ids))
    if not group_by:
        return images
    study = find_column(csv, columns, group_by, (), "--group_by")
    if study is None:
        raise UserError("--group_by none groups nothing: leave it out")
    if "" in columns[study].values:
        raise UserError(f"{columns[study].place('')} is blank in column '{study}'")
    view = find_column(csv, columns, view_column, VIEW_COLUMNS, "--view_column")
    views = None if view is None else columns[view].cells
    return replace(images, studies=columns[study].cells, views=views, id_column=study)


def _patients(csv: Path, columns: dict[str, Column], ids: Sequence[str]) -> np.ndarray | None:
    """Patients (N,) str, "" for unknown, by the usual columns or the images' names; or None."""
    with suppress(UserError):
        if name := find_column(csv, columns, "", PATIENT_COLUMNS, "--patient_column"):
            return columns[name].cells
    found = [PATIENT_IN_PATH.search(image) for image in ids]
    named = [match.group(1) if match else "" for match in found]
    return np.array(named, dtype=object) if any(named) else None


def refuse_links_out(images: LabelTable, folder: Path) -> None:
    """Raise UserError where an image is a link, or below one, to what is not in `folder`."""
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
            f"{len(out):,} of {len(images):,} images are links to files that are not in {folder}: "
            f"{list_first(out)}; if you made these links, pass --follow_links"
        )


def view_groups(views: np.ndarray | None, images: int) -> np.ndarray:
    """A number for the group of each image's view, int64 (N,): frontal, lateral, or as it is."""
    if views is None:
        return np.zeros(images, dtype=np.int64)
    codes, names = pd.factorize(views)
    return pd.factorize(np.array([view_group(n) for n in names], dtype=object))[0][codes]


def _all_images(folder: Path, like: Sequence[str]) -> LabelTable:
    files, packs = find_files.list_folder(folder)
    images = sorted(files if packs else find_files.images_among(folder, files))
    if not images:
        raise UserError(
            f"The image folder {folder} holds no image ({', '.join(find_files.IMAGE_ENDINGS)}, or "
            f"DICOM of any name) among its {len(files):,} files: there is nothing to predict."
        )
    ids = images
    names = [name.rpartition("/")[2] for name in images]
    if like and not any("/" in name for name in like) and len(set(names)) == len(names):
        ids = names
    if like and not any(name.lower().endswith(find_files.IMAGE_ENDINGS) for name in like):
        ids = [find_files.strip_ending(name) or name for name in ids]
        if twice := sorted(name for name, count in Counter(ids).items() if count > 1):
            raise UserError(
                f"{folder} holds images that differ in their ending only: {list_first(twice)}. "
                "Keep one."
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
    """Decode every image once, on the first rank; raise UserError for those that cannot be read."""

    def problem(place: int) -> str:
        try:
            table.images.read(place)
        except UserError as error:
            return str(error)
        return ""

    spoiled: list[tuple[str, str]] = []
    if fabric.is_global_zero:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            problems = pool.map(problem, range(len(table)))
            desc = "reading the test images once"
            told = tqdm(problems, desc=desc, total=len(table), disable=None)
            spoiled = [pair for pair in zip(table.ids, told, strict=True) if pair[1]]
    spoiled = fabric.broadcast(spoiled)
    if spoiled:
        names = [name for name, _ in spoiled]
        raise UserError(
            f"{len(spoiled):,} of the {len(table):,} images to predict cannot be read: "
            f"{list_first(names, 20)} ({spoiled[0][1].rstrip('.')}). Name the others in a "
            "--test_csv."
        )
