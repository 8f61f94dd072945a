"""Penalty of the couplings, and recovery of planted couplings.

    python -m benchmarks.studies.couplings

First a search on frozen logits: couplings are fitted to two thirds of the patients and scored on
the rest, for the phantom (a model without refiner on held-out images) and for nih1000 (out-of-fold
predictions without refiner). Then the ranks of the phantom's four planted couplings: among those
fitted to the frozen logits, and among those of a joint training. Also trains missing runs of the
study `phantom`; half an hour more on one thread.

Expected (two CPU cores): the tables in docs/results.md.
"""

from pathlib import Path

from benchmarks.runner import start
from benchmarks.studies import runs

JOINT = [
    *("--epochs", "8", "--lr", "5e-4", "--loss", "bce", "--no-pos_weight"),
    # as in the published tables
    *("--monitor", "mAUROC", "--patience", "3"),
]
SEED = 1


def main() -> None:
    import pandas as pd

    from benchmarks.studies.couplings import frozen

    test = runs.draw(runs.TEST_SEED, runs.TEST_IMAGES)
    base = runs.train_on_phantom("label_coupling", SEED, *JOINT, "--no-refiner", name="base")
    unseen = frozen.read(runs.predict_phantom(base), test / "train.csv")
    print(f"phantom, bce:\n{frozen.search(unseen, 'bce').to_string()}")
    out = runs.OUT / "couplings" / "nih1000"
    runs.train("label_coupling", out, *runs.BUDGET["label_coupling"], "--no-refiner")
    real = frozen.read(runs.out_of_fold(out, runs.TOO_FEW), runs.nih1000() / "train.csv")
    for loss in ("asl", "bce"):
        print(f"\nnih1000, {loss}:\n{frozen.search(real, loss).to_string()}")

    joint = runs.train_on_phantom("label_coupling", SEED, *JOINT, "--refiner", name="joint")
    print("\nplanted couplings, rank of the weight among those that are not on the diagonal:")
    found = {
        "frozen, unseen images": frozen.mean_couplings(fit(base, test, "unseen")),
        "frozen, its own images": frozen.mean_couplings(fit(base, runs.draw(SEED), "seen")),
        "joint": frozen.mean_couplings(joint),
    }
    for penalty in (1e-5, 3e-5):
        found[f"calibrated first, {penalty:g}"] = frozen.after_calibration(unseen, penalty)
    planted = pd.read_csv(test / "couplings.csv")
    ranks = {name: frozen.ranks(mean, planted) for name, mean in found.items()}
    print(pd.concat(ranks).to_string())


def fit(base: Path, data: Path, name: str) -> Path:
    """Fit couplings to the frozen logits of `base` on images of `data`; returns the run folder."""
    out = runs.OUT / "phantom" / f"couplings_{name}"
    runs.call(
        *("methods/label_coupling/train.py", "--preset", "small", "--refiner", "--loss", "bce"),
        *("--no-pos_weight", "--couplings_only", *runs.checkpoints(base), "--folds", "3"),
        *("--train_csv", data / "train.csv", "--train_dir", data / "images", "--out_dir", out),
    )
    return out


if __name__ == "__main__":
    start(main, __doc__)
