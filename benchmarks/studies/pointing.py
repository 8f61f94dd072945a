"""Pointing game of the heat maps: `python -m benchmarks.studies.pointing`.

The three methods at an equal budget on a procedural dataset of 1,200 images: tf_efficientnet_lite0
at 160 px (maps of 5 x 5 cells), 1 + 2 epochs (label_coupling: 3), four fifths of the patients. Then
`ensemble.explain` on its test images with known lesions: how often the maximum of a map is inside
the lesion, against the share of the image that lesions cover. Ten minutes on two cores; existing
files are not made again.

Expected (two CPU cores): the table in docs/results.md.
"""

from benchmarks.runner import start
from benchmarks.studies import runs

BUDGET = [
    *("--preset", "small", "--model", "tf_efficientnet_lite0", "--img_size", "160"),
    *("--folds", "5", "--run_folds", "1", "--batch_size", "16", "--warmup_epochs", "0.5"),
    *("--loss", "bce", "--logit_adjust", "0", "--no-pos_weight"),
]
TWO_PHASES = [
    *("--epochs", "2", "--warmup_head_epochs", "1"),
    *("--backbone_lr", "3e-4", "--head_lr", "1e-3", "--seed", "0"),
]
RECIPES = {
    "standard_head": TWO_PHASES,
    # uniform, so that the maps have the same prior as those of the other methods
    "csra_db_cas": [*TWO_PHASES, "--sampler", "uniform"],
    # as in the published table
    "label_coupling": ["--epochs", "3", "--lr", "3e-4", "--monitor", "mAUROC"],
}


def main() -> None:
    out = runs.OUT / "pointing"
    data = out / "data"
    runs.call("-m", "core.data.phantom", data, "--images", "1200", "--size", "224", "--seed", "0")
    trained = [
        runs.train(method, out / method, *BUDGET, *flags, data=data)
        for method, flags in RECIPES.items()
    ]
    members = [path for one in trained for path in runs.checkpoints(one)]
    runs.call(
        *("-m", "ensemble.explain", "--checkpoints", *members, "--boxes", data / "boxes.csv"),
        *("--test_csv", data / "test.csv", "--image_dir", data / "images"),
        *("--output", out / "maps", "--overwrite"),
    )


if __name__ == "__main__":
    start(main, __doc__)
