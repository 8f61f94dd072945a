"""Which loss is worth trying first? (50 minutes on one thread)

    python -m benchmarks.studies.losses

Every loss on the first fold of nih1000 with the settings of the study `nih1000` but a shorter
budget (1 head-only + 4 epochs), against plain BCE on the same resamples of patients. A loss of
single labels is trained without logit adjustment: beside a bias for each class, which starts at
the rest of the prior, it moves that bias and changes no ranking (the row of `asl` with it shows
how far rounding alone carries two equal trainings apart). Run folders that are there are not
trained again.

Expected (two CPU cores): the table in docs/results.md.
"""

import re

from benchmarks.runner import start
from benchmarks.studies import runs

SHORT = [*runs.BUDGET["standard_head"], "--epochs", "4", "--run_folds", "1"]


def main() -> None:
    from core.losses import NAMES

    # the first one is what the others are compared with
    names = ["bce", *(name for name in NAMES if name != "bce")]
    flags = {name: ["--loss", name, "--logit_adjust", "0"] for name in names} | {
        "bce --pos_weight": ["--loss", "bce", "--pos_weight", "--logit_adjust", "0"],
        "asl --logit_adjust 1": ["--loss", "asl", "--logit_adjust", "1"],
        "two_way --logit_adjust 1": ["--loss", "two_way", "--logit_adjust", "1"],
    }
    out = runs.OUT / "losses"
    trained = [
        runs.train("standard_head", out / re.sub(r"\W+", "_", name), *SHORT, *words)
        for name, words in flags.items()
    ]
    # what the set was built from is no finding to compare losses by
    runs.score_out_of_fold(trained, runs.TOO_FEW + runs.BY_CONSTRUCTION, out / "scores")


if __name__ == "__main__":
    start(main, __doc__)
