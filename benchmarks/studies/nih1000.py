"""Scores of the methods on real X-rays: `python -m benchmarks.studies.nih1000 [method ...]`.

Three patient-disjoint folds of the 1,000 images of NIH ChestX-ray14 in `nih1000`, 160 px, ImageNet
weights of tf_efficientnet_lite0, eight epochs, or ten on a frozen backbone; ten to twenty-five
minutes a recipe, two with a frozen backbone. Each method's defaults, then its parts switched off in
turn, against those defaults on the same resamples of patients: without the classes that are too
rare, then also without those that the set was built from. Also prints the processor seconds of each
recipe, its start and report included. The intervals of each recipe's own means are in
outputs/nih1000/*.json. Existing run folders are not trained again.

Expected (two CPU cores): the tables in docs/results.md.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import start
from benchmarks.studies import runs

OUT = runs.OUT / "nih1000"
FROZEN = ["--freeze_backbone", "--epochs", "9"]
# by method: a name, and the flags that differ from its defaults
RECIPES: dict[str, dict[str, list[str]]] = {
    "standard_head": {
        "defaults": [],
        "bce": ["--loss", "bce", "--logit_adjust", "0"],
        "frozen": FROZEN,
        "linear_probe": [*FROZEN, "--head", "linear"],
    },
    "csra_db_cas": {
        "defaults": [],
        "mean_pooling": ["--csra_lambda", "0"],
        "bce": ["--loss", "bce"],
        "uniform": ["--sampler", "uniform"],
    },
    "label_coupling": {"defaults": [], "no_refiner": ["--no-refiner"]},
}


def main(methods: list[str]) -> None:
    for method in methods:
        trained = [train(method, name, flags) for name, flags in RECIPES[method].items()]
        runs.score_out_of_fold(trained, runs.TOO_FEW, OUT / f"{method}_13")
        leave_out = runs.TOO_FEW + runs.BY_CONSTRUCTION
        runs.score_out_of_fold(trained, leave_out, OUT / f"{method}_11")
        for run in trained:
            if (note := seconds_of(run)).exists():
                print(f"{run.name}: {float(note.read_text()):,.0f} processor seconds")


def train(method: str, name: str, flags: Sequence[str]) -> Path:
    """Train a recipe, unless that is done; notes the processor seconds of a whole training."""
    out = OUT / f"{method}_{name}"
    is_new, before = not out.exists(), os.times()
    # the seconds of loader workers that are killed at the end would not be counted
    runs.train(method, out, *runs.BUDGET[method], *flags, "--num_workers", "0")
    if is_new:
        after = os.times()
        user = after.children_user - before.children_user
        system = after.children_system - before.children_system
        seconds_of(out).write_text(str(user + system))
    return out


def seconds_of(run: Path) -> Path:
    """File of a run's processor seconds, beside its folder, which contains only the run."""
    return run.with_name(f"{run.name}_seconds.txt")


if __name__ == "__main__":
    start(main, __doc__, RECIPES)
