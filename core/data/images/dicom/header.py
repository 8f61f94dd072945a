"""DICOM detection, and patient, study and view from DICOM headers.

pydicom is imported late, because it is optional.
"""

import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from core.data.images.dicom.limits import (
    START,
    BoundedReads,
    bounded,
    check_lengths,
    has_preamble,
    is_deflated,
    is_dicom_data,
)
from core.data.images.size_limit import BYTES, max_pixels
from core.errors import UserError, list_first
from core.runtime.progress_bar import ProgressBar

# hospital files often violate the standard (catch_warnings is not thread-safe)
warnings.filterwarnings("ignore", module=r"pydicom\.")


FIELDS = ("patient", "study", "view")
INSTALL = 'pip install -c constraints.txt -e ".[dicom]"'

_THREADS = 8
_TAGS = ("PatientID", "StudyInstanceUID", "ViewPosition", "SeriesDescription")
# view by the words of a Series Description
_VIEW_WORDS = {"PA": "PA", "AP": "AP"} | dict.fromkeys(("LATERAL", "LAT", "LL", "RL"), "LATERAL")


def is_dicom(path: str | Path) -> bool:
    """Whether the file begins like DICOM; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return is_dicom_data(file.read(START))
    except OSError:
        return False


def require_pydicom() -> None:
    """Raise UserError if pydicom is not installed."""
    if find_spec("pydicom") is None:
        raise UserError(f"it is a DICOM file, and pydicom is not installed: {INSTALL}")


def read_headers(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Patient ID, Study Instance UID and view of N files, each (N,) str; "" if missing.

    The view is the View Position, or PA, AP or LATERAL if the Series Description has exactly one of
    them. Raises UserError without pydicom, and if a file cannot be read or is not DICOM.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = pool.map(_read_header, paths)
        rows = list(ProgressBar(headers, desc="DICOM headers", total=len(paths), disable=None))
    columns = np.array(rows, dtype=object).reshape(len(rows), 3).T
    return dict(zip(FIELDS, columns, strict=True))


def from_headers(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """`read_headers` if there are files and all are DICOM; else {}."""
    return read_headers(paths) if paths and all(map(is_dicom, paths)) else {}


def patients_of(patients: np.ndarray, paths: Sequence[str]) -> tuple[np.ndarray | None, str]:
    """Patients (N,) str of these headers, or None if no header has one, and a note for the user.

    Raises UserError if only some headers have a patient.
    """
    without = [path for path, patient in zip(paths, patients, strict=True) if not patient]
    if not without:
        note = f"Patients are read from the DICOM headers, such as '{patients[0]}' in {paths[0]}."
        return patients, note
    if len(without) < len(paths):
        raise UserError(
            f"{len(without):,} of {len(paths):,} DICOM headers name no patient: "
            f"{list_first(without)}. Name the patients in a column of the CSV, or pass "
            "--patient_column none, and the "
            "folds may share patients."
        )
    return None, (
        "Warning: neither the CSV nor any DICOM header has a patient, so images of one patient may "
        "be in two folds and inflate every score. Name the column with --patient_column."
    )


def _read_header(path: str) -> tuple[str, str, str]:
    """Patient, study and view of a file."""
    try:
        with open(path, "rb") as file:
            data = file.read(2 * START)
            if not is_dicom_data(data):
                raise ValueError("it is not a DICOM file")
            require_pydicom()
            # late, because it is optional
            from pydicom import dcmread

            is_plain = has_preamble(data) and not is_deflated(data)
            if not is_plain:
                data += file.read(BYTES * max_pixels())
            file.seek(0)
            source = BoundedReads(file) if is_plain else bounded(data)
            header = dcmread(source, stop_before_pixels=True, specific_tags=[*_TAGS])
        check_lengths(header)
        patient, study, view, series = (str(header.get(name) or "").strip() for name in _TAGS)
    # pydicom raises any exception on damaged files
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(f"The header of {path} cannot be read: {reason}.") from error
    if not view:
        # "W033 Chest PA" is PA, "PA and lateral" is ambiguous
        words = re.findall(r"[A-Z]+", series.upper())
        named = {_VIEW_WORDS[word] for word in words if word in _VIEW_WORDS}
        view = named.pop() if len(named) == 1 else ""
    return patient, study, view
