"""Comparison of the losses. Fifty minutes on one thread.

    python -m benchmarks.studies.losses

Every loss on the first fold of nih1000 with the settings of the study `nih1000` but a shorter
budget (1 head-only + 4 epochs), against plain BCE on the same resamples of patients. Losses of
single labels are trained without logit adjustment, which would only shift the biases and not
change the ranking. The row of `asl` with adjustment shows the effect of rounding errors alone.
Existing run folders are not trained again.

Expected (two CPU cores): the table in docs/results.md.
"""

import re

from benchmarks.runner import start
from benchmarks.studies import runs

SHORT = [*runs.BUDGET["standard_head"], "--epochs", "4", "--run_folds", "1"]


def main() -> None:
    from core.losses import NAMES

    # the first one is the reference
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
    # without the classes that the set was built from
    runs.score_out_of_fold(trained, runs.TOO_FEW + runs.BY_CONSTRUCTION, out / "scores")


if __name__ == "__main__":
    start(main, __doc__)
