"""Does csra_db_cas find rare findings better than a plain head?

    python -m benchmarks.studies.phantom

Three procedural datasets of 3,000 images, each with a training seed of its own, and both methods at
an equal budget: tf_efficientnet_lite0, 96 px, 1 + 7 epochs, four fifths of the patients. Scored on
12,000 images of other patients, on which each tail class has 40 positives and more. An hour on one
thread; what is there is not made again.

Expected (two CPU cores): the table in methods/csra_db_cas/README.md.
"""

from pathlib import Path

from benchmarks.runner import no_flags
from benchmarks.studies.phantom_runs import TEST_IMAGES, TEST_SEED, draw, predict, train
from core.config.command_line import run
from core.errors import UserError

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
    """Make what is not there yet, and print one row a seed and the mean over seeds."""
    no_flags(__doc__)
    # late, so that --help and a mistyped flag are answered at once
    import pandas as pd

    test = draw(TEST_SEED, TEST_IMAGES)
    rows = []
    for seed in SEEDS:
        plain, other = [
            predict(train(method, seed, *TWO_PHASES, *flags), test)
            for method, flags in RECIPES.items()
        ]
        rows.append(compare(plain, other, test, tail_classes()))
    table = pd.DataFrame(rows, index=pd.Index(SEEDS, name="seed"))
    print(table.to_string(float_format=lambda value: f"{value:.3f}"))
    numbers = table.select_dtypes("number").mean()
    print("mean over seeds: " + ", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    print(f"tail: {', '.join(tail_classes())}")


def tail_classes() -> list[str]:
    """Findings of less than 1 % of the training images of all seeds together."""
    import pandas as pd

    tables = [pd.read_csv(draw(seed) / "train.csv", index_col=[0, 1]) for seed in SEEDS]
    prevalence = pd.concat(tables).mean()
    return [str(name) for name in prevalence.index[prevalence < 0.01]]


def compare(plain: Path, other: Path, test: Path, tail: list[str]) -> dict[str, object]:
    """mAP and tail mAP of both files, and the paired difference other - plain as text."""
    import pandas as pd

    from core.metrics import evaluate, paired_difference

    labels = pd.read_csv(test / "train.csv", index_col="ImageID")
    patients = labels.pop("PatientID").to_numpy()
    row: dict[str, object] = {}
    every = [str(name) for name in labels]
    for name, classes in (("mAP", every), ("tail mAP", tail)):
        targets = labels[classes].to_numpy(float)
        least = int(labels[tail].sum().min())
        if least < 40:
            raise UserError(f"a class of the test part has {least} positives, fewer than 40")
        both = [
            pd.read_csv(path, index_col=0).loc[labels.index, classes].to_numpy()
            for path in (plain, other)
        ]
        for method, probabilities in zip(RECIPES, both, strict=True):
            summary = evaluate(targets, probabilities, classes, resamples=0).summary
            row[f"{name} {method}"] = summary["mAP"]
        gain = paired_difference(targets, both[1], both[0], classes, patients).summary
        row[f"{name} difference"] = gain["mAP"]
        low, high = gain["intervals"]["mAP"]
        row[f"{name} interval"] = f"[{low:+.3f}, {high:+.3f}]"
    return row


if __name__ == "__main__":
    run(main)
