"""Names of columns that are never a label: identifiers, age, dates and DICOM headers."""

import re
from functools import cache
from pathlib import Path

from core.data.csv.columns import IMAGE_COLUMNS, PATIENT_COLUMNS, STUDY_COLUMNS, VIEW_COLUMNS
from core.errors import normalize_name

# not labels, even if all cells are 0 or 1
OTHER_COLUMNS = (
    *("index", "idx", "serial", "sno", "srno", "row", "number", "no", "nr", "num", "id", "level"),
    *("sheet", "batch", "series"),
    *("instance", "sequence", "order", "counter"),
    *("age", "sex", "gender", "male", "female", "m/f", "malesex", "birth"),
    *("PresentationLUTShape", "TransferSyntaxUID", "FrameNumber"),
    *("race", "ethnicity"),
    *("bmi", "height", "weight", "pediatric", "insurance", "language", "marital_status"),
    *("date", "time", "year", "month", "day", "visit", "timepoint", "Follow-up #", "followup_days"),
    *("split", "OfficialSplit", "fold", "set", "subset", "partition", "train", "val", "valid"),
    *("validation", "test", "site", "hospital", "institution", "center", "dataset", "source"),
    *("manufacturer", "scanner", "width", "rows", "columns", "channels", "bits", "size"),
    *("frontal", "lateral", "ap", "pa", "laterality", "orientation", "position", "direction"),
    *("xmin", "xmax", "ymin", "ymax", "pixelspacing_x", "pixelspacing_y", "folder", "dir"),
    "OriginalImagePixelSpacing[x",
    *("rad_id", "reader", "radiologist", "annotator", "rater", "accession"),
)
# prefixes and suffixes of such a name: PatientSex, Sex_code, cv_fold, fold_0, is_test
_BEFORE = re.compile(
    r"^(?:patient|subject|study|image|img|sample|case|exam|official|validation|val|train|test|cv|k"
    r"|is|has|fu)"
)
_AFTER = re.compile(
    r"(?:code|count|encoded|binary|bin|flag|group|id|idx|index|name|no|nr|num|number|male|female"
    r"|0f|ap|pa|view|type|visit|atbirth|m|f|s|\d+)$"
)
# DICOM keywords with prefixes and suffixes (dicom_SeriesNumber, SeriesNumber_x), and tags
_DICOM_BEFORE = re.compile(r"^(?:dicom|dcm)[\W_]*", re.IGNORECASE)
_DICOM_AFTER = re.compile(r"(?:[\W_]+(?:x|y|left|right|dicom|\d+))+$", re.IGNORECASE)
_DICOM_TAG = re.compile(r"\W*(?:0x)?[0-9a-f]{4}\W*[0-9a-f]{4}\W*", re.IGNORECASE)
_LONGEST_NAME = 100
_DICOM_NAMES = Path(__file__).with_name("dicom_names.txt")


def is_known_non_label(name: str) -> bool:
    """Whether a column of this name is never a label."""
    key = normalize_name(name)
    if not key or key.startswith("unnamed") or name == "y]":
        return True  # "y]": second half of NIH's "OriginalImagePixelSpacing[x,y]"
    if key in _NON_LABELS or key.removesuffix("dicom") in _dicom_names():
        return True
    if len(key) > _LONGEST_NAME:
        return False
    header = normalize_name(_DICOM_AFTER.sub("", _DICOM_BEFORE.sub("", name)))
    if _DICOM_TAG.fullmatch(name) or header in _dicom_names():
        return True
    for stem in (key, _BEFORE.sub("", key)):
        found = 1
        while found and len(stem) > 1:
            if stem in _NON_LABELS:
                return True
            stem, found = _AFTER.subn("", stem)
    return False


@cache
def _dicom_names() -> frozenset[str]:
    """Normalized keywords of PS3.6 for patient, study, equipment, acquisition and image."""
    return frozenset(map(normalize_name, _DICOM_NAMES.read_text(encoding="ascii").split()))


_NON_LABELS = set(
    map(
        normalize_name,
        IMAGE_COLUMNS + PATIENT_COLUMNS + STUDY_COLUMNS + VIEW_COLUMNS + OTHER_COLUMNS,
    )
)
