"""Check of leaks: test images and patients in the CSVs of a training."""

import os

from core.data.csv.columns import PATIENT_COLUMNS, find_column, read_columns
from core.data.images.collection import Images
from core.data.splits.duplicates import find_duplicates
from core.data.tables.label_table import LabelTable
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.errors import list_first, pluralize

TRAIN, VAL, TEST = "--train_csv", "--val_csv", "the test"
# by name, in this order
Tables = dict[str, LabelTable]


def check_patients_of_test(find: Findings, tables: Tables, config: Config) -> None:
    """Search the patients of --test_csv in the `tables`."""
    csv, places = config.test_csv, range(len(config.data.train_csv))
    given = [config.data.reading.of_csv(place).patient_column for place in places]
    patients: set[str] = set()
    is_wanted = any(one.lower() != "none" for one in given)
    if csv is not None and is_wanted:
        columns = read_columns(csv)
        wanted = next((one for one in given if one in columns), "")
        if name := find_column(csv, columns, wanted, PATIENT_COLUMNS, "--patient_column"):
            patients = set(columns[name].values)
    for flag, table in tables.items():
        # with several sources patients are prefixed by the source
        if csv is None or not is_wanted or table.sources is not None:
            find.skip(f"patients of the test in {flag}: they are not named in both")
        elif not patients or table.patients is None:
            unknown = f"whether a patient of the test is in {flag} is unknown: no patient column"
            find.doubt(f"{unknown} (--patient_column names one)")
        elif shared := sorted(patients & set(table.patients)):
            find.bad(*_found(flag, "patient", shared))
        else:
            find.good(f"no patient of the test is in {flag}")


def check_copies(find: Findings, tables: Tables) -> None:
    """Search test images, the last of `tables`, that equal another image."""
    there = {flag: table for flag, table in tables.items() if table.paths}
    if len(there) < len(tables):
        find.skip("equal images in the test and the others: every image needs a file first")
        return
    images = Images.concatenate([table.images for table in there.values()])
    first, files = find_duplicates(images), list(map(os.path.realpath, images.paths))
    rows = [(flag, name) for flag, table in there.items() for name in table.ids]
    found: dict[str, list[str]] = {}
    for place in range(len(rows) - len(tables[TEST]), len(rows)):
        (other, same), (_, name), earlier = rows[first[place]], rows[place], first[place]
        if files[place] != files[earlier]:
            found.setdefault(other, []).append(f"{name} = {same}")
        elif other != TEST:
            found.setdefault(other, []).append(name)
    for other, names in found.items():
        if other == TEST:
            find.doubt(f"{pluralize(len(names), 'duplicate')} in the test: {list_first(names)}")
        else:
            find.bad(*_found(other, "image", names))
    if not found:
        find.good("no image of the test equals another one (compared by bytes)")


def owners_of(table: LabelTable) -> list[str]:
    """Patient of each image, or the image itself if patients are unknown."""
    return table.ids if table.patients is None else table.patients.tolist()


def _found(flag: str, what: str, names: list[str]) -> tuple[str, str]:
    """Finding and remedy for images or patients both in the test and in another table."""
    return (
        f"{pluralize(len(names), what)} of the test found in {flag}: {list_first(names)}",
        f"remove them from {flag}: otherwise their scores do not hold for new patients",
    )
