"""CXR-LT 2023 and 2024: MIMIC-CXR's images with more labels, one row an image.

Holste et al., "CXR-LT", https://physionet.org/content/cxr-lt-iccv-workshop-cvamd/.
"""

from pathlib import Path

from core.data.csv.columns import Column, find_named, has_columns, names_among
from core.data.sources.source_table import SourceTable, column
from core.errors import normalize_name

NEEDED = ("dicom_id", "subject_id", "study_id", "fpath")
# as in the table of MIMIC-CXR-JPG's images
OTHERS = (
    *("ViewPosition", "ViewCodeSequence_CodeMeaning", "PerformedProcedureStepDescription"),
    *("ProcedureCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
    *("Rows", "Columns", "StudyDate", "StudyTime", "path", "split"),
)


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether these are its columns."""
    return has_columns(columns, NEEDED)


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """Its table; the official test is what the column 'split' says, which the whole table has.

    Raises UserError where it has no dicom_id.
    """
    column(columns, "dicom_id", "cxr_lt")
    splits = find_named(columns, "split")
    return SourceTable(
        path=path,
        columns=columns,
        no_labels=names_among(columns, (*NEEDED, *OTHERS)),
        image=("dicom_id",),
        patient=("subject_id",),
        study=("study_id",),
        view=("ViewPosition",),
        official_test=None
        if splits is None
        else splits.each(lambda part: normalize_name(part) == "test"),
    )
