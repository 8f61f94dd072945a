"""The studies of DICOM images, from their headers."""

from dataclasses import replace

from core.data.images.dicom.header import is_dicom, read_headers
from core.data.tables.label_table import LabelTable
from core.errors import UserError, some


def group_by_headers(images: LabelTable) -> LabelTable:
    """The images with the studies and views that their headers name.

    Raises UserError for an image that is no DICOM file, and one whose header names no study.
    """
    if images.images.packs:
        raise UserError(
            "--group_by study reads DICOM headers, which a pack does not keep: name the studies in "
            "a column of a --test_csv"
        )
    others = [
        name for name, path in zip(images.ids, images.paths, strict=True) if not is_dicom(path)
    ]
    if others:
        raise UserError(
            f"--group_by study without a --test_csv reads DICOM headers, and {len(others):,} of "
            f"{len(images):,} images are no DICOM files: {some(others)}; name the studies in a "
            "column of a --test_csv"
        )
    headers = read_headers(images.paths)
    without = [name for name, study in zip(images.ids, headers["study"], strict=True) if not study]
    if without:
        raise UserError(
            f"{len(without):,} of {len(images):,} DICOM headers name no study: {some(without)}; "
            "name the studies in a column of a --test_csv"
        )
    return replace(
        images, studies=headers["study"], views=headers["view"], id_column="StudyInstanceUID"
    )
