"""The images on which predictions are the furthest from the labels, as small pictures."""

from dataclasses import dataclass
from functools import cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from core.data.images.collection import Images
from core.data.images.decode import shrink_to
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.metrics import Evaluation
from core.metrics.ap_auroc import FloatArray
from core.report.plots.style import by_prevalence

# images of each kind and class; classes, the rarest ones
EACH, MOST_CLASSES = 3, 30
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


def worst_cases(
    evaluation: Evaluation, table: LabelTable, rows: NDArray[np.intp], probabilities: FloatArray
) -> list[Worst]:
    """Of each class the images of `table` that are the furthest off, most prevalent class first.

    probabilities: (N, C) of the images in `rows` (N,). Of more than MOST_CLASSES classes the rarest
    alone; one of no known prevalence gives way first. An image that cannot be read has no picture.
    """
    targets, per_class = table.targets[rows], evaluation.per_class
    rarest = per_class[per_class["n"] > 0].sort_values("prevalence", kind="stable")[:MOST_CLASSES]
    thumbnail = cache(partial(_thumbnail, table.images))
    shown = []
    for name, row in by_prevalence(rarest).iterrows():
        column = per_class.index.get_loc(name)
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
            for places in (falling[is_positive][::-1][:EACH], falling[~is_positive][:EACH])
        )
        shown.append(Worst(str(name), str(row["group"]), len(known), misses, alarms))
    return shown


def _thumbnail(images: Images, place: int) -> bytes:
    try:
        pixels = images.read(place)
    # a pack may be gone, or shorter than it was
    except (UserError, OSError, ValueError):
        return b""
    small = shrink_to(pixels, SIDE)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
