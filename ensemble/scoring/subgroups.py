"""Subgroups of images, by sex, view, age or any other column, and the scores of each."""

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

# what --by may ask for in one word, and what files call it
USUAL_NAMES = {
    "sex": ("PatientSex", "PatientGender", "sex", "gender"),
    "view": VIEW_COLUMNS,
    "age": ("PatientAge", "age"),
}
UNKNOWN = "unknown"
# column of a run's labels.csv
SOURCE = "Source"
AGES = {"0-17": 18, "18-39": 40, "40-59": 60, "60-79": 80, "80+": math.inf}
# DICOM's age string; NIH's tables have it too, and plain years
AGE_TEXT = re.compile(r"(\d+(?:\.\d*)?) ?([YMWD]?)", re.IGNORECASE)
UNITS_IN_A_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
# nobody has become older; NIH's first tables hold ages up to 414
OLDEST = 125
MOST_VALUES = 20
SUBSAMPLES = 100


@dataclass(frozen=True, eq=False)
class Grouping:
    """Images divided by what a column says."""

    name: str
    """As --by has it."""
    source: str
    """Which column of which file it is, in words."""
    rows: dict[str, NDArray[np.intp]]
    """The images of each subgroup, which are disjoint; ages ascend, others begin with the largest,
    and `unknown` is the last."""


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The scores of one subgroup."""

    own: Evaluation
    """Over all classes."""
    compared: Evaluation | None
    """Over the classes by which subgroups are compared; None where it cannot score all of them."""
    equal_map: float = math.nan
    """mAP over these classes at as many positives and negatives as the smallest subgroup has."""


@dataclass(frozen=True, eq=False)
class SubgroupScores:
    """The scores of all subgroups of a grouping."""

    grouping: Grouping
    compared_classes: list[str]
    """Classes that can be scored in each subgroup that can score at least half of those that the
    whole table can. Means over other classes are not comparable between subgroups."""
    subgroups: dict[str, Subgroup]


def read_groupings(
    by: Sequence[str],
    table: LabelTable,
    sheet: SourceTable,
    meta: Path | None = None,
    view_column: str = "",
    told: Callable[[Path], str] = str,
) -> list[Grouping]:
    """Divide the images of `table` by each of `by`, a column of its CSV `sheet`, or else of `meta`.

    `sex`, `view` and `age` are found by their usual names, others by their own; `view_column` is
    what "view" means. `meta` names the images as `sheet` does, or by a usual name. Ages are put
    into the spans of AGES; what is blank, or no age, is `unknown`. `told` is what the groupings
    call a file.

    Raises UserError for a column that is nowhere, holds no age at all or too many values that are
    none, and where `meta` lacks images.
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
                source = f"column '{column}' of {told(path)}"
                groupings.append(_grouping(name, source, columns[column], rows))
                break
        else:
            places = " and ".join(map(str, sources))
            more = "" if meta else " (--meta adds the columns of another CSV)"
            known = [column for columns in sources.values() for column in columns]
            raise UserError(
                f"--by {wanted} is no column of {places}{more}{suggest_name(wanted, known)}"
            )
    return groupings


def score_subgroups(grouping: Grouping, scored: Scored, path: Path) -> SubgroupScores:
    """Evaluate one of the files in each subgroup by itself.

    The prevalence of `scored` is that of the whole, so that a class is in one group everywhere.
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

    By the column `Source` of the labels, which a run with several sources writes; {} without it, or
    with one source or more than MOST_VALUES. prevalence: (C,), of the whole.
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
    """mAP of the subgroups that are compared, at equal numbers of positives and of negatives.

    AP grows with the share of positives, and is too high where they are few: of each class as many
    of both as the subgroup with the fewest has are drawn, SUBSAMPLES times, and their APs averaged.
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
    """An age in years from "58", "058Y", "012M", "30W" or "010D"; NaN where it is none."""
    match = AGE_TEXT.fullmatch(text)
    if match is None:
        return math.nan
    age = float(match[1]) / UNITS_IN_A_YEAR[match[2].upper() or "Y"]
    return age if age <= OLDEST else math.nan


def _kind(name: str) -> str | None:
    """Which of USUAL_NAMES a name is."""
    for kind, known in USUAL_NAMES.items():
        if normalize_name(name) in {kind, *map(normalize_name, known)}:
            return kind
    return None


def _column_of(path: Path, columns: dict[str, Column], name: str) -> str | None:
    """The column that `name` means, if this file has it."""
    if name in columns:
        return name
    kind = _kind(name)
    return find_column(path, columns, "", USUAL_NAMES[kind] if kind else (name,), "--by")


def _rows_of(
    path: Path, columns: dict[str, Column], id_column: str, ids: Sequence[str]
) -> NDArray[np.intp]:
    """The row of each of `ids` in a file."""
    usual = find_column(path, columns, "", IMAGE_COLUMNS, "--image_column")
    name = id_column if id_column in columns else usual
    if name is None:
        raise UserError(f"{path} has no column '{id_column}', by which it could be joined")
    rows = pd.Index(read_ids(columns[name])).get_indexer(pd.Index(ids))
    missing = [one for one, row in zip(ids, rows, strict=True) if row < 0]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing):,} of the {len(ids):,} images: {list_first(missing)}"
        )
    return rows


def _grouping(name: str, source: str, column: Column, rows: NDArray[np.intp]) -> Grouping:
    """Divide the images, which are in these rows of the column."""
    cells = pd.Series(column.cells[rows])
    present = cells.unique().tolist()
    is_age = _kind(name) == "age"
    if is_age:
        filled = [value for value in present if value]
        if filled and all(math.isnan(years(value)) for value in filled):
            raise UserError(
                f"--by {name}: {source} holds no age such as 58, 058Y or 012M, but "
                f"{list_first([value[:40] for value in filled])}"
            )
        subgroup = {value: _span(years(value)) for value in present}
    else:
        subgroup = {value: " ".join(value.split()) or UNKNOWN for value in present}
        if len(set(subgroup.values())) > MOST_VALUES:
            raise UserError(
                f"--by {name}: {source} has {len(set(subgroup.values())):,} different values, and "
                f"subgroups are made of up to {MOST_VALUES}"
            )
    of_images = cells.map(subgroup)
    counts = of_images.value_counts()
    order = sorted(counts.index, key=lambda one: (one == UNKNOWN, -counts[one], one))
    if is_age:
        order = [one for one in (*AGES, UNKNOWN) if one in counts.index]
    return Grouping(name, source, {one: np.flatnonzero(of_images == one) for one in order})


def _span(age: float) -> str:
    return next((name for name, end in AGES.items() if age < end), UNKNOWN)
