"""Gain of pseudo-labels on real X-rays: `python -m benchmarks.studies.pseudo_labels`.

Half of the training patients of each fold of nih1000 lose their labels. `standard_head` is trained
on the other half, predicts the images without labels, and is trained again on both, with its
predictions as soft labels. Both are scored on the fold, which neither has seen, and paired over
the patients. Settings are those of the study `nih1000`; half an hour on a busy core a seed.
Finished trainings are not repeated, and missing folds are shown.

Expected (two CPU cores): the table in docs/results.md.
"""

from pathlib import Path

from benchmarks.runner import start
from benchmarks.studies import runs

OUT = runs.OUT / "pseudo_labels"
SEEDS, FOLDS = (0,), (1, 2, 3)
SETTINGS = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "128"),
    *("--monitor", "mAUROC", "--num_workers", "0"),
]
WAYS = ("half of the labels", "with pseudo-labels")


def main() -> None:
    import pandas as pd

    from benchmarks.studies import paired

    labels = paired.Labels.read(runs.nih1000() / "train.csv")
    ids = pd.read_csv(runs.nih1000() / "train.csv")["ImageID"].to_numpy()
    found: dict[str, dict[paired.Cell, paired.Predictions]] = {way: {} for way in WAYS}
    for seed in SEEDS:
        for fold in FOLDS:
            for way, run in zip(WAYS, train(seed, fold), strict=True):
                predicted = pd.read_csv(next(run.glob("*_val.csv")), index_col="ImageID")
                found[way][seed, fold] = predicted.reindex(ids)[list(labels.names)].to_numpy()
    print("\n| trained on | macro AUROC | mAP | less the first's | mAP |\n" + "| --- " * 5 + "|")
    for way, cells in found.items():
        reference = None if way == WAYS[0] else found[WAYS[0]]
        scores = paired.compare(labels, cells, reference, runs.TOO_FEW)
        print(f"| {way} | {' | '.join([*scores, '', ''][:4])} |")


def train(seed: int, fold: int) -> tuple[Path, Path]:
    """Run folders of the training on half of the labels, and of that with pseudo-labels."""
    import pandas as pd

    folder, images = OUT / f"{seed}_{fold}", runs.nih1000() / "images"
    visible, hidden, held_out = divide(folder, seed, fold)
    given = (*SETTINGS, "--seed", seed, "--val_csv", held_out)
    first = runs.train("standard_head", folder / "half", *given, csv=visible)
    (checkpoint,) = runs.checkpoints(first)
    pseudo = runs.predict(hidden, images, folder / "pseudo.csv", "--checkpoints", checkpoint)
    both = folder / "both.csv"
    if not both.exists():
        patients = pd.read_csv(hidden, dtype=str)
        parts = pd.read_csv(visible, dtype={"PatientID": str}), patients.merge(pd.read_csv(pseudo))
        pd.concat(parts).to_csv(both, index=False)
    return first, runs.train("standard_head", folder / "both", *given, "--soft_labels", csv=both)


def divide(folder: Path, seed: int, fold: int) -> tuple[Path, Path, Path]:
    """Write the tables of a fold: with labels, without labels, and held out."""
    import numpy as np
    import pandas as pd

    from benchmarks.studies import plain_loop
    from core.data.tables import read_table

    source = runs.nih1000() / "train.csv"
    frame = pd.read_csv(source, dtype={"PatientID": str})
    held_out = plain_loop.assign(read_table(source, None), seed) == fold
    patients = frame["PatientID"][~held_out].unique()
    chosen = np.random.default_rng((seed, fold)).permutation(patients)[: len(patients) // 2]
    visible = frame["PatientID"].isin(chosen).to_numpy()
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "visible": frame[~held_out & visible],
        "hidden": frame.loc[~held_out & ~visible, ["ImageID", "PatientID"]],
        "held_out": frame[held_out],
    }
    for name, part in parts.items():
        part.to_csv(folder / f"{name}.csv", index=False)
    return tuple(folder / f"{name}.csv" for name in parts)  # type: ignore[return-value]


if __name__ == "__main__":
    start(main, __doc__)
