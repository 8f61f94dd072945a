"""Which penalty for the couplings, and are planted ones found?

    python -m benchmarks.studies.couplings

First a search on frozen logits: couplings are fitted to two thirds of the patients and scored on
the rest, for the phantom (a model without refiner on images it has not seen) and for nih1000
(out-of-fold predictions without refiner). Then the four couplings that the phantom was drawn with
are looked for: among those fitted to the frozen logits, and among those of a joint training.
Needs the studies `phantom` and `nih1000 label_coupling`, which it runs; half an hour more
on one thread.

Expected (two CPU cores): the tables in methods/label_coupling/README.md.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.runner import no_flags
from benchmarks.studies import phantom_runs, real_runs
from core.config.command_line import run

JOINT = ["--epochs", "8", "--lr", "5e-4"]
SEED = 1


def main() -> None:
    """Print the search for both data sets, then the ranks of the planted couplings."""
    no_flags(__doc__)
    # late, so that --help and a mistyped flag are answered at once
    import pandas as pd

    from benchmarks.studies.frozen_couplings import after_calibration, mean_couplings, ranks, search

    test = phantom_runs.draw(phantom_runs.TEST_SEED, phantom_runs.TEST_IMAGES)
    plain = ["--loss", "bce", "--no-pos_weight"]
    base = phantom_runs.train("label_coupling", SEED, *JOINT, *plain, "--no-refiner", name="base")
    labels = pd.read_csv(test / "train.csv", index_col="ImageID")
    predictions = pd.read_csv(phantom_runs.predict(base, test), index_col="ImageID")
    print("phantom, bce:")
    print(search(predictions, labels, "bce").to_string(index=False))

    out = Path("outputs/nih1000/label_coupling_no_refiner")
    flags = real_runs.BUDGET["label_coupling"]
    real_runs.train("label_coupling", out, *flags, "--no-refiner")
    for loss_name in ("asl", "bce"):
        print(f"\nnih1000, {loss_name}:")
        print(search(*real_runs.read(out), loss_name).to_string(index=False))

    joint = phantom_runs.train("label_coupling", SEED, *JOINT, *plain, name="joint")
    print("\nplanted couplings, rank of the weight among those that are not on the diagonal:")
    found = {
        "frozen, unseen images": mean_couplings(frozen(base, test, "unseen")),
        "frozen, its own images": mean_couplings(frozen(base, phantom_runs.draw(SEED), "seen")),
        "joint": mean_couplings([joint]),
    }
    for penalty in (1e-5, 3e-5):
        found[f"calibrated first, {penalty:g}"] = after_calibration(predictions, labels, penalty)
    planted = pd.read_csv(test / "couplings.csv")
    print(pd.concat({name: ranks(mean, planted) for name, mean in found.items()}).to_string())


def frozen(base: Path, data: Path, name: str) -> list[Path]:
    """Checkpoints of couplings fitted to the frozen logits of `base` on the images of `data`."""
    out = phantom_runs.OUT / f"couplings_{name}"
    command = [
        *(sys.executable, "methods/label_coupling/train.py", "--preset", "small", "--loss", "bce"),
        *("--no-pos_weight", "--couplings_only", str(base), "--folds", "3"),
        *("--train_csv", str(data / "train.csv"), "--train_dir", str(data / "images")),
        *("--out_dir", str(out)),
    ]
    subprocess.run(command, check=True)
    return sorted(out.glob("*_fold[123].safetensors"))


if __name__ == "__main__":
    run(main)
