"""Which loss is worth trying first? (50 minutes on one thread)

    python -m benchmarks.studies.losses

Every loss on the first fold of nih1000 with the settings of the study `nih1000` but a shorter
budget (1 head-only + 4 epochs), against plain BCE on the same resamples of patients. A loss of
single labels is trained without logit adjustment: beside a bias for each class, which starts at
the rest of the prior, it moves that bias and changes no ranking (the row of `asl` with it shows
how far rounding alone carries two equal trainings apart). Run folders that are there are not
trained again.

Expected (two CPU cores): the table in core/losses/README.md.
"""

import re
from pathlib import Path

from benchmarks.runner import no_flags
from benchmarks.studies.real_runs import BUDGET, BY_CONSTRUCTION, TOO_FEW, read, train
from core.config.command_line import run

SHORT = [*BUDGET["standard_head"], "--epochs", "4", "--run_folds", "1"]


def main() -> None:
    """Train what is not trained yet, and print one row a loss, the best mAUROC first."""
    no_flags(__doc__)
    # late, so that --help and a mistyped flag are answered at once
    import pandas as pd

    flags = recipes()
    folders = {name: Path("outputs/losses") / re.sub(r"\W+", "_", name) for name in flags}
    for name, out in folders.items():
        train("standard_head", out, *SHORT, *flags[name])
    rows = [(name, *scores(out, folders["bce"])) for name, out in folders.items()]
    columns = ["loss", "mAUROC", "mAP", "mAUROC - bce's", "mAP - bce's"]
    table = pd.DataFrame(rows, columns=columns).sort_values("mAUROC", ascending=False)
    print(table.to_string(index=False))


def recipes() -> dict[str, list[str]]:
    """By loss: the flags that differ from the defaults."""
    from core.losses import NAMES

    return {name: ["--loss", name, "--logit_adjust", "0"] for name in NAMES} | {
        "bce --pos_weight": ["--loss", "bce", "--pos_weight", "--logit_adjust", "0"],
        "asl --logit_adjust 1": ["--loss", "asl", "--logit_adjust", "1"],
        "two_way --logit_adjust 1": ["--loss", "two_way", "--logit_adjust", "1"],
    }


def scores(out: Path, base: Path) -> list[str]:
    """mAUROC, mAP, and what they have over the run in `base` with 95 % intervals, as texts."""
    from core.metrics import evaluate, paired_difference

    # what the set was built from is no finding to compare losses by
    predictions, labels = read(out, TOO_FEW + BY_CONSTRUCTION)
    names = [str(name) for name in predictions]
    others = read(base)[0].loc[predictions.index, names].to_numpy()
    targets, patients = labels[names].to_numpy(float), labels["PatientID"].to_numpy()
    own = evaluate(targets, predictions.to_numpy(), names, resamples=0).summary
    gain = paired_difference(targets, predictions.to_numpy(), others, names, patients).summary
    absolute = [f"{own[metric]:.3f}" for metric in ("mAUROC", "mAP")]
    paired = [
        "{:+.3f} [{:+.3f}, {:+.3f}]".format(gain[metric], *gain["intervals"][metric])
        for metric in ("mAUROC", "mAP")
    ]
    return absolute + paired


if __name__ == "__main__":
    run(main)
