"""The images on which predictions are the furthest from the labels, as small pictures."""

from dataclasses import dataclass
from functools import cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from core.data.images.collection import Images
from core.data.images.decode import within
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.report.plots.style import by_prevalence

# of each kind and class; and of all
EACH, MOST = 3, 180
# pixels of the longer side
SIDE = 160
_QUALITY = 80


@dataclass(frozen=True)
class Case:
    """One image and what was predicted of it."""

    name: str
    score: float
    rank: int
    """Place of the score among those of the class's known labels, the highest first, from 1."""
    jpeg: bytes
    """Empty where the image cannot be read."""


@dataclass(frozen=True)
class Worst:
    """The positives of a class with the lowest scores, and its negatives with the highest."""

    name: str
    group: str
    known: int
    misses: list[Case]
    alarms: list[Case]


@dataclass(frozen=True)
class WorstCases:
    """Those of the classes that are shown, most prevalent first."""

    classes: list[Worst]
    each: int
    """Up to so many misses and as many false alarms of a class."""
    left_out: int = 0
    """Classes with known labels that are not shown, for want of room."""


def worst_cases(
    evaluation: Evaluation, table: LabelTable, rows: NDArray[np.intp], probabilities: FloatArray
) -> WorstCases:
    """Of each class the images of `table` that are the furthest off.

    probabilities: (N, C) of the images in `rows` (N,). Of very many classes fewer of each, and then
    of the rarest alone; one of no known prevalence gives way first. An image that cannot be read
    has no picture, and that is all.
    """
    targets = table.targets[rows]
    known_classes = by_prevalence(evaluation.per_class[evaluation.per_class["n"] > 0])
    each = max(1, min(EACH, MOST // (2 * max(1, len(known_classes)))))
    rarest = known_classes.sort_values("prevalence", kind="stable")[: MOST // (2 * each)]
    thumbnail = cache(partial(_thumbnail, table.images))
    shown = []
    for name, row in by_prevalence(rarest).iterrows():
        column = evaluation.per_class.index.get_loc(name)
        known = np.flatnonzero(~np.isnan(targets[:, column]))
        scores = probabilities[known, column]
        ranks = rankdata(-scores, "min").astype(int)
        # by score, and where that is the same by place: the same on each machine
        falling = np.argsort(-scores, kind="stable")
        is_positive = targets[known[falling], column] == 1
        misses, alarms = (
            [
                Case(table.ids[image], float(scores[place]), int(ranks[place]), thumbnail(image))
                for place, image in zip(places, rows[known[places]].tolist(), strict=True)
            ]
            for places in (falling[is_positive][::-1][:each], falling[~is_positive][:each])
        )
        shown.append(Worst(str(name), str(row["group"]), len(known), misses, alarms))
    return WorstCases(shown, each, len(known_classes) - len(shown))


def _thumbnail(images: Images, place: int) -> bytes:
    try:
        pixels = images.read(place)
    # a pack may be gone, or shorter than it was
    except (UserError, OSError, ValueError):
        return b""
    small = within(pixels, SIDE)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
