"""The methods against a plain loop on real X-rays: `python -m benchmarks.studies.nih1000`.

    python -m benchmarks.studies.nih1000 search           # settings tried on fold 1 of seed 0
    python -m benchmarks.studies.nih1000 plain_loop csra_db_cas

Three patient-disjoint folds x three seeds of the 1,000 images of NIH ChestX-ray14 in `nih1000`,
128 px, ImageNet weights of tf_efficientnet_lite0, eight epochs, then two that train the head again
by class-aware draws. 13 to 18 minutes on a busy core for each method and seed. Finished folds are
not trained again, the command may be stopped at any time, and rows that are missing are shown.

All rows keep the epoch of the best macro AUROC on the fold; the last epoch is shown beside it. Each
row is paired with the plain loop on the same folds and seeds. Fold 1 of seed 0, on which settings
were tried, is left out and shown in a separate table.

Expected (two CPU cores): the tables in docs/results.md.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.runner import start
from benchmarks.studies import runs

OUT = runs.OUT / "nih1000"
PLAIN, SEARCH = "plain_loop", "search"
METHODS = ("standard_head", "csra_db_cas", "label_coupling")
SEEDS, FOLDS, EPOCHS = (0, 1, 2), (1, 2, 3), 8
# the fold on which settings were tried, as (seed, fold)
SEARCHED = (0, 1)
# by name in the tables: a method, and its flags beside SETTINGS
RECIPES: dict[str, tuple[str, list[str]]] = {
    **{name: (name, []) for name in (PLAIN, *METHODS)},
    "label_coupling_refiner": ("label_coupling", ["--refiner"]),
}
SETTINGS = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "128"),
    *("--monitor", "mAUROC", "--retrain_epochs", "2", "--head_views", "1", "--num_workers", "0"),
]
# by folder: a method, and the flags that differ from SETTINGS (of the plain loop: the rate)
TRIED: dict[str, tuple[str, list[str]]] = {
    **{f"plain_loop_{rate}": (PLAIN, [rate]) for rate in ("8e-4", "4e-4", "2e-4")},
    **{
        f"{method}_{rate}": (method, ["--backbone_lr", rate, "--head_lr", head_rate])
        for method in ("standard_head", "csra_db_cas")
        for rate, head_rate in (("2e-4", "2e-3"), ("4e-4", "4e-3"), ("8e-4", "8e-3"))
    },
    **{f"label_coupling_{rate}": ("label_coupling", ["--lr", rate]) for rate in ("4e-4", "8e-4")},
    "standard_head_mlp": ("standard_head", ["--head", "mlp"]),
    "standard_head_adjusted": ("standard_head", ["--logit_adjust", "1"]),
    "csra_db_cas_bce": ("csra_db_cas", ["--loss", "bce"]),
    "csra_db_cas_balanced": ("csra_db_cas", ["--loss", "distribution_balanced"]),
    "csra_db_cas_class_aware": (
        "csra_db_cas",
        [
            *("--loss", "distribution_balanced", "--sampler", "class_aware"),
            *("--retrain_sampler", "uniform"),
        ],
    ),
    "label_coupling_refiner": ("label_coupling", ["--refiner"]),
}


def main(names: list[str]) -> None:
    for name in [name for name in names if name != SEARCH]:
        for seed in SEEDS:
            method, flags = RECIPES[name]
            train(method, OUT / f"{name}_{seed}", seed, folds_of(seed), flags)
    seed, fold = SEARCHED
    for name, (method, flags) in TRIED.items() if SEARCH in names else ():
        train(method, OUT / SEARCH / name, seed, [fold], flags)
    print_tables()


def folds_of(seed: int) -> list[int]:
    """Folds of a seed that were not searched on."""
    return [fold for fold in FOLDS if (seed, fold) != SEARCHED]


def train(
    method: str, out: Path, seed: int, folds: Sequence[int], flags: Sequence[str] = ()
) -> None:
    """Train the folds that are not finished."""
    from benchmarks.studies import paired

    epochs = EPOCHS if method == PLAIN else EPOCHS + 2
    if all(paired.is_finished(out, fold, epochs) for fold in folds):
        return
    if method == PLAIN:
        train_plain(out, seed, folds, *map(float, flags))
        return
    given = (*flags, "--seed", seed, "--run_folds", *folds)
    runs.train(method, out, *SETTINGS, *given, prefix=("-m", "benchmarks.keep_epochs"))


def train_plain(out: Path, seed: int, folds: Sequence[int], *rate: float) -> None:
    """Train the plain loop on the folds that are not finished."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from benchmarks.studies import paired, plain_loop
    from core.data.tables import read_table
    from core.io.atomic import write_atomically

    data = runs.nih1000()
    table = read_table(data / "train.csv", data / "images")
    assignment = plain_loop.assign(table, seed)
    for fold in folds:
        path = paired.epochs_file(out, fold)
        if path.exists():
            continue
        epochs = plain_loop.train(table, assignment, fold, runs.weights(), seed, *rate)
        rows = torch.from_numpy(np.flatnonzero(assignment == fold))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(save_file, {"epochs": epochs, "rows": rows}))


def print_tables() -> None:
    """Scores of what is trained, for both sets of labels, then of the fold of the search."""
    from benchmarks.studies import paired

    labels = paired.Labels.read(runs.nih1000() / "train.csv")
    cells = [(seed, fold) for seed in SEEDS for fold in folds_of(seed)]
    of_verdict = {name: {cell: OUT / f"{name}_{cell[0]}" for cell in cells} for name in RECIPES}
    of_search = {name: {SEARCHED: OUT / SEARCH / name} for name in TRIED}
    for leave_out in (runs.TOO_FEW, runs.TOO_FEW + runs.BY_CONSTRUCTION):
        number = len(labels.columns(leave_out))
        print(f"\n{number} labels, {len(cells)} folds of {len(SEEDS)} seeds")
        paired.print_table(labels, of_verdict, METHODS, leave_out, EPOCHS)
        print(f"\n{number} labels, fold {SEARCHED[1]} of seed {SEARCHED[0]}, of the search")
        paired.print_table(labels, of_search, (), leave_out, EPOCHS)


if __name__ == "__main__":
    start(main, __doc__, [*RECIPES, SEARCH])
