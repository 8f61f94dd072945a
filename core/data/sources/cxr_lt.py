"""CXR-LT 2023 and 2024: MIMIC-CXR's images with more labels, one row an image.

Holste et al., "CXR-LT", https://physionet.org/content/cxr-lt-iccv-workshop-cvamd/.
"""

from pathlib import Path

import numpy as np

from core.data.csv.columns import Column
from core.data.sources.sheet import Sheet, column
from core.errors import plain

NEEDED = ("dicom_id", "subject_id", "study_id", "fpath")
# as in the table of MIMIC-CXR-JPG's images
OTHERS = (
    *("ViewPosition", "ViewCodeSequence_CodeMeaning", "PerformedProcedureStepDescription"),
    *("ProcedureCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
    *("Rows", "Columns", "StudyDate", "StudyTime", "path", "split"),
)


def matches(path: Path, columns: dict[str, Column]) -> bool:
    """Whether these are its columns."""
    return {plain(name) for name in NEEDED} <= {plain(name) for name in columns}


def read(path: Path, columns: dict[str, Column]) -> Sheet:
    """Its table; the official test is what the column 'split' says, which the whole table has.

    Raises UserError where it has no dicom_id.
    """
    column(path, columns, "dicom_id", "cxr_lt")
    test = None
    splits = next((columns[name] for name in columns if plain(name) == "split"), None)
    if splits is not None:
        test = np.array([plain(value) == "test" for value in splits.values])[splits.codes]
    others = {plain(name) for name in (*NEEDED, *OTHERS)}
    return Sheet(
        path=path,
        columns=columns,
        no_labels=tuple(name for name in columns if plain(name) in others),
        image=("dicom_id",),
        patient=("subject_id",),
        study=("study_id",),
        view=("ViewPosition",),
        official_test=test,
    )
