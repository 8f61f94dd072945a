"""When tail methods pay: csra_db_cas and a re-trained head against BCE, on the phantom.

    python -m benchmarks.studies.phantom

1,000, 4,000 and 12,000 images, of the default prevalence and of a longer tail (findings below 5 %
at 0.3 of it), three seeds; resnet10t from random weights, 64 px, packs, four fifths of the
patients. Scored on 6,000 images of other patients: all findings, and the tail, those of at most
1 %. A stopped study continues with the next training; tables are printed after each one, with
"missing" for those to come. About two hours of processor time, written with the scores to
outputs/phantom_tail/rows.csv.

Expected (two CPU cores): the tables in docs/results.md.
"""

import os
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.runner import start
from benchmarks.studies import runs
from core.io.atomic import write_atomically

if TYPE_CHECKING:  # imported late for a fast --help
    import pandas as pd

OUT = runs.OUT / "phantom_tail"
ROWS = OUT / "rows.csv"
KEYS = ["tail", "seed", "images", "recipe"]
# --rare of the phantom
TAILS = {"long": 0.3, "default": 1.0}
SEEDS = (1, 2, 3)
# epochs by number of images
EPOCHS = {1000: 8, 4000: 4, 12_000: 2}
TEST_SEED, TEST_IMAGES = 100, 6000
MOST_OF_TAIL = 0.01
COMMON = [
    *("--preset", "small", "--model", "resnet10t", "--img_size", "64", "--num_workers", "0"),
    *("--folds", "5", "--run_folds", "1", "--batch_size", "32", "--warmup_epochs", "0.5"),
    *("--warmup_head_epochs", "0", "--backbone_lr", "3e-3", "--head_lr", "3e-3", "--no-tta"),
]
BCE = ["--head", "mlp", "--loss", "bce", "--logit_adjust", "0"]
AGAIN = ["--sampler", "class_aware", "--freeze_backbone", "--epochs", "2"]
RECIPES: dict[str, tuple[str, list[str]]] = {
    "bce": ("standard_head", [*BCE, "--sampler", "uniform"]),
    "csra_db_cas": (
        "csra_db_cas",
        ["--loss", "distribution_balanced", "--sampler", "class_aware", "--csra_lambda", "0.1"],
    ),
    # the head of `bce` trained for two more epochs, as --retrain_epochs 2 does after the last one
    "retrained": ("standard_head", [*BCE, *AGAIN]),
}
OTHERS = [name for name in RECIPES if name != "bce"]
MEANS = ("tail mAP", "mAP")
MISSING = "missing"
# positives of a class in training, from each number to the next
BINS = (0, 5, 10, 20, 40, 80, 160)


def main() -> None:
    import pandas as pd

    for seed, tail, images, recipe in product(SEEDS, TAILS, EPOCHS, RECIPES):
        rows, keys = read_rows(), dict(zip(KEYS, (tail, seed, images, recipe), strict=True))
        if (rows[KEYS] == list(keys.values())).all(axis=1).any():
            continue
        began = os.times()
        trained = train(tail, seed, images, recipe)
        ended = os.times()
        row = score(trained, tail, draw(tail, seed, images))
        row["seconds"] = sum(ended[2:4]) - sum(began[2:4])
        rows = pd.concat([rows, pd.DataFrame([keys | row])], ignore_index=True)
        write_atomically(ROWS, partial(rows.to_csv, index=False))
        print(f"\n{describe(rows)}", flush=True)
    print(f"\n{describe(read_rows())}")


def read_rows() -> "pd.DataFrame":
    """Finished trainings: KEYS, "ap X" and "positives X" of each class X, processor seconds."""
    import pandas as pd

    return pd.read_csv(ROWS) if ROWS.exists() else pd.DataFrame(columns=KEYS)


def draw(tail: str, seed: int, images: int) -> Path:
    """Folder of a phantom with a `pack` of 64 px, made if it is missing."""
    folder = OUT / f"data_{tail}_{seed}_{images}"
    if not (folder / "pack" / "pack.json").exists():
        options = ("--images", images, "--size", "128", "--seed", seed, "--rare", TAILS[tail])
        runs.call("-m", "core.data.phantom", folder, *options)
        table = ("--train_csv", folder / "train.csv", "--train_dir", folder / "images")
        to = ("--size", "64", "--num_workers", "1", "--out", folder / "pack")
        runs.call("-m", "core.data.pack", *table, *to)
    return folder


def train(tail: str, seed: int, images: int, recipe: str) -> Path:
    """Train a recipe, unless it is done; returns the run folder."""
    out, data = OUT / f"{recipe}_{tail}_{seed}_{images}", draw(tail, seed, images)
    method, flags = RECIPES[recipe]
    begin: list[object] = ["--epochs", EPOCHS[images], "--no-pretrained"]
    if recipe == "retrained":
        # finished before, unless only its row is there
        begin = ["--init_from", *runs.checkpoints(train(tail, seed, images, "bce"))]
    given = ("--train_csv", data / "train.csv", "--train_dir", data / "pack", "--out_dir", out)
    runs.call(f"methods/{method}/train.py", *COMMON, *begin, *flags, "--seed", seed, *given)
    return out


def score(trained: Path, tail: str, data: Path) -> dict[str, float]:
    """AP on the test images and training positives of each class."""
    import pandas as pd

    from core.metrics import evaluate

    test = draw(tail, TEST_SEED, TEST_IMAGES)
    members = ("--checkpoints", *runs.checkpoints(trained), "--no-use_tta", "--num_workers", "0")
    csv = runs.predict(test / "train.csv", test / "pack", trained / "test.csv", *members)
    predicted = pd.read_csv(csv, index_col=0)
    names = [*map(str, predicted.columns)]
    labels = pd.read_csv(test / "train.csv", index_col=0).loc[predicted.index, names]
    found = evaluate(labels, predicted, names, resamples=0).per_class
    (validated,) = trained.glob("*_val.csv")
    rows = pd.read_csv(data / "train.csv", index_col=0)
    kept = rows.drop(index=pd.read_csv(validated, index_col=0).index)[names].sum()
    aps = {f"ap {name}": float(found["ap"][name]) for name in names}
    return aps | {f"positives {name}": float(kept[name]) for name in names}


def tail_classes(tail: str) -> list[str]:
    """Findings of at most 1 % in this tail."""
    from core.data.phantom.dataset import prevalences

    return [name for name, p in prevalences(TAILS[tail]).items() if p <= MOST_OF_TAIL]


def describe(rows: "pd.DataFrame") -> str:
    """Both tables as Markdown, and the processor minutes of drawing and training."""
    if rows.empty:
        return "no training is finished"
    minutes = (
        f"{len(rows)} trainings, {rows['seconds'].sum() / 60:.0f} processor minutes of training"
    )
    return "\n".join([*table_of_means(rows), "", *table_of_classes(rows), "", minutes])


def table_of_means(rows: "pd.DataFrame") -> list[str]:
    """Lines of a table by images and tail: tail mAP and mAP of BCE, and differences from it."""
    means = rows[KEYS].copy()
    means["mAP"] = rows.filter(regex="^ap ").mean(axis=1)
    for tail in TAILS:
        here, names = rows["tail"] == tail, tail_classes(tail)
        means.loc[here, "tail mAP"] = rows.loc[here, [f"ap {name}" for name in names]].mean(axis=1)
        counts = rows.loc[here, [f"positives {name}" for name in names]]
        means.loc[here, ["fewest", "most"]] = counts.agg(["min", "max"], axis=1).to_numpy()
    means = _beside_bce(means)
    header = ["images", "tail", "seeds", "positives of a tail class", "tail mAP (bce)", "mAP (bce)"]
    header += [f"{mean} ({name})" for name in OTHERS for mean in MEANS]
    lines = _header(header)
    for images, tail in product(EPOCHS, TAILS):
        block = means[(means["images"] == images) & (means["tail"] == tail)]
        first = block[block["recipe"] == "bce"]
        cells = [f"{images:,}", tail, f"{len(first)} of {len(SEEDS)}"]
        if first.empty:
            cells += [MISSING, MISSING, MISSING]
        else:
            cells.append(f"{first['fewest'].min():.0f} to {first['most'].max():.0f}")
            cells += [f"{first[mean].mean():.3f}" for mean in MEANS]
        for name in OTHERS:
            own = block[block["recipe"] == name]
            cells += [_with_range(own[mean] - own[f"{mean} bce"]) for mean in MEANS]
        lines.append(_line(cells))
    return lines


def table_of_classes(rows: "pd.DataFrame") -> list[str]:
    """Lines of a table by positives of a tail class in training: AP of BCE, and differences."""
    import pandas as pd

    parts = []
    for tail in TAILS:
        for name in tail_classes(tail):
            columns = {f"ap {name}": "ap", f"positives {name}": "positives"}
            parts.append(rows.loc[rows["tail"] == tail, [*KEYS, *columns]].rename(columns=columns))
            parts[-1]["class"] = name
    classes = _beside_bce(pd.concat(parts), "class")
    classes["gain"] = classes["ap"] - classes["ap bce"]
    lines = _header(
        ["positives in training", "classes", "AP (bce)", *(f"AP ({n})" for n in OTHERS)]
    )
    for least, after in pairwise([*BINS, 1_000_000]):
        here = classes[classes["positives"].between(least, after - 1)]
        first = here["ap"][here["recipe"] == "bce"]
        cells = [f"{least} to {after - 1}" if after in BINS else f"from {least} on"]
        cells += [f"{len(first)}", f"{first.mean():.3f}" if len(first) else MISSING]
        cells += [_with_range(here["gain"][here["recipe"] == name]) for name in OTHERS]
        lines.append(_line(cells))
    return lines


def _beside_bce(rows: "pd.DataFrame", *also: str) -> "pd.DataFrame":
    """`rows` with the columns of the same row of bce, marked " bce"."""
    keys = [*KEYS[:-1], *also]
    first = rows[rows["recipe"] == "bce"].drop(columns="recipe")
    return rows.merge(first, on=keys, suffixes=("", " bce"))


def _with_range(differences: "pd.Series") -> str:
    """ "+0.120 (+0.100 to +0.140)"; "missing" without any."""
    if differences.empty:
        return MISSING
    text = f"{differences.mean():+.3f}"
    span = f" ({differences.min():+.3f} to {differences.max():+.3f})"
    return text + (span if len(differences) > 1 else "")


def _header(columns: list[str]) -> list[str]:
    return [_line(columns), _line(["---"] * len(columns))]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    start(main, __doc__)
