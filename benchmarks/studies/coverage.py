"""How often do the 95 % intervals of AP and AUROC cover the truth?

    python -m benchmarks.studies.coverage

Data sets are drawn with normal scores, so that the truth is known by integration and not by the
code that is judged: 400 of 2,000 images, and 400 more in which the images of a patient resemble
each other. The intervals are those of `core.metrics` with its 1,000 resamples. A share of 400 that
is 95 % is known to a standard error of 1.1 points.

Expected (six minutes on one core), intervals that cover the truth, in %, over true AUROCs of .7 to
.95, by the number of positives that a data set of a class has on average:

| | 8 | 20 | 50 | 200 |
| --- | --- | --- | --- | --- |
| AP, one image a patient | 86.8 to 90.8 | 92.8 to 94.8 | 92.2 to 96.0 | 93.0 to 94.5 |
| AUROC | 73.0 to 87.2 | 81.8 to 95.2 | 90.2 to 93.5 | 92.5 to 96.0 |
| AP, several images a patient | 85.0 to 88.5 | 91.8 to 93.2 | 91.5 to 95.0 | 92.5 to 95.0 |
| AUROC | 70.8 to 85.2 | 85.0 to 92.8 | 87.8 to 93.8 | 91.0 to 95.0 |
| AP, the same, resamples of images | 82.0 to 84.5 | 84.5 to 89.0 | 83.0 to 86.2 | 80.8 to 83.0 |

The intervals of AUROC that miss lie too high, the more so the nearer the AUROC is to 1. AP of few
positives is too high on average, by 0.02 to 0.06 at 8 and by up to 0.016 at 50. Means over all 16
classes: mAP 91.5, mAUROC 95.2 (several images a patient: 91.8 and 95.5). Differences of two
predictions: mAP 94.2, mAUROC 94.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.runner import parse_names
from core.config.command_line import run

if TYPE_CHECKING:
    import pandas as pd

DATA_SETS, IMAGES, RESAMPLES = 400, 2000, 1000
POSITIVES = (8, 20, 50, 200)
AUROCS = (0.7, 0.8, 0.9, 0.95)


def main() -> None:
    """Print what part of the intervals covers the truth, and on which side the others lie."""
    parse_names(__doc__)
    # late, so that --help and a mistyped flag are answered at once
    import pandas as pd

    from benchmarks.studies.interval_simulation import differences, measure

    grid = pd.MultiIndex.from_product([POSITIVES, AUROCS], names=["positives", "true AUROC"])
    classes = grid.to_frame(index=False)
    print(f"{DATA_SETS} data sets of {IMAGES:,} images, {RESAMPLES:,} resamples")
    single, single_means = measure(classes, IMAGES, DATA_SETS, RESAMPLES, clustered=False)
    show("one image a patient: intervals that cover the truth, %", by_class(single, "covered"))
    show("intervals that lie above the truth, %", by_class(single, "above"))
    show("intervals that lie below the truth, %", by_class(single, "below"))
    show("mean value minus the truth, in points of 100", by_class(single, "bias"))
    show("means over the classes, %", single_means.set_index(["unit", "metric"]))
    several, several_means = measure(classes, IMAGES, DATA_SETS, RESAMPLES, clustered=True)
    for unit in ("patients", "images"):
        table = by_class(several[several["unit"] == unit], "covered")
        show(f"several images a patient, resamples of {unit}: intervals that cover, %", table)
    show("means over the classes, %", several_means.set_index(["unit", "metric"]))
    pairs = differences(classes, IMAGES, DATA_SETS, RESAMPLES)
    show("one image a patient: differences of two predictions, %", pairs.set_index("metric"))


def show(title: str, table: pd.DataFrame) -> None:
    """Print shares as %, to a decimal."""
    print(f"\n{title}\n{(table * 100).to_string(float_format='{:.1f}'.format)}", flush=True)


def by_class(result: pd.DataFrame, column: str) -> pd.DataFrame:
    """A row a number of positives, a column a metric and true AUROC."""
    return result.pivot(index="positives", columns=["metric", "true AUROC"], values=column)


if __name__ == "__main__":
    run(main)
