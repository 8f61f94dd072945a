"""Check of the CSVs: reading, folds, comparison with the test images."""

import textwrap
from contextlib import suppress

import numpy as np

from core.config.training import SplitConfig
from core.data.csv.columns import read_columns
from core.data.images.find_files import missing_remedy
from core.data.splits.prepare import divide
from core.data.tables.images_to_predict import find_images
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.doctor.leaks import TEST, TRAIN, VAL, Tables, check_copies, check_patients_of_test
from core.errors import UserError, pluralize
from core.runtime.log import logger

_WARNING = "Warning: "


def check_tables(find: Findings, config: Config, split: SplitConfig) -> Tables:
    """Check all CSVs; returns the valid tables, none if --train_csv is invalid."""
    data = config.data
    train = find.attempt(_read_labels, config)
    if train is None:
        find.skip("labels, patients, images, folds and leaks need a valid --train_csv")
        return {}
    tables = {TRAIN: train}
    if train.paths or not data.val_csv:
        find.attempt(_divide, train, config, split)
    else:
        find.skip("--val_csv: every image of --train_csv needs a file first")
    if data.val_csv:
        # `_divide` has reported an error in it
        with suppress(UserError):
            tables[VAL] = gather(data, validation=True, labels=train.class_names)
    if config.has_test:
        test = find.attempt(_read_test, config, train)
        if test is not None:
            find.attempt(check_patients_of_test, tables, config)
            tables[TEST] = test
            find.attempt(check_copies, tables)
    return tables


def _read_labels(find: Findings, config: Config) -> LabelTable:
    """The table of --train_csv, without paths if images are missing."""
    try:
        table = gather(config.data)
    except UserError as error:
        # raises again if the CSV is invalid
        table = gather(config.data, images=False)
        find.bad(str(error))
    else:
        find.good(f"each image has a file in {', '.join(map(str, config.data.train_dir))}")
    return table


def _divide(find: Findings, table: LabelTable, config: Config, split: SplitConfig) -> None:
    """Report what a training prints about its data. Raises UserError as the training would."""

    def log(text: str) -> None:
        if text.startswith(_WARNING):
            find.doubt(text.removeprefix(_WARNING))
        elif "\n" in text:
            logger.info(textwrap.indent(text, "      "))
        else:
            find.good(text)

    divide(table, config.data, split, log)
    if table.patients is not None and len(np.unique(table.patients)) == len(table) > 1:
        find.doubt("each image has a different patient", "is --patient_column correct?")


def _read_test(find: Findings, config: Config, train: LabelTable) -> LabelTable:
    csv, folder = config.test_csv, config.test_dir or config.data.train_dir[0]
    is_known = csv is not None and train.id_column in read_columns(csv)
    column, remedy = train.id_column if is_known else "", missing_remedy("--test_dir")
    test = find_images(folder, csv, image_column=column, remedy=remedy)
    find.good(f"{csv or folder}: {pluralize(len(test), 'image')} to predict, each with a file")
    return test
