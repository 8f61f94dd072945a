"""The JSON and the CSV of an evaluation."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.errors import UserError
from core.io.atomic import check_writable, write_atomically
from core.metrics import Evaluation, PairedDifference
from ensemble.predict.ensemble_json import read_document, write_document
from ensemble.scoring.comparison import MEANS, Entry
from ensemble.scoring.subgroups import SubgroupScores

KIND = "evaluation"
# number of the classes that means run over, and names of the others
_CLASSES = {"classes_scored": "unscored", "classes_in_intervals": "too_rare_for_intervals"}


def output_paths(
    prefix: Path | None,
    predictions: Path,
    inputs: Sequence[Path],
    endings: Sequence[str] = (".json", ".csv"),
    *,
    overwrite: bool,
) -> tuple[Path, ...]:
    """The files to write: PREFIX and each of `endings`; beside `predictions` without a prefix.

    The first one is the JSON. Raises UserError where one of them is an input or cannot be written,
    or (unless `overwrite`) where it exists and is not of an earlier evaluation, as that JSON says.
    """
    if prefix is None:
        name = predictions.name.removesuffix(".gz")
        prefix = predictions.with_name(f"{Path(name).stem}_metrics")
    if prefix.name in ("", ".."):
        raise UserError(f"--output {prefix} is a folder: add the start of a file's name")
    start = prefix.stem if prefix.suffix in endings else prefix.name
    paths = tuple(prefix.with_name(f"{start}{ending}") for ending in endings)
    for path in paths:
        check_writable(path, inputs)
    there = [path for path in paths if path.exists()]
    if _earlier(paths[0]) is not None:
        # any other page of this name is somebody else's
        there = [path for path in there if path.suffix == ".html" and not owns_page(paths[0])]
    if there and not overwrite:
        raise UserError(
            f"{there[0]} exists and is no earlier evaluation: give another --output, or "
            "--overwrite replaces it"
        )
    return paths


def owns_page(scores: Path) -> bool:
    """Whether there is a page beside this JSON, which it says that an evaluation wrote."""
    page = (_earlier(scores) or {}).get("page")
    return page is True and scores.with_suffix(".html").exists()


def write_scores(paths: Sequence[Path], content: Mapping[str, Any], table: pd.DataFrame) -> None:
    """Write the JSON and the CSV, each whole or not at all. NaN is null, and an empty cell."""
    # by the JSON a next evaluation knows that the CSV is its own, and by its "page" the page
    write_document(paths[0], KIND, as_json(content))
    write_atomically(
        paths[1], lambda path: table.to_csv(path, float_format="%.8g", errors="replace")
    )


def class_csv(
    evaluation: Evaluation, points: pd.DataFrame | None, difference: PairedDifference | None
) -> pd.DataFrame:
    """One row a class: all that was measured of it."""
    table = evaluation.per_class
    if points is not None:
        # the threshold of the best F1 is in the table already
        names = {"threshold": "operating_threshold"}
        table = table.join(points.drop(columns="positives").rename(columns=names))
    if difference is not None:
        table = table.join(difference.per_class.add_prefix("difference_"))
    return table


def leaderboard_csv(entries: Sequence[Entry], names: Sequence[str]) -> pd.DataFrame:
    """One row a file, by these names: its means, its differences to the reference (difference_...).

    With resamples each has its bounds, ..._low and ..._high, and the mean over the classes that
    these are over, ..._interval_point. Over which classes each is are columns too.
    """
    rows = []
    for one in entries:
        summary = one.evaluation.summary
        row: dict[str, Any] = {k: value for k, value in summary.items() if isinstance(value, float)}
        row |= _bounds(summary)
        if one.difference is not None:
            found = {name: one.difference.summary[name] for name in MEANS}
            found |= _bounds(one.difference.summary)
            row |= {f"difference_{name}": value for name, value in found.items()}
        for count, others in _CLASSES.items():
            if count in summary:
                row |= {count: summary[count], others: "; ".join(summary[others])}
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(names, name="predictions"))


def scores_json(scores: Evaluation | PairedDifference) -> dict[str, Any]:
    """Summary and classes as JSON holds them."""
    return {"summary": scores.summary, "per_class": scores.per_class}


def leaderboard_json(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One object a file, by these names; `difference` and `compared` of the reference are null."""
    return [
        {
            "predictions": name,
            **scores_json(one.evaluation),
            "difference": one.difference and scores_json(one.difference),
            "compared": one.compared and one.compared.as_json(),
        }
        for one, name in zip(entries, names, strict=True)
    ]


def subgroups_json(scores: SubgroupScores) -> dict[str, Any]:
    """Each subgroup's scores, and those over the classes by which subgroups can be compared.

    Which data decided on the classes' groups is said with the whole, and not here.
    """
    subgroups = {}
    for name, one in scores.subgroups.items():
        summary, compared = (
            found and {k: value for k, value in found.summary.items() if k != "prevalence_from"}
            for found in (one.own, one.compared)
        )
        subgroups[name] = {
            "summary": summary,
            "compared": compared,
            "equal_mAP": one.equal_map,
            "per_class": one.own.per_class,
        }
    return {
        "column": scores.grouping.source,
        "compared_classes": scores.compared_classes,
        "subgroups": subgroups,
    }


def _bounds(summary: Mapping[str, Any]) -> dict[str, float]:
    columns = {}
    for name, (low, high) in summary["intervals"].items():
        columns[f"{name}_interval_point"] = summary["interval_points"][name]
        columns |= {f"{name}_low": low, f"{name}_high": high}
    return columns


def _earlier(path: Path) -> dict[str, Any] | None:
    """What the JSON of an evaluation holds; None where it is none."""
    try:
        return read_document(path, KIND)
    except UserError:
        return None


def as_json(value: Any) -> Any:
    """The same as JSON has it: a table by row and column, NaN as null."""
    if isinstance(value, pd.DataFrame):
        return as_json(value.to_dict("index"))
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, str):
        # a file's name may be no UTF-8
        return value.encode("utf-8", "replace").decode("utf-8")
    return None if isinstance(value, float) and not math.isfinite(value) else value
