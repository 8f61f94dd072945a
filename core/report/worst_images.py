"""The images on which predictions are the furthest from the labels, as small pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

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
    order = by_prevalence(rarest)
    chosen: list[tuple[str, int, NDArray[np.intp], NDArray[np.intp]]] = []
    columns = evaluation.per_class.index.get_indexer(order.index)
    for name, column in zip(order.index, columns.tolist(), strict=True):
        known = np.flatnonzero(~np.isnan(targets[:, column]))
        # by score, and where that is the same by place: the same on each machine
        falling = known[np.argsort(-probabilities[known, column], kind="stable")]
        positive = targets[falling, column] == 1
        misses = falling[positive][::-1][:each]
        chosen.append((name, column, misses, falling[~positive][:each]))
    places = np.unique(np.concatenate([[], *(part for one in chosen for part in one[2:])]))
    places = places.astype(np.intp)
    pictures = dict(zip(places.tolist(), _thumbnails(table, rows[places]), strict=True))

    def case(place: int, column: int) -> Case:
        score = probabilities[place, column]
        known = ~np.isnan(targets[:, column])
        rank = int((probabilities[known, column] > score).sum()) + 1
        return Case(table.ids[rows[place]], float(score), rank, pictures[place])

    shown = [
        Worst(
            str(name),
            str(order["group"][name]),
            int(order["n"][name]),
            [case(place, column) for place in misses.tolist()],
            [case(place, column) for place in alarms.tolist()],
        )
        for name, column, misses, alarms in chosen
    ]
    return WorstCases(shown, each, len(known_classes) - len(order))


def _thumbnails(table: LabelTable, rows: Sequence[int] | NDArray[np.intp]) -> list[bytes]:
    """A JPEG of each of these images, b"" where it cannot be read."""
    return [_thumbnail(table.images, row) for row in rows]


def _thumbnail(images: Images, place: int) -> bytes:
    try:
        pixels = images.read(place)
    # a pack may be gone, or shorter than it was
    except (UserError, OSError, ValueError):
        return b""
    small = within(pixels, SIDE)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
