"""How often do the 95 % intervals of AP and AUROC cover the truth?

    python -m benchmarks.studies.coverage

400 data sets of 2,000 images are drawn with normal scores, so that the truth is known by
integration, and 400 in which the images of a patient resemble each other. The intervals are those
of `core.metrics` with its 1,000 resamples. A share of 95 % is known to a standard error of 1.1.

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

from benchmarks.runner import start

DATA_SETS, IMAGES, RESAMPLES = 400, 2000, 1000
POSITIVES = (8, 20, 50, 200)
AUROCS = (0.7, 0.8, 0.9, 0.95)


def main() -> None:
    """Print what part of the intervals covers the truth, and on which side the others lie."""
    import pandas as pd

    from benchmarks.studies.interval_simulation import KINDS, measure

    grid = pd.MultiIndex.from_product([POSITIVES, AUROCS], names=["positives", "true AUROC"])
    print(f"{DATA_SETS} data sets of {IMAGES:,} images, {RESAMPLES:,} resamples; all in %")
    for kind, title in KINDS.items():
        by_class, means = measure(grid.to_frame(index=False), IMAGES, DATA_SETS, RESAMPLES, kind)
        by_class = by_class.pivot(index="positives", columns=["metric", "true AUROC"])
        tables = {column: by_class[column] for column in ("covered", "above", "below", "bias")}
        for what, table in (tables | {"means over the classes": means}).items():
            text = (table * 100).to_string(float_format="{:.1f}".format)
            print(f"\n{title}: {what}\n{text}", flush=True)


if __name__ == "__main__":
    start(main, __doc__)
