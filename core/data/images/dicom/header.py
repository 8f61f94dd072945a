"""DICOM files of a folder, and patient, study and view from their headers.

pydicom is imported where a header is read: most images are no DICOM.
"""

import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

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

# Hospital files are full of values that break a rule of the standard. (catch_warnings is not safe
# in threads.)
warnings.filterwarnings("ignore", module=r"pydicom\.")


FIELDS = ("patient", "study", "view")
INSTALL = 'pip install -c constraints.txt -e ".[dicom]"'

_THREADS = 8
_TAGS = ("PatientID", "StudyInstanceUID", "ViewPosition", "SeriesDescription")
# what a Series Description says of the view, word by word
_VIEW_WORDS = {"PA": "PA", "AP": "AP"} | dict.fromkeys(("LATERAL", "LAT", "LL", "RL"), "LATERAL")


def is_dicom(path: str | Path) -> bool:
    """Whether this file begins as a DICOM file does; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return is_dicom_data(file.read(START))
    except OSError:
        return False


def require_pydicom() -> None:
    """Raise UserError where pydicom is not installed."""
    if find_spec("pydicom") is None:
        raise UserError(f"it is a DICOM file, and pydicom is not installed: {INSTALL}")


def read_headers(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Patient ID, Study Instance UID and view of N files, each (N,) str; "" where one has none.

    A view is the View Position, or PA, AP or LATERAL where the Series Description names only one.
    Raises UserError without pydicom, and where a file cannot be read or is not DICOM.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        told = pool.map(_read_header, paths)
        rows = list(tqdm(told, desc="DICOM headers", total=len(paths), disable=None))
    columns = np.array(rows, dtype=object).reshape(len(rows), 3).T
    return dict(zip(FIELDS, columns, strict=True))


def from_headers(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """`read_headers`, or {} where there is no file, or one that is not DICOM."""
    return read_headers(paths) if paths and all(map(is_dicom, paths)) else {}


def patients_of(patients: np.ndarray, paths: Sequence[str]) -> tuple[np.ndarray | None, str]:
    """The patients (N,) str of these headers, or None without any, and a note for the user;
    UserError where only some headers name one."""
    without = [path for path, patient in zip(paths, patients, strict=True) if not patient]
    if not without:
        note = f"Patients are taken from the DICOM headers, such as '{patients[0]}' in {paths[0]}."
        return patients, note
    if len(without) < len(paths):
        raise UserError(
            f"{len(without):,} of {len(paths):,} DICOM headers name no patient: "
            f"{list_first(without)}. Name the patients in a column of the CSV, or pass "
            "--patient_column none, and the "
            "folds may share patients."
        )
    return None, (
        "Warning: neither the CSV nor any DICOM header names a patient, so that images of one "
        "patient may fall into two folds and inflate every number. Name it with --patient_column."
    )


def _read_header(path: str) -> tuple[str, str, str]:
    """Patient, study and view of a file."""
    try:
        with open(path, "rb") as file:
            data = file.read(2 * START)
            if not is_dicom_data(data):
                raise ValueError("it is no DICOM file")
            require_pydicom()
            # late, as at the top
            from pydicom import dcmread

            is_plain = has_preamble(data) and not is_deflated(data)
            if not is_plain:
                data += file.read(BYTES * max_pixels())
            file.seek(0)
            source = BoundedReads(file) if is_plain else bounded(data)
            header = dcmread(source, stop_before_pixels=True, specific_tags=[*_TAGS])
        check_lengths(header)
        patient, study, view, series = (str(header.get(name) or "").strip() for name in _TAGS)
    # pydicom raises about anything on a damaged file
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(f"The header of {path} cannot be read: {reason}.") from error
    if not view:
        # "W033 Chest PA" is PA, "PA and lateral" is none
        words = re.findall(r"[A-Z]+", series.upper())
        named = {_VIEW_WORDS[word] for word in words if word in _VIEW_WORDS}
        view = named.pop() if len(named) == 1 else ""
    return patient, study, view
