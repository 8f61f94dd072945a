"""Rare findings of the phantom: csra_db_cas against a plain head.

    python -m benchmarks.studies.phantom

Three procedural datasets of 3,000 images with different training seeds, and both methods at an
equal budget: tf_efficientnet_lite0, 96 px, 1 + 7 epochs, four fifths of the patients. Scored on
12,000 images of other patients with at least 40 positives of each tail class: all findings, then
those in less than 1 % of the training images of all seeds. An hour on one thread; existing files
are not made again.

Expected (two CPU cores): the table in docs/results.md.
"""

from benchmarks.runner import start
from benchmarks.studies import runs

SEEDS = (1, 2, 3)
RECIPES = {
    "standard_head": ["--loss", "bce", "--logit_adjust", "0"],
    "csra_db_cas": [],
}
TWO_PHASES = [
    *("--epochs", "7", "--warmup_head_epochs", "1"),
    *("--backbone_lr", "5e-4", "--head_lr", "1e-3"),
]


def main() -> None:
    import pandas as pd

    test = runs.draw(runs.TEST_SEED, runs.TEST_IMAGES)
    tables = [pd.read_csv(runs.draw(seed) / "train.csv", index_col=[0, 1]) for seed in SEEDS]
    rare = pd.concat(tables).mean() < 0.01
    labels = {"all": test / "train.csv"}
    if rare.any():
        labels["tail"] = runs.OUT / "phantom" / "tail.csv"
        pd.read_csv(labels["all"], index_col=[0, 1]).loc[:, rare].to_csv(labels["tail"])
    else:
        print("no finding in less than 1 % of the training images: no leaderboard of rare ones")
    for seed in SEEDS:
        files = []
        for method, flags in RECIPES.items():
            trained = runs.train_on_phantom(method, seed, *TWO_PHASES, *flags)
            files.append(runs.predict_phantom(trained))
        for classes, csv in labels.items():
            runs.score(files, csv, runs.OUT / "phantom" / f"scores_{classes}_{seed}")


if __name__ == "__main__":
    start(main, __doc__)
