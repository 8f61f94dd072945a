"""What do the methods reach on real X-rays? `python -m benchmarks.studies.nih1000 [method ...]`.

Three patient-disjoint folds of the 1,000 images of NIH ChestX-ray14 in `nih1000`, 160 px, ImageNet
weights of tf_efficientnet_lite0, eight epochs; ten to twenty-five minutes a recipe. Each method's
defaults, then its parts switched off in turn, against those defaults on the same resamples of
patients. Run folders that are there are not trained again.

Expected (two CPU cores): the tables in README.md and in the methods' READMEs.
"""

import argparse
from pathlib import Path

from benchmarks.studies.real_runs import BUDGET, BY_CONSTRUCTION, TOO_FEW, scores, train
from core.config.command_line import run

# by method: a name, and the flags that differ from its defaults
RECIPES: dict[str, dict[str, list[str]]] = {
    "standard_head": {
        "defaults": [],
        "bce": ["--loss", "bce", "--logit_adjust", "0"],
    },
    "csra_db_cas": {
        "defaults": [],
        "mean_pooling": ["--csra_lambda", "0"],
        "bce": ["--loss", "bce"],
        "uniform": ["--sampler", "uniform"],
    },
    "label_coupling": {
        "defaults": [],
        "no_refiner": ["--no-refiner"],
    },
}


def main() -> None:
    """Train what is not trained yet, and print out-of-fold scores, one row a recipe."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("methods", nargs="*", choices=[*RECIPES, []], metavar="method")
    methods = parser.parse_args().methods or RECIPES
    # late, so that --help and a mistyped flag are answered at once
    import pandas as pd

    rows = []
    for method in methods:
        folders = {name: Path(f"outputs/nih1000/{method}_{name}") for name in RECIPES[method]}
        for name, out in folders.items():
            train(method, out, *BUDGET[method], *RECIPES[method][name])
        for leave_out in (TOO_FEW, TOO_FEW + BY_CONSTRUCTION):
            for name, out in folders.items():
                told = " ".join(RECIPES[method][name]) or "(defaults)"
                rows.append((method, told, *scores(out, folders["defaults"], leave_out)))
    columns = ["method", "flags", "labels", "mAUROC", "mAP", "less the defaults' mAUROC", "mAP"]
    print(pd.DataFrame(rows, columns=columns).to_string(index=False))


if __name__ == "__main__":
    run(main)
