"""Check of leaks: the same image or patient in two CSVs, or an image twice in one."""

import os

import numpy as np

from core.data.csv.columns import PATIENT_COLUMNS, find_column, read_columns
from core.data.images.collection import Images
from core.data.splits.duplicates import first_copies
from core.data.tables.label_table import LabelTable
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.errors import counted, some

TRAIN, VAL, TEST = "--train_csv", "--val_csv", "the test"
# by these names, in this order
Tables = dict[str, LabelTable]


def check_patients_of_test(find: Findings, tables: Tables, config: Config) -> None:
    """Patients that --test_csv names in the `tables`."""
    csv, wanted = config.test_csv, config.data.reading.patient_column
    patients: set[str] = set()
    if csv is not None and wanted.lower() != "none":
        columns = read_columns(csv)
        wanted = wanted if wanted in columns else ""
        if name := find_column(csv, columns, wanted, PATIENT_COLUMNS, "--patient_column"):
            patients = set(columns[name].values)
    for flag, table in tables.items():
        # with several sources a patient has the source's name before its own
        if not patients or table.patients is None or table.sources is not None:
            find.unseen(f"patients of the test in {flag}: they are not named in both")
        elif shared := sorted(patients & set(table.patients)):
            find.bad(*_found(TEST, flag, "patient", shared))
        else:
            find.good(f"no patient of the test is in {flag}")


def check_copies(find: Findings, tables: Tables) -> np.ndarray | None:
    """First of the equal images for each one of --train_csv; None where not all have a file.

    Of --val_csv and --train_csv one file in both is found by its name already.
    """
    there = {flag: table for flag, table in tables.items() if table.paths}
    if len(there) < len(tables):
        find.unseen("equal images: every image needs a file first")
    if TRAIN not in there:
        return None
    images = Images.joined([table.images for table in there.values()])
    first, files = first_copies(images), list(map(os.path.realpath, images.paths))
    rows = [
        (flag, *row)
        for flag, table in there.items()
        for row in zip(table.ids, owners_of(table), strict=True)
    ]
    found: dict[tuple[str, str], list[str]] = {}
    for place, earlier in enumerate(first.tolist()):
        (flag, name, patient), (other, same, its_patient) = rows[place], rows[earlier]
        is_one_file = files[place] == files[earlier]
        if flag != other and (flag == TEST or not is_one_file):
            found.setdefault((flag, other), []).append(name if is_one_file else f"{name} = {same}")
        elif patient != its_patient and not is_one_file:
            found.setdefault((flag, flag), []).append(f"{name} = {same}")
    for (flag, other), pairs in found.items():
        if flag != other:
            find.bad(*_found(flag, other, "image", pairs))
        else:
            find.doubt(
                f"{counted(len(pairs), 'image')} of {flag} can be found there under two names, not "
                f"of one patient: {some(pairs)}",
                "take one of each pair out; a training keeps both in one fold",
            )
    if not found:
        find.good("no image is there twice (compared by bytes, and by patient in one CSV)")
    return first[: len(tables[TRAIN])]


def owners_of(table: LabelTable) -> list[str]:
    """The patient of each image, or the image itself where none are known."""
    return table.ids if table.patients is None else table.patients.tolist()


def _found(flag: str, other: str, what: str, names: list[str]) -> tuple[str, str]:
    """Finding and remedy for what is in two CSVs."""
    return (
        f"{counted(len(names), what)} of {flag} can be found in {other}: {some(names)}",
        f"take them out of {other}, or their scores say nothing about new patients",
    )
