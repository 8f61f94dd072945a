"""Check of the CSVs: read and divided as by a training, and compared with those of the test."""

import textwrap
from contextlib import suppress

import numpy as np

from core.config.training import SplitConfig
from core.data.csv.columns import read_columns
from core.data.splits.prepare import divide
from core.data.tables.images_to_predict import find_images
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.doctor.leaks import TEST, TRAIN, VAL, Tables, check_copies, check_patients_of_test
from core.errors import UserError, pluralize

_WARNING = "Warning: "


def check_tables(find: Findings, config: Config, split: SplitConfig) -> Tables:
    """Check all CSVs; the tables that could be read, none where --train_csv could not."""
    data = config.data
    train = find.look(_read_labels, config)
    if train is None:
        find.unseen("labels, patients, images, folds and leaks need a --train_csv that can be read")
        return {}
    tables = {TRAIN: train}
    if train.paths or not data.val_csv:
        find.look(_divide, train, config, split)
    else:
        find.unseen("--val_csv: every image of --train_csv needs a file first")
    if data.val_csv:
        # what is wrong with it is found by now
        with suppress(UserError):
            tables[VAL] = gather(data, validation=True, labels=train.class_names)
    if config.tests:
        test = find.look(_read_test, config, train)
        if test is not None:
            find.look(check_patients_of_test, tables, config)
            tables[TEST] = test
            find.look(check_copies, tables)
    return tables


def _read_labels(find: Findings, config: Config) -> LabelTable:
    """The table of --train_csv, without paths where images are missing."""
    try:
        table = gather(config.data)
    except UserError as error:
        # where the CSV is at fault this raises again
        table = gather(config.data, images=False)
        remedy = "name their folder by --train_dir, or take the rows of missing images out"
        find.bad(str(error), remedy)
    else:
        find.good(f"each image has a file in {', '.join(map(str, config.data.train_dir))}")
    return table


def _divide(find: Findings, table: LabelTable, config: Config, split: SplitConfig) -> None:
    """What a training says of its data before it begins. Raises UserError where it would."""

    def say(text: str) -> None:
        if text.startswith(_WARNING):
            find.doubt(text.removeprefix(_WARNING))
        elif "\n" in text:
            print(textwrap.indent(text, "      "))
        else:
            find.good(text)

    divide(table, config.data, split, say)
    if table.patients is not None and len(np.unique(table.patients)) == len(table) > 1:
        find.doubt("each image is another patient's", "is --patient_column that column?")


def _read_test(find: Findings, config: Config, train: LabelTable) -> LabelTable:
    csv, folder = config.test_csv, config.test_dir or config.data.train_dir[0]
    is_known = csv is not None and train.id_column in read_columns(csv)
    test = find_images(folder, csv, image_column=train.id_column if is_known else "")
    find.good(f"{csv or folder}: {pluralize(len(test), 'image')} to predict, each with a file")
    return test
