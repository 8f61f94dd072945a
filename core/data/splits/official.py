"""Official split: concatenation of --train_csv and --val_csv."""

from collections.abc import Callable
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np

from core.config.data import DataConfig
from core.data.images.collection import Images
from core.data.splits.duplicates import check_no_duplicates, find_duplicates
from core.data.splits.folds import check_disjoint
from core.data.tables.anonymous import anonymize
from core.data.tables.label_table import IMAGE_FIELDS, LabelTable
from core.data.tables.load import gather


def join_official_split(
    train: LabelTable, data: DataConfig, log: Callable[[str], None]
) -> tuple[LabelTable, np.ndarray]:
    """Concatenate the training table (fold -1) and --val_csv (fold 0), and check for overlap.

    Returns the table and the fold of each image, (N,) int. Raises UserError like `gather`, and if
    both parts have an image, a patient or a duplicate in common.
    """
    val = gather(data, validation=True, labels=train.class_names)
    check_disjoint(train, val)
    images = Images.concatenate([train.images, val.images])
    check_no_duplicates(train.ids, val.ids, find_duplicates(images))
    _warn_missing_labels(train, val, log)
    if data.anonymous:
        train, val = anonymize(train), anonymize(val)
    known: dict[str, Any] = {}
    for name in IMAGE_FIELDS:
        one, other = getattr(train, name), getattr(val, name)
        known[name] = None if one is None or other is None else np.concatenate([one, other])
    targets = np.concatenate([train.targets, val.targets])
    joined = replace(train, ids=train.ids + val.ids, images=images, targets=targets, **known)
    return joined, np.repeat([-1, 0], [len(train), len(val)])


def _warn_missing_labels(train: LabelTable, val: LabelTable, log: Callable[[str], None]) -> None:
    """Warn if the --val_csv of a source lacks labels of its --train_csv."""
    if train.sources is None or val.sources is None:
        return
    for source, name in enumerate(train.source_names):
        known = ~np.isnan(train.targets[train.sources == source]).all(axis=0)
        scored = ~np.isnan(val.targets[val.sources == source]).all(axis=0)
        if missing := list(compress(train.class_names, known & ~scored)):
            log(
                f"Warning: the --val_csv of source '{name}' has no labels of {', '.join(missing)}, "
                "scored on the other sources only."
            )
