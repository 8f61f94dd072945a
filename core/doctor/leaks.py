"""Check of leaks: the same image or patient in two CSVs, or an image twice in one."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.data.csv.columns import PATIENT_COLUMNS, find_column, read_columns
from core.data.images.collection import Images
from core.data.splits.duplicates import first_copies
from core.data.splits.folds import check_disjoint
from core.data.tables.label_table import LabelTable
from core.doctor.findings import Findings
from core.errors import counted, some

TEST = "the test"


def check_leaks(find: Findings, train: LabelTable, val: LabelTable) -> None:
    """Images and patients of --val_csv in --train_csv. Raises UserError for these."""
    # where images are missing their names are still compared
    tables = (train, val)
    named = [one if one.paths else replace(one, images=Images.of_files(one.ids)) for one in tables]
    check_disjoint(*named)
    shared = "no image" if train.patients is None else "no image and no patient"
    find.good(f"{shared} of --val_csv is in --train_csv")


def check_test_leaks(
    find: Findings, flag: str, table: LabelTable, test: LabelTable, patients: set[str]
) -> None:
    """Images and patients of `test`, its `patients`, in `table`, which `flag` names.

    Images are compared by their file: two folders may each have a 1.png.
    """
    files = set(map(os.path.realpath, table.paths))
    pairs = zip(test.ids, test.paths, strict=True)
    shared = {"image": [name for name, path in pairs if os.path.realpath(path) in files]}
    # with several sources a patient has the source's name before its own
    if patients and table.patients is not None and table.sources is None:
        shared["patient"] = sorted(patients & set(table.patients))
    for what, names in shared.items():
        if names:
            find.bad(
                f"{counted(len(names), what)} of the test can be found in {flag}: {some(names)}",
                f"take them out of {flag}, or their scores say nothing about new patients",
            )
    if not table.paths:
        find.unseen(f"whether the test's images are in {flag}: every image needs a file first")
    elif not any(shared.values()):
        why = "" if "patient" in shared else " (patients are not compared)"
        nothing = " and ".join(f"no {what}" for what in shared)
        find.good(f"{nothing} of the test is in {flag}{why}")


def read_patients(_: Findings, csv: Path | None, request: str) -> set[str]:
    """Patients that a CSV names; none where it has no such column, or `request` is "none"."""
    if csv is None or request.lower() == "none":
        return set()
    columns = read_columns(csv)
    wanted = request if request in columns else ""
    name = find_column(csv, columns, wanted, PATIENT_COLUMNS, "--patient_column")
    return set() if name is None else set(columns[name].values)


def check_copies(find: Findings, parts: Mapping[str, LabelTable]) -> np.ndarray | None:
    """First of the equal images for each one of --train_csv; None where not all have a file.

    parts: tables by flag, that of --train_csv first.
    """
    train, *_ = parts.values()
    if not train.paths:
        find.unseen("equal images under two names: every image needs a file first")
        return None
    parts = {flag: table for flag, table in parts.items() if table.paths}
    images = Images.joined([table.images for table in parts.values()])
    first, files = first_copies(images), list(map(os.path.realpath, images.paths))
    rows = [
        (flag, *row)
        for flag, table in parts.items()
        for row in zip(
            table.ids, table.ids if table.patients is None else table.patients, strict=True
        )
    ]
    found: dict[tuple[str, str], list[str]] = {}
    for place, earlier in enumerate(first.tolist()):
        (flag, name, patient), (other, same, its_patient) = rows[place], rows[earlier]
        # one file in two CSVs is found by its name
        if files[place] != files[earlier] and (flag != other or patient != its_patient):
            found.setdefault((flag, other), []).append(f"{name} = {same}")
    for (flag, other), pairs in found.items():
        what = f"{counted(len(pairs), 'image')} of {flag} can be found"
        if flag != other:
            find.bad(
                f"{what} in {other} under another name: {some(pairs)}", f"take them out of {other}"
            )
        else:
            find.doubt(
                f"{what} there under two names, not of one patient: {some(pairs)}",
                "take one of each pair out; a training keeps both in one fold",
            )
    if not found:
        find.good("no image is there under two names of different patients (compared by bytes)")
    return first[: len(train)]
