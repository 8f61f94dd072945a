"""CXR-LT 2023 and 2024: images of MIMIC-CXR with more labels, one row per image.

Holste et al., "CXR-LT", https://physionet.org/content/cxr-lt-iccv-workshop-cvamd/.
"""

from pathlib import Path

from core.data.csv.columns import Column, find_named, has_columns, names_among
from core.data.sources.source_table import SourceTable, column
from core.errors import normalize_name

NEEDED = ("dicom_id", "subject_id", "study_id", "fpath")
# from the metadata table of MIMIC-CXR-JPG
OTHERS = (
    *("ViewPosition", "ViewCodeSequence_CodeMeaning", "PerformedProcedureStepDescription"),
    *("ProcedureCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
    *("Rows", "Columns", "StudyDate", "StudyTime", "path", "split"),
)


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether the table has its columns."""
    return has_columns(columns, NEEDED)


def read(path: Path, columns: dict[str, Column]) -> SourceTable:
    """Read the table; the official test is defined by the column 'split', if there is one.

    Raises UserError if it has no dicom_id.
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
