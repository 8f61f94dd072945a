"""Rows to predict: images, studies from a CSV or DICOM headers, and the sample submission."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.data.csv.columns import read_columns
from core.data.images.dicom.header import is_dicom, read_headers
from core.data.images.find_files import missing_remedy
from core.data.tables.anonymous import anonymize
from core.data.tables.images_to_predict import find_images, refuse_links_out
from core.data.tables.label_table import LabelTable, read_ids
from core.errors import UserError, list_first
from ensemble.predict.config import Config

# surrogate escapes: bytes of a file name that are not UTF-8
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, eq=False)
class Sample:
    """Sample submission: rows and columns of the output, in order."""

    path: Path
    id_column: str
    ids: list[str]
    class_names: list[str]

    def arrange(self, images: LabelTable) -> LabelTable:
        """Images of the sample's rows (images or studies), in its order.

        Raises UserError if the images of a row are missing.
        """
        keys = images.ids if images.studies is None else images.studies.tolist()
        places = {name: place for place, name in enumerate(self.ids)}
        missing = sorted(set(places) - set(keys), key=places.__getitem__)
        if missing:
            what = "images" if images.studies is None else "studies"
            raise UserError(
                f"{len(missing):,} of {len(places):,} rows of {self.path} are not among the {what} "
                f"to predict: {list_first(missing)}"
            )
        wanted = [(places[key], row) for row, key in enumerate(keys) if key in places]
        rows = np.array([row for _, row in sorted(wanted)])
        return replace(images.take(rows), id_column=self.id_column)

    def check_classes(self, class_names: list[str]) -> None:
        """Raise UserError if a column of the sample is not a class."""
        if missing := [name for name in self.class_names if name not in class_names]:
            raise UserError(
                f"{len(missing):,} column(s) of {self.path} are not classes of the models: "
                f"{list_first(missing, 12)}; the classes are {list_first(class_names, 20)}"
            )


def read_sample(path: Path) -> Sample:
    """Read the names of rows and columns; other cells are ignored.

    Raises UserError for an invalid table, and for a blank or duplicate name.
    """
    columns = read_columns(path)
    name, *class_names = columns
    if not class_names or "" in class_names:
        raise UserError(f"{path} needs a first column of names, then a named column for each class")
    return Sample(path, name, read_ids(columns[name]), class_names)


def rows_to_predict(config: Config, sample: Sample | None) -> LabelTable:
    """Images to predict, in the order of the output.

    Raises UserError if there are none, one has no file, is a link out of the folder or has a name
    that is not UTF-8, and if studies or rows of the sample are missing.
    """
    images = find_images(
        config.image_dir,
        config.test_csv or config.sample_submission,
        image_column=config.image_column if config.test_csv or not sample else sample.id_column,
        group_by="" if config.by_headers else config.group_by,
        view_column=config.view_column,
        remedy=missing_remedy(skips=config.on_bad_image == "skip"),
    )
    if others := [name for name in images.ids if _NOT_UTF8.search(name)]:
        shown = os.fsencode(others[0]).decode(errors="backslashreplace")
        raise UserError(
            f"{len(others):,} of {len(images):,} image names are not valid UTF-8 ({shown}): rename "
            "the files"
        )
    if not config.follow_links:
        refuse_links_out(images, config.image_dir)
    if config.by_headers:
        images = _group_by_headers(images)
    if sample is not None:
        return sample.arrange(images)
    if not config.anonymous:
        return images
    # patients are not written, but compared with those of the training
    return replace(anonymize(images), patients=images.patients)


def _group_by_headers(images: LabelTable) -> LabelTable:
    """Add studies and views from DICOM headers. Raises UserError if they are missing."""
    pairs = zip(images.ids, images.paths, strict=True)
    if images.images.packs:
        reason = "--group_by study needs DICOM headers, which a pack does not have"
    elif others := [name for name, path in pairs if not is_dicom(path)]:
        reason = (
            f"--group_by study without a --test_csv needs DICOM headers, but {len(others):,} of "
            f"{len(images):,} images are not DICOM files: {list_first(others)}"
        )
    else:
        headers = read_headers(images.paths)
        studies, views = headers["study"], headers["view"]
        without = [name for name, study in zip(images.ids, studies, strict=True) if not study]
        if not without:
            return replace(images, studies=studies, views=views, id_column="StudyInstanceUID")
        reason = (
            f"{len(without):,} of {len(images):,} DICOM headers lack a study: {list_first(without)}"
        )
    raise UserError(f"{reason}; give the studies in a column of a --test_csv")
