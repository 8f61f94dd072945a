"""Pointing game (Zhang et al. 2018): is the maximum of a heat map inside the lesion?"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from core.data.csv.columns import IMAGE_COLUMNS, find_column, read_columns
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first, pluralize, suggest_name
from core.report.plots.style import shorten
from core.report.tables import Table, number

CLASS_COLUMNS = ("finding", "class", "label")
CORNERS = ("x0", "y0", "x1", "y1")
Box = tuple[float, float, float, float]
# by image, by class
Boxes = Mapping[str, Mapping[str, list[Box]]]


def read_boxes(path: Path) -> Boxes:
    """Read boxes (x0, y0, x1, y1) in pixels, the last two exclusive, by image and class.

    Raises UserError if a column is missing or a box is invalid.
    """
    columns = read_columns(path)
    image = find_column(path, columns, "", IMAGE_COLUMNS, "")
    name = find_column(path, columns, "", CLASS_COLUMNS, "")
    if image is None or name is None or not columns.keys() >= {*CORNERS}:
        raise UserError(
            f"{path} is not a table of boxes: it needs the columns ImageID, finding, "
            f"{', '.join(CORNERS)}, as in the phantom's boxes.csv"
        )
    corners = np.stack(
        [pd.to_numeric(columns[one].cells, errors="coerce").astype(float) for one in CORNERS]
    )
    x0, y0, x1, y1 = corners
    sound = np.isfinite(corners).all(axis=0) & (x0 >= 0) & (y0 >= 0) & (x0 < x1) & (y0 < y1)
    if not sound.all():
        row = columns[CORNERS[0]].row_at(int((~sound).argmax()))
        raise UserError(
            f"{path}: row {row} (the header is row 1) is not a valid box: give pixels with "
            "0 <= x0 < x1 and 0 <= y0 < y1"
        )
    found: dict[str, dict[str, list[Box]]] = defaultdict(lambda: defaultdict(list))
    rows = zip(columns[image].cells, columns[name].cells, *corners.tolist(), strict=True)
    for one, finding, *box in rows:
        found[one][finding].append(tuple(box))
    return found


def boxed_classes(boxes: Boxes, class_names: Sequence[str], path: Path) -> list[str]:
    """Classes of `class_names` with boxes. Raises UserError if there are none."""
    named = {name for one in boxes.values() for name in one}
    if not (both := [name for name in class_names if name in named]):
        other = min(named)
        raise UserError(
            f"{path} has no boxes of the {len(class_names):,} classes: unknown class "
            f"'{other}'{suggest_name(other, class_names)}"
        )
    return both


def boxes_of(
    images: LabelTable, boxes: Boxes, measured: Sequence[str], *, anonymous: bool
) -> dict[int, Mapping[str, list[Box]]]:
    """Boxes by image index, matched by image or file name, with or without extension.

    Raises UserError if no image has a box of a measured class, without names if `anonymous`.
    """
    files = [Path(path).name for path in images.paths]
    times = Counter(files)
    found: dict[int, Mapping[str, list[Box]]] = {}
    for place, (name, file) in enumerate(zip(images.ids, files, strict=True)):
        keys = [name, file, Path(file).stem] if times[file] == 1 else [name]
        if key := next((key for key in keys if key in boxes), None):
            found[place] = boxes[key]
    if not any(set(measured) & set(one) for one in found.values()):
        others = (
            f"{pluralize(len(boxes), 'image')} of other names"
            if anonymous
            else list_first([*boxes])
        )
        raise UserError(
            f"none of the {len(images):,} images has a box of {list_first(measured)} in --boxes, "
            f"which has {others}"
        )
    return found


def highest_place(heat: NDArray[np.float32]) -> tuple[int, int] | None:
    """Position (row, column) of the maximum of a map (H, W); None for a constant map.

    Of equal maxima it is the one closest to the centre: in an enlarged map the outermost cells are
    plateaus up to the edge of the image.
    """
    highest, lowest = float(heat.max()), float(heat.min())
    if not highest > lowest:
        return None
    # a map that was enlarged twice has plateaus up to rounding errors
    rows, columns = np.nonzero(heat >= highest - 1e-5 * (highest - lowest))
    height, width = heat.shape
    distance = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2
    at = int(distance.argmin())
    return int(rows[at]), int(columns[at])


def inside(boxes: Sequence[Box], height: int, width: int) -> NDArray[np.bool_]:
    """Mask (H, W) of the pixels with their centre in a box."""
    y, x = np.mgrid[:height, :width] + 0.5
    covered = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        covered |= (x0 < x) & (x < x1) & (y0 < y) & (y < y1)
    return covered


class Pointing:
    """Hits of the pointing game by class and model, counted image by image."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models
        self._counted: list[tuple[str, str, bool, float]] = []

    def count(self, name: str, boxes: Sequence[Box], heats: Sequence[NDArray[np.float32]]) -> None:
        """Count one image and class; `heats`: one map (H, W), or NaN, for each model."""
        covered = inside(boxes, *heats[0].shape)
        chance = float(covered.mean())
        for model, heat in zip(self.models, heats, strict=True):
            if not np.isnan(heat).any():
                place = highest_place(heat)
                hit = place is not None and bool(covered[place])
                self._counted.append((name, model, hit, chance))

    def table(self, class_names: Sequence[str]) -> pd.DataFrame:
        """Table with a row a class and model, then "all classes" (one count an image and class).

        Columns class, model, images, hits, hit_rate, low and high (95 %, Wilson), chance (mean
        share of the image in the boxes, the hit rate of a random point).
        """
        every = pd.DataFrame(self._counted, columns=["class", "model", "hit", "chance"])
        parts = {name: every[every["class"] == name] for name in class_names}
        rows = []
        for group, part in (*parts.items(), ("all classes", every)):
            for model in self.models if len(part) else ():
                found = part[part["model"] == model]
                images, hits = len(found), int(found["hit"].sum())
                row = {"class": group, "model": model, "images": images, "hits": hits}
                if images:
                    low, high = binomtest(hits, images).proportion_ci(method="wilson")
                    row |= {"hit_rate": hits / images, "low": low, "high": high}
                    row["chance"] = found["chance"].mean()
                rows.append(row)
        return pd.DataFrame(rows)


def hits_table(table: pd.DataFrame) -> Table:
    """Table for the terminal: a line a class, a column a model."""
    models = table["model"].drop_duplicates().tolist()
    lines = []
    for name, rows in table.groupby("class", sort=False):
        images, chance = rows["images"].max(), rows["chance"].max()
        cells = []
        for row in rows.to_dict("records"):
            rate = number(row["hit_rate"], (row["low"], row["high"]))
            cells.append(f"{row['hits']} ({rate})" if row["images"] else "-")
        lines.append([shorten(str(name)), f"{images:,}", number(chance), *cells])
    return Table("", ("hits of the pointing game", "images", "chance", *models), lines)
