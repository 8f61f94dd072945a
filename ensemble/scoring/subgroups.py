"""Subgroup scores: images divided by sex, view, age or any other column."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.data.csv.columns import IMAGE_COLUMNS, VIEW_COLUMNS, Column, find_column
from core.data.sources import read_source_table
from core.data.sources.source_table import SourceTable
from core.data.tables.label_table import LabelTable, read_ids
from core.errors import UserError, list_first, normalize_name, suggest_name
from core.metrics import Evaluation
from core.metrics.ap_auroc import Curve
from ensemble.scoring.score import Scored

# usual column names for the words of --by
USUAL_NAMES = {
    "sex": ("PatientSex", "PatientGender", "sex", "gender"),
    "view": VIEW_COLUMNS,
    "age": ("PatientAge", "age"),
}
UNKNOWN = "unknown"
# column of a run's labels.csv
SOURCE = "Source"
AGES = {"0-17": 18, "18-39": 40, "40-59": 60, "60-79": 80, "80+": math.inf}
# DICOM age strings (also in NIH's tables), or years
AGE_TEXT = re.compile(r"(\d+(?:\.\d*)?) ?([YMWD]?)", re.IGNORECASE)
UNITS_IN_A_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
# NIH's first tables have ages up to 414
OLDEST = 125
MOST_VALUES = 20
SUBSAMPLES = 100


@dataclass(frozen=True, eq=False)
class Grouping:
    """Division of the images by the values of a column."""

    name: str
    """The word of --by."""
    source: str
    """Description of the column and its file."""
    rows: dict[str, NDArray[np.intp]]
    """Indices of the images in each subgroup (disjoint); ages ascend, others are sorted by size,
    largest first; `unknown` is last."""


@dataclass(frozen=True, eq=False)
class Subgroup:
    """Scores of one subgroup."""

    own: Evaluation
    """Over all classes."""
    compared: Evaluation | None
    """Over the compared classes; None if the subgroup cannot score all of them."""
    equal_map: float = math.nan
    """mAP over the compared classes at the numbers of positives and negatives of the smallest."""


@dataclass(frozen=True, eq=False)
class SubgroupScores:
    """Scores of all subgroups of a grouping."""

    grouping: Grouping
    compared_classes: list[str]
    """Classes scored in every subgroup that scores at least half of the classes of the whole table.
    Means over different classes are not comparable between subgroups."""
    subgroups: dict[str, Subgroup]


def read_groupings(
    by: Sequence[str],
    table: LabelTable,
    sheet: SourceTable,
    meta: Path | None = None,
    view_column: str = "",
    shown_path: Callable[[Path], str] = str,
) -> list[Grouping]:
    """Divide the images of `table` by each of `by`, a column of its CSV `sheet`, or else of `meta`.

    `sex`, `view` and `age` are found by their usual column names, others by the exact name;
    `view_column` is the column of "view". `meta` has the image column of `sheet`, or a usual one.
    Ages are put into the ranges of AGES; blank or invalid cells are `unknown`. `shown_path`
    formats a file's path.

    Raises UserError for a missing column, a column of --by age without ages, too many different
    values, and if `meta` lacks images.
    """
    repeated = sorted({name for name in by if by.count(name) > 1})
    if repeated:
        raise UserError(f"--by names {list_first(repeated)} more than once")
    sources = {sheet.path: sheet.columns}
    if meta is not None:
        sources.setdefault(meta, read_source_table(meta).columns)
    groupings = []
    for name in by:
        wanted = view_column if name == "view" and view_column else name
        for path, columns in sources.items():
            column = _column_of(path, columns, wanted)
            if column is not None:
                rows = _rows_of(path, columns, table.id_column, table.ids)
                source = f"column '{column}' of {shown_path(path)}"
                groupings.append(_grouping(name, source, columns[column], rows))
                break
        else:
            places = " and ".join(map(str, sources))
            more = "" if meta else " (--meta adds the columns of another CSV)"
            known = {name: one for columns in sources.values() for name, one in columns.items()}
            hint = suggest_name(wanted, known)
            if ages := _ages_among(known) if _kind(wanted) == "age" else []:
                hint = f": column '{ages[0]}' seems to have ages; name it Age"
            raise UserError(f"--by {wanted} is not a column of {places}{more}{hint}")
    return groupings


def score_subgroups(grouping: Grouping, scored: Scored, path: Path) -> SubgroupScores:
    """Evaluate one of the files in each subgroup.

    The prevalence of `scored` is that of all images, so that a class has the same group everywhere.
    """
    targets = scored.table.targets

    def scorable(rows: NDArray[np.intp] | slice) -> NDArray[np.bool_]:
        part = targets[rows]
        return (part == 1).any(axis=0) & (part == 0).any(axis=0)

    possible = {name: scorable(rows) for name, rows in grouping.rows.items()}
    least = scorable(slice(None)).sum() / 2
    enough = [can for can in possible.values() if can.any() and can.sum() >= least]
    every = np.ones(targets.shape[1], dtype=bool)
    compared = np.logical_and.reduce(enough) if enough else ~every
    subgroups = {}
    for name, rows in grouping.rows.items():
        own, same = scored.part(rows, every).evaluate(path), None
        if (possible[name] == compared).all() and compared.any():
            same = own
        elif compared.any() and possible[name][compared].all():
            same = scored.part(rows, compared).evaluate(path)
        subgroups[name] = Subgroup(own, same)
    for name, value in _equal_maps(grouping, scored, path, subgroups, compared).items():
        subgroups[name] = replace(subgroups[name], equal_map=value)
    names = list(compress(scored.table.class_names, compared))
    return SubgroupScores(grouping, names, subgroups)


def score_sources(
    scored: Scored, path: Path, prevalence: NDArray[np.float64]
) -> dict[str, Evaluation]:
    """Evaluate one of the files within each source of the images, without intervals.

    Sources are the column `Source` of the labels, which a run on several sources writes; {} without
    it, with one source, or with more than MOST_VALUES. prevalence: (C,), of all images.
    """
    sheet, table = scored.sheet, scored.table
    named = [name for name in sheet.columns if normalize_name(name) == normalize_name(SOURCE)]
    if len(named) != 1 or table.id_column not in sheet.columns:
        return {}
    column = sheet.columns[named[0]]
    rows = _rows_of(sheet.path, sheet.columns, table.id_column, table.ids)
    if not 1 < len(set(column.cells[rows])) <= MOST_VALUES:
        return {}
    own, every = replace(scored, prevalence=prevalence, resamples=0), np.ones(len(prevalence), bool)
    grouping = _grouping(SOURCE, "", column, rows)
    return {name: own.part(part, every).evaluate(path) for name, part in grouping.rows.items()}


def _equal_maps(
    grouping: Grouping,
    scored: Scored,
    path: Path,
    subgroups: Mapping[str, Subgroup],
    compared: NDArray[np.bool_],
) -> dict[str, float]:
    """mAP of the compared subgroups at equal numbers of positives and negatives.

    AP grows with the share of positives, and is too high for few. So the numbers of the smallest
    subgroup are drawn from each class SUBSAMPLES times, and the APs averaged.
    """
    random = np.random.default_rng(scored.seed)
    found: dict[str, list[float]] = {n: [] for n, one in subgroups.items() if one.compared}
    for column in np.flatnonzero(compared):
        targets, scores = scored.table.targets[:, column], scored.files[path][:, column]
        kinds = {
            name: [scores[rows][targets[rows] == kind] for kind in (1, 0)]
            for name, rows in grouping.rows.items()
            if name in found
        }
        least = [min(len(pair[kind]) for pair in kinds.values()) for kind in (0, 1)]
        for name, pair in kinds.items():
            draws = (
                [
                    random.choice(one, count, replace=False)
                    for one, count in zip(pair, least, strict=True)
                ]
                for _ in range(SUBSAMPLES)
            )
            found[name].append(float(np.mean([Curve.of(*draw).scores()[0] for draw in draws])))
    return {name: float(np.mean(aps)) for name, aps in found.items()}


def years(text: str) -> float:
    """Age in years from "58", "058Y", "012M", "30W" or "010D"; NaN if invalid."""
    match = AGE_TEXT.fullmatch(text)
    if match is None:
        return math.nan
    age = float(match[1]) / UNITS_IN_A_YEAR[match[2].upper() or "Y"]
    return age if age <= OLDEST else math.nan


def _are_ages(texts: Sequence[str]) -> bool:
    return bool(texts) and not any(math.isnan(years(text)) for text in texts)


def _ages_among(columns: Mapping[str, Column]) -> list[str]:
    """Columns with "age" in the name and an age, or a blank, in each cell."""
    named = {name: one for name, one in columns.items() if "age" in normalize_name(name)}
    return [name for name, one in named.items() if _are_ages([text for text in one.values if text])]


def _kind(name: str) -> str | None:
    """Key of USUAL_NAMES for a column name."""
    for kind, known in USUAL_NAMES.items():
        if normalize_name(name) in {kind, *map(normalize_name, known)}:
            return kind
    return None


def _column_of(path: Path, columns: dict[str, Column], name: str) -> str | None:
    """Column of `name`, if this file has it."""
    if name in columns:
        return name
    kind = _kind(name)
    return find_column(path, columns, "", USUAL_NAMES[kind] if kind else (name,), "--by")


def _rows_of(
    path: Path, columns: dict[str, Column], id_column: str, ids: Sequence[str]
) -> NDArray[np.intp]:
    """Row of each of `ids` in a file. Raises UserError if one is missing."""
    usual = find_column(path, columns, "", IMAGE_COLUMNS, "--image_column")
    name = id_column if id_column in columns else usual
    if name is None:
        raise UserError(f"{path} has no column '{id_column}' of image names: add it")
    rows = pd.Index(read_ids(columns[name])).get_indexer(pd.Index(ids))
    missing = [one for one, row in zip(ids, rows, strict=True) if row < 0]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing):,} of the {len(ids):,} images: {list_first(missing)}"
        )
    return rows


def _grouping(name: str, source: str, column: Column, rows: NDArray[np.intp]) -> Grouping:
    """Divide the images by `rows` of the column."""
    cells = pd.Series(column.cells[rows])
    present = cells.unique().tolist()
    is_age, filled = _kind(name) == "age", [value for value in present if value]
    if is_age:
        if filled and all(math.isnan(years(value)) for value in filled):
            raise UserError(
                f"--by {name}: {source} has no age such as 58, 058Y or 012M, but "
                f"{list_first([value[:40] for value in filled])}"
            )
        subgroup = {value: _span(years(value)) for value in present}
    else:
        subgroup = {value: " ".join(value.split()) or UNKNOWN for value in present}
        if len(set(subgroup.values())) > MOST_VALUES:
            remedy = "; ages are cut into bands if their column is named Age"
            raise UserError(
                f"--by {name}: {source} has {len(set(subgroup.values())):,} different values, more "
                f"than {MOST_VALUES}{remedy if _are_ages(filled) else ''}"
            )
    of_images = cells.map(subgroup)
    counts = of_images.value_counts()
    order = sorted(counts.index, key=lambda one: (one == UNKNOWN, -counts[one], one))
    if is_age:
        order = [one for one in (*AGES, UNKNOWN) if one in counts.index]
    return Grouping(name, source, {one: np.flatnonzero(of_images == one) for one in order})


def _span(age: float) -> str:
    return next((name for name, end in AGES.items() if age < end), UNKNOWN)
