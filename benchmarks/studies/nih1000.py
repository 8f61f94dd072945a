"""Scores of the methods on real X-rays: `python -m benchmarks.studies.nih1000 [method ...]`.

Three patient-disjoint folds of the 1,000 images of NIH ChestX-ray14 in `nih1000`, 160 px, ImageNet
weights of tf_efficientnet_lite0, eight epochs; ten to twenty-five minutes a recipe. Each method's
defaults, then its parts switched off in turn, against those defaults on the same resamples of
patients: without the classes that are too rare, then also without those that the set was built
from. The intervals of each recipe's own means are in outputs/nih1000/*.json. Existing run folders
are not trained again.

Expected (two CPU cores): the table in docs/results.md.
"""

from benchmarks.runner import start
from benchmarks.studies import runs

OUT = runs.OUT / "nih1000"
# by method: a name, and the flags that differ from its defaults
RECIPES: dict[str, dict[str, list[str]]] = {
    "standard_head": {"defaults": [], "bce": ["--loss", "bce", "--logit_adjust", "0"]},
    "csra_db_cas": {
        "defaults": [],
        "mean_pooling": ["--csra_lambda", "0"],
        "bce": ["--loss", "bce"],
        "uniform": ["--sampler", "uniform"],
    },
    "label_coupling": {"defaults": [], "no_refiner": ["--no-refiner"]},
}


def main(methods: list[str]) -> None:
    for method in methods:
        trained = [
            runs.train(method, OUT / f"{method}_{name}", *runs.BUDGET[method], *flags)
            for name, flags in RECIPES[method].items()
        ]
        runs.score_out_of_fold(trained, runs.TOO_FEW, OUT / f"{method}_13")
        leave_out = runs.TOO_FEW + runs.BY_CONSTRUCTION
        runs.score_out_of_fold(trained, leave_out, OUT / f"{method}_11")


if __name__ == "__main__":
    start(main, __doc__, RECIPES)
