"""Whole runs of each method with too few labels for a score or a loss.

What is undefined is NaN, named and left out of means; no loss is NaN and no library warns.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from core.report.figures import draw_pictures
from tests.conftest import Train
from tests.helpers.fault_table import Fault
from tests.helpers.training.small_run import METHODS, MODEL, flags

LABELS = ["Effusion", "Atelectasis", "Cardiomegaly", "Mass", "Normal"]
TrainMethod = Callable[[str], Train]


def spoil(case: str, table: pd.DataFrame, folds: pd.Series) -> None:
    """Let the labels of a table be those of a case."""
    match case:
        case "class without positives in validation":
            table.loc[folds == 1, "Mass"] = 0
            table.loc[np.flatnonzero(folds == 2)[:3], "Mass"] = 1
        case "class that never appears":
            table["Mass"] = 0
        case "class without negatives":
            table["Mass"] = 1
        case "class without a known label":
            table["Mass"] = np.nan
        case _:
            # more in a row than a batch takes
            table.loc[10:29, LABELS] = np.nan


# what the run warns of
CASES = {
    "class without positives in validation": "(any fold)",
    "class that never appears": "(any fold)",
    "class without negatives": "",
    "class without a known label": "(any fold)",
    "images without a known label": "",
}


def labels_of(case: str, data: Path, path: Path, folds: pd.Series) -> Path:
    table = pd.read_csv(data / "train.csv")
    table[LABELS] = table[LABELS].astype(float)
    spoil(case, table, folds)
    table.to_csv(path, index=False)
    return path


def run_of(data: Path, csv: Path, out: Path, *more: object) -> list[str]:
    labels = ("--train_csv", csv, "--blank", "unknown", "--labels", ",".join(LABELS))
    return flags(data, out, *labels, "--epochs", 1, *more)


@pytest.fixture
def folds(finished: tuple[Path, str], phantom: Path) -> pd.Series:
    """Of each image of the table, a fold of two that have the same patients."""
    written = pd.read_csv(finished[0] / "folds.csv").set_index("ImageID")["fold"]
    return written.reindex(pd.read_csv(phantom / "train.csv")["ImageID"]).reset_index(drop=True)


def official(data: Path, csv: Path, folds: pd.Series, out: Path, *more: object) -> list[str]:
    """A run on fold 2, validated on fold 1."""
    table = pd.read_csv(csv)
    for fold, name in ((2, "part"), (1, "val")):
        table[folds == fold].to_csv(csv.with_stem(name), index=False)
    val = ("--val_csv", csv.with_stem("val"))
    return run_of(data, csv.with_stem("part"), out, *val, *more)


def mean_precision(out: Path, csv: Path) -> float:
    """scikit-learn's, over the classes that have both positives and negatives."""
    predicted = pd.read_csv(out / f"{MODEL}_fold1_val.csv", index_col="ImageID")
    labels = pd.read_csv(csv, index_col="ImageID").loc[predicted.index, LABELS]
    known = {name: labels[name].dropna() for name in LABELS}
    return np.mean(
        [
            average_precision_score(values, predicted.loc[values.index, name])
            for name, values in known.items()
            if values.nunique() == 2
        ]
    )


def check(out: Path, csv: Path, case: str, printed: str, error: str) -> None:
    assert "Traceback" not in error
    assert not [line for line in error.splitlines() if "Warning" in line]
    history = pd.read_csv(out / "metrics.csv")
    assert np.isfinite(history["train_loss"]).all()
    # six digits of the CSV may tie two of the 27 images
    expected = pytest.approx(mean_precision(out, csv.with_stem("val")), abs=5e-3)
    assert history["mAP"].max() == expected
    assert (out / "report.html").exists()
    if case != "images without a known label":
        # four of the five can be scored; of Mass nothing is
        assert (history["classes_scored"] == 4).all()
        (line,) = [line for line in printed.splitlines() if line.startswith("Mass  ")][-1:]
        assert line.split()[2:4] == ["-", "-"]
        assert "left out of the" in printed
        assert "Here: Mass." in " ".join(printed.split())
    assert CASES[case] in printed


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_on_few_labels(
    method: str,
    phantom: Path,
    folds: pd.Series,
    tmp_path: Path,
    train_method: TrainMethod,
    monkeypatch: pytest.MonkeyPatch,
    soak: bool,
    fault: Fault,
) -> None:
    """With the report's pictures, which cost seconds; in the short form those of one run."""
    cases = list(CASES) if soak else list(CASES)[METHODS.index(method) :: len(METHODS)]
    for number, case in enumerate(cases):
        fault(case, 1)
        csv = labels_of(case, phantom, tmp_path / f"{number}.csv", folds)
        out = tmp_path / str(number)
        arguments = official(phantom, csv, folds, out)
        with monkeypatch.context() as patch:
            train = train_method(method)
            if soak or (number, method) == (0, METHODS[0]):
                patch.setattr("core.training.finish.draw_pictures", draw_pictures)
            code, printed, error = train(*arguments)
        assert code == 0, error
        check(out, csv, case, printed, error)
        code, again, _ = train_method(method)(*arguments)
        assert code == 0
        assert "finished before" in again


def test_labels_of_which_nothing_can_be_learnt_are_refused(
    phantom: Path, tmp_path: Path, train: Train, fault: Fault
) -> None:
    for name, value in (("unknown", np.nan), ("zero", 0)):
        fault(f"labels that are all {name}", 1)
        table = pd.read_csv(phantom / "train.csv")
        table[LABELS] = value
        table.to_csv(tmp_path / "train.csv", index=False)
        out = tmp_path / "out"
        code, _, error = train(*run_of(phantom, tmp_path / "train.csv", out))
        assert code == 2
        assert error.startswith("error: no label has a positive among the ")
        assert error.count("\n") == 1
        assert not out.exists()
