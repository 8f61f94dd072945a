"""Do merging, views and gating help on patients nobody has seen?

    python -m benchmarks.studies.held_out

A third of the patients of `nih1000` is held out. The three methods train three folds each on the
others (160 px, eight epochs, the budget of the study `nih1000`); weights, calibration
and alpha are chosen on their out-of-fold predictions. Then each way of merging is scored on the
third, and against the single best run without views, on the same resamples of patients. An hour or
less; what is there is not made again.

Expected (two CPU cores): the table in ensemble/README.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.runner import no_flags
from benchmarks.studies.real_runs import BUDGET, nih1000, train
from core.config.command_line import run

if TYPE_CHECKING:
    import pandas as pd

OUT = Path("outputs/held_out")
DEVELOP, HELD_OUT = OUT / "develop.csv", OUT / "held_out.csv"
ENSEMBLE, CALIBRATION = OUT / "ensemble.json", OUT / "calibration.json"
OUT_OF_FOLD = OUT / "ensemble_oof.csv"
VIEWS = ("none", "flip_scale")


def main() -> None:
    """Make what is not there yet, and print the leaderboard of the held-out third."""
    no_flags(__doc__)
    # late, so that --help and a mistyped flag are answered at once
    import pandas as pd

    from ensemble.predict.calibration import read_calibration

    divide()
    runs = {method: OUT / method for method in BUDGET}
    for method, folder in runs.items():
        train(method, folder, *BUDGET[method], "--folds", "3", csv=DEVELOP)
    choose(runs)
    said = {view: {name: predict(folder, view) for name, folder in runs.items()} for view in VIEWS}
    best = max(runs, key=lambda name: out_of_fold_map(runs[name]))
    weights = chosen_weights(runs)
    print(f"single best: {best}; weights: {weights}")
    ways = {"single best": {best: 1.0}, "equal": dict.fromkeys(runs, 1 / len(runs))}
    ways["chosen"] = weights
    files = [
        write(f"{way}, {view}", merged(shares, said[view]))
        for way, shares in ways.items()
        for view in VIEWS
    ]
    everything = merged(weights, said[VIEWS[-1]])
    calibration = read_calibration(CALIBRATION)
    names = [str(name) for name in everything]
    calibrated = calibration.apply(everything.to_numpy(), names)
    gated = calibration.gate(calibrated, names)
    print(f"fitted alpha: {calibration.normal_alpha}")
    for name, table in (("", calibrated), (", gated", gated)):
        frame = pd.DataFrame(table, index=everything.index, columns=names)
        files.append(write(f"chosen, {VIEWS[-1]}, calibrated{name}", frame))
    call(
        *("ensemble.evaluate", "--predictions", *files, "--labels", HELD_OUT),
        *("--train_csv", DEVELOP, "--output", OUT / "scores"),
    )


def call(*words: object) -> None:
    """Run one of the project's commands."""
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


def divide() -> None:
    """Write the table of two thirds of the patients, and that of the third."""
    import pandas as pd

    from core.data.splits.folds import assign_folds

    table = pd.read_csv(nih1000() / "train.csv", dtype={"PatientID": str})
    targets = table.drop(columns=["ImageID", "PatientID"]).to_numpy(float)
    held_out = assign_folds(targets, table["PatientID"].to_numpy(), folds=3, seed=0) == 0
    OUT.mkdir(parents=True, exist_ok=True)
    table[~held_out].to_csv(DEVELOP, index=False)
    table[held_out].to_csv(HELD_OUT, index=False)


def choose(runs: dict[str, Path]) -> None:
    """Weights and calibration by the out-of-fold predictions, unless they are there."""
    if not ENSEMBLE.exists():
        call("ensemble.choose", "--runs", *runs.values(), "--output", ENSEMBLE)
    if not CALIBRATION.exists():
        files = ["--predictions", OUT_OF_FOLD, "--labels", DEVELOP]
        call("ensemble.calibrate", *files, "--output", CALIBRATION)


def predict(folder: Path, view: str) -> pd.DataFrame:
    """The mean of a run's three folds on the held-out images, predicted unless it is there."""
    import pandas as pd

    output = OUT / f"{folder.name}_{view}.csv"
    if not output.exists():
        call(
            *("ensemble.infer", "--checkpoints", *sorted(folder.glob("*_fold?.safetensors"))),
            *("--test_csv", HELD_OUT, "--image_dir", nih1000() / "images"),
            *("--tta_config", view, "--output", output),
        )
    return pd.read_csv(output, index_col=0)


def out_of_fold_map(folder: Path) -> float:
    """mAP of a run's out-of-fold predictions."""
    import pandas as pd

    from core.metrics import evaluate

    files = sorted(folder.glob("*_val.csv"))
    predictions = pd.concat([pd.read_csv(path, index_col=0) for path in files])
    names = [str(name) for name in predictions]
    targets = pd.read_csv(DEVELOP, index_col=0).loc[predictions.index, names].to_numpy(float)
    return evaluate(targets, predictions.to_numpy(), names, resamples=0).summary["mAP"]


def chosen_weights(runs: dict[str, Path]) -> dict[str, float]:
    """The weight of each run in `ensemble.json`."""
    from ensemble.predict.ensemble_json import read_recipe

    checkpoints, weights, _ = read_recipe(ENSEMBLE)
    found = dict.fromkeys(runs, 0.0)
    for path, weight in zip(checkpoints, weights, strict=True):
        found[path.parent.name] += weight
    return found


def merged(shares: dict[str, float], said: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The weighted mean of the runs' probabilities, as ensemble.infer gives it."""
    total = 0 * next(iter(said.values()))
    for name, share in shares.items():
        total += share / sum(shares.values()) * said[name][list(total)]
    return total


def write(name: str, table: pd.DataFrame) -> Path:
    """One row of the leaderboard."""
    path = OUT / "ways" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, float_format="%.8g")
    return path


if __name__ == "__main__":
    run(main)
