"""WorstImages images: those with predictions furthest from their labels, with thumbnails."""

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

# images of each kind and class; maximum number of classes, the rarest ones
EACH, MOST_CLASSES = 3, 30
# longer side of a thumbnail, in pixels
SIDE = 160
_QUALITY = 80


@dataclass(frozen=True)
class Case:
    """One image and its prediction."""

    name: str
    score: float
    rank: int
    """Rank of the score among the known labels of the class, from 1 for the highest."""
    jpeg: bytes
    """Empty if the image cannot be read."""


@dataclass(frozen=True)
class WorstImages:
    """Positives of a class with the lowest scores, and negatives with the highest."""

    name: str
    group: str
    known: int
    misses: list[Case]
    alarms: list[Case]


def worst_cases(
    evaluation: Evaluation, table: LabelTable, rows: NDArray[np.intp], probabilities: FloatArray
) -> list[WorstImages]:
    """WorstImages images of each class, most prevalent class first.

    `probabilities` (N, C) of the images in `rows` (N,) of `table`. At most MOST_CLASSES classes,
    the rarest ones; those of unknown prevalence are left out first. An unreadable image has no
    thumbnail.
    """
    targets, per_class = table.hard_targets[rows], evaluation.per_class
    rarest = per_class[per_class["n"] > 0].sort_values("prevalence", kind="stable")[:MOST_CLASSES]
    thumbnail = cache(partial(_thumbnail, table.images))
    shown = []
    for name, row in by_prevalence(rarest).iterrows():
        column = per_class.index.get_loc(name)
        known = np.flatnonzero(~np.isnan(targets[:, column]))
        scores = probabilities[known, column]
        ranks = rankdata(-scores, "min").astype(int)
        # ties by position, so that the order is reproducible
        falling = np.argsort(-scores, kind="stable")
        is_positive = targets[known[falling], column] == 1
        misses, alarms = (
            [
                Case(table.ids[image], float(scores[place]), int(ranks[place]), thumbnail(image))
                for place, image in zip(places, rows[known[places]].tolist(), strict=True)
            ]
            for places in (falling[is_positive][::-1][:EACH], falling[~is_positive][:EACH])
        )
        shown.append(WorstImages(str(name), str(row["group"]), len(known), misses, alarms))
    return shown


def _thumbnail(images: Images, place: int) -> bytes:
    try:
        pixels = images.read(place)
    # a pack may be missing or truncated
    except (UserError, OSError, ValueError):
        return b""
    small = shrink_to(pixels, SIDE)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
