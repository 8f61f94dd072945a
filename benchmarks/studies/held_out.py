"""Gain of merging, augmented copies and gating on held-out patients.

    python -m benchmarks.studies.held_out

A third of the patients of `nih1000` is held out. The three methods train three folds each on the
others (the budget of the study `nih1000`); weights, calibration and alpha are chosen on their
out-of-fold predictions. Then each merge is scored on the held-out third, against the single best
run without augmented copies. About an hour; existing files are not made again.

Expected (two CPU cores): the table in docs/results.md.
"""

import json
from pathlib import Path

from benchmarks.runner import start
from benchmarks.studies import runs

FOLDER = runs.OUT / "held_out"
DEVELOP, HELD_OUT = FOLDER / "develop.csv", FOLDER / "held_out.csv"
ENSEMBLE, CALIBRATION = FOLDER / "ensemble.json", FOLDER / "calibration.json"
COPIES = ("none", "flip_scale")


def main() -> None:
    divide()
    trained = [
        runs.train(method, FOLDER / method, *flags, "--folds", "3", csv=DEVELOP)
        for method, flags in runs.BUDGET.items()
    ]
    if not ENSEMBLE.exists():
        runs.call("-m", "ensemble.choose", "--runs", *trained, "--output", ENSEMBLE)
    if not CALIBRATION.exists():
        given = ("--predictions", FOLDER / "ensemble_oof.csv", "--labels", DEVELOP)
        runs.call("-m", "ensemble.calibrate", *given, "--output", CALIBRATION)
    files = [
        runs.predict(HELD_OUT, runs.nih1000() / "images", FOLDER / "ways" / f"{name}.csv", *flags)
        for name, flags in merges(trained).items()
    ]
    runs.score(files, HELD_OUT, FOLDER / "scores", "--train_csv", DEVELOP)


def merges(trained: list[Path]) -> dict[str, list[object]]:
    """Flags of `ensemble.infer` by name; the first one is the reference."""
    strategies = json.loads(ENSEMBLE.read_text())["made_from"]["strategies"]
    best = trained[strategies["single best"]["weights"].index(1)]
    members = {
        "single best": ["--checkpoints", *runs.checkpoints(best)],
        "equal": ["--checkpoints", *(path for one in trained for path in runs.checkpoints(one))],
        "chosen": ["--ensemble", ENSEMBLE],
    }
    found: dict[str, list[object]] = {
        f"{name}, {copies}": [*flags, "--tta_config", copies]
        for name, flags in members.items()
        for copies in COPIES
    }
    calibrated = [*found["chosen, flip_scale"], "--calibration", CALIBRATION]
    gated = [*calibrated, "--postprocess", "normal_gating"]
    return found | {"chosen, calibrated": calibrated, "chosen, calibrated, gated": gated}


def divide() -> None:
    """Write the tables of two thirds of the patients and of the held-out third."""
    import pandas as pd

    from core.data.splits.folds import assign_folds

    table = pd.read_csv(runs.nih1000() / "train.csv", dtype={"PatientID": str})
    targets = table.drop(columns=["ImageID", "PatientID"]).to_numpy(float)
    held_out = assign_folds(targets, table["PatientID"].to_numpy(), folds=3, seed=0) == 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    table[~held_out].to_csv(DEVELOP, index=False)
    table[held_out].to_csv(HELD_OUT, index=False)


if __name__ == "__main__":
    start(main, __doc__)
