"""Outputs of an evaluation: JSON, CSV and page."""

import math
from collections.abc import Mapping, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.errors import UserError
from core.io.atomic import together, write_atomically
from core.metrics import Evaluation, PairedDifference
from ensemble.predict.ensemble_json import check_output, read_document, write_document
from ensemble.scoring.comparison import MEANS, Entry
from ensemble.scoring.subgroups import SubgroupScores

KIND = "evaluation"
# the folder of runs
OUTPUTS = Path("outputs")
# key of the number of averaged classes, and key of the names of the others
_CLASSES = {"classes_scored": "unscored", "classes_in_intervals": "too_rare_for_intervals"}


def output_paths(
    prefix: Path | None,
    predictions: Sequence[Path],
    inputs: Sequence[Path],
    endings: Sequence[str] = (".json", ".csv"),
    *,
    overwrite: bool,
) -> tuple[Path, ...]:
    """Paths of the outputs: PREFIX plus each of `endings`, the JSON first.

    The default prefix depends on `predictions`. Raises UserError as `check_output` does, and where
    a file beside the JSON is not of the evaluation that wrote it.
    """
    prefix = prefix or _default_prefix(predictions)
    if prefix.name in ("", ".."):
        raise UserError(f"--output {prefix} is a folder: add the start of a file name")
    start = prefix.stem if prefix.suffix in endings else prefix.name
    paths = tuple(prefix.with_name(f"{start}{ending}") for ending in endings)
    check_output(paths[0], KIND, inputs, beside=paths[1:], overwrite=overwrite)
    for path in paths[1:]:
        # what the JSON of an earlier evaluation does not account for is another's
        owned = _has_page(paths[0]) if path.suffix == ".html" else paths[0].exists()
        if path.exists() and not owned:
            raise UserError(
                f"{path} is not of an earlier evaluation, so that --overwrite leaves it alone: "
                "give another --output"
            )
    return paths


def _has_page(scores: Path) -> bool:
    """Whether the evaluation in this JSON wrote a page beside it."""
    return scores.exists() and read_document(scores, KIND).get("page") is True


def _default_prefix(predictions: Sequence[Path]) -> Path:
    """Default prefix: beside the first CSV, or in `outputs` for a run folder or a CSV in one."""
    first, what = predictions[0], "metrics" if len(predictions) == 1 else "leaderboard"
    if first.is_dir():
        return OUTPUTS / f"{first.resolve().name}_{what}"
    name = f"{Path(first.name.removesuffix('.gz')).stem}_{what}"
    folder = first.resolve().parent
    if (folder / "config.json").is_file():
        return OUTPUTS / f"{folder.name}_{name}"
    return first.with_name(name)


def write_scores(
    paths: Sequence[Path], content: Mapping[str, Any], table: pd.DataFrame, page: bytes | None
) -> None:
    """Write the JSON, the CSV and the page if any. NaN becomes null, or an empty cell.

    Raises UserError if one cannot be written; new files are then deleted.
    """
    if page is None and _has_page(paths[0]):
        # it shows earlier scores
        paths[0].with_suffix(".html").unlink(missing_ok=True)
    with together(*paths):
        write_document(paths[0], KIND, as_json({"page": page is not None, **content}))
        write_atomically(
            paths[1], lambda path: table.to_csv(path, float_format="%.8g", errors="replace")
        )
        if page is not None:
            write_atomically(paths[2], methodcaller("write_bytes", page))


def class_csv(
    evaluation: Evaluation, points: pd.DataFrame | None, difference: PairedDifference | None
) -> pd.DataFrame:
    """Table of all scores, one row a class, indexed by class.

    Columns of `points` follow, and those of `difference` with the prefix difference_.
    """
    table = evaluation.per_class
    if points is not None:
        # the column `threshold` is that of the best F1
        names = {"threshold": "operating_threshold"}
        table = table.join(points.drop(columns="positives").rename(columns=names))
    if difference is not None:
        table = table.join(difference.per_class.add_prefix("difference_"))
    return table


def leaderboard_csv(entries: Sequence[Entry], names: Sequence[str]) -> pd.DataFrame:
    """Table with one row a file: means, differences to the reference (difference_...), classes.

    With resamples each mean has bounds ..._low and ..._high, and ..._interval_point, the mean over
    the classes of the interval.
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
    """Summary and scores by class, for the JSON."""
    return {"summary": scores.summary, "per_class": scores.per_class}


def leaderboard_json(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One object a file; `difference` and `compared` are null for the reference."""
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
    """Scores of each subgroup, over all classes and over the compared classes.

    `prevalence_from` is left out: it is the same as that of the whole.
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


def as_json(value: Any) -> Any:
    """Convert to JSON types: a table by row and column, NaN as null."""
    if isinstance(value, pd.DataFrame):
        return as_json(value.to_dict("index"))
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, str):
        # a file name may not be UTF-8
        return value.encode("utf-8", "replace").decode("utf-8")
    return None if isinstance(value, float) and not math.isfinite(value) else value
