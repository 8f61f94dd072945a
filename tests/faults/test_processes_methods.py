"""Two processes train each method into one run folder, as `fabric run --devices 2` starts them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from methods import load_model
from tests.helpers.faults.launches import Launches, Place
from tests.helpers.training.small_run import MODEL, flags


# standard_head is trained in test_processes.py
@pytest.mark.parametrize(
    "method", [pytest.param("csra_db_cas", marks=pytest.mark.soak), "label_coupling"]
)
def test_two_processes_make_one_run_of_a_method(
    method: str, launches: Launches, phantom: Path, tmp_path: Path
) -> None:
    out, submission = tmp_path / "out", tmp_path / "submission.csv"
    options = ["--run_folds", 1, "--batch_size", 4]
    if method == "label_coupling":
        options += ["--test_csv", phantom / "test.csv", "--test_dir", phantom / "images"]
        options += ["--out_csv", submission]
    words = flags(phantom, out, *options)
    printed = launches.start(f"methods.{method}.train", *words, place=Place(2)).finishes()
    assert "2 x cpu" in printed
    assert printed.count("run folder") == 1

    plots = ["classes", "curves", "precision_recall", "score_histograms", "reliability"]
    plots.append("co_occurrence")
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        *(f"{MODEL}_fold1{end}" for end in (".safetensors", ".state.safetensors", "_val.csv")),
        *(f"plots/{name}.png" for name in plots),
        *("report.html", "config.json", "env.json", "metrics.csv", "timing.csv", "folds.csv"),
        *("labels.csv", ".lock"),
    }
    epochs = pd.read_csv(out / "timing.csv")
    assert epochs["processes"].eq(2).all()
    phases = ["all", "all"] if method == "label_coupling" else ["head", "all", "all"]
    rows = pd.read_csv(out / "metrics.csv")
    assert rows["epoch"].tolist() == epochs["epoch"].tolist() == list(range(1, len(phases) + 1))
    assert rows["phase"].tolist() == phases

    predicted = pd.read_csv(out / f"{MODEL}_fold1_val.csv")
    folds = pd.read_csv(out / "folds.csv")
    assert sorted(predicted["ImageID"]) == sorted(folds.loc[folds["fold"] == 1, "ImageID"])
    assert np.isfinite(predicted.drop(columns="ImageID")).all(axis=None)
    _, info = load_model(out / f"{MODEL}_fold1.safetensors")
    assert (info.method, list(info.class_names)) == (method, list(predicted.columns[1:]))

    if method == "label_coupling":
        named = pd.read_csv(submission)
        assert named["ImageID"].tolist() == pd.read_csv(phantom / "test.csv")["ImageID"].tolist()
        assert list(named.columns) == list(predicted.columns)
        assert named.drop(columns="ImageID").map(lambda p: 0 < p < 1).all(axis=None)
