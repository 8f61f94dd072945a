"""Pointing game of the heat maps: `python -m benchmarks.studies.pointing`.

The three methods at an equal budget on a procedural dataset of 1,200 images: tf_efficientnet_lite0
at 160 px (maps of 5 x 5 cells), 1 + 2 epochs (label_coupling: 3), four fifths of the patients. Then
`ensemble.explain` on its test images with known lesions: how often the maximum of a map is inside
the lesion, against the share of the image that lesions cover. Ten minutes on two cores; existing
files are not made again.

`vit` is a small ViT (0.4 M parameters) with maps of 8 x 8 tokens, 128 px, from random weights and
so for 40 epochs; `methods` are the three.

Expected (two CPU cores): the table in docs/results.md.
"""

from collections.abc import Sequence
from pathlib import Path

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
    "standard_head": [*TWO_PHASES, "--head", "mlp"],
    # uniform, so that the maps have the same prior as those of the other methods
    "csra_db_cas": [*TWO_PHASES, "--sampler", "uniform"],
    # as in the published table
    "label_coupling": ["--epochs", "3", "--lr", "3e-4", "--monitor", "mAUROC", "--refiner"],
}
# the budget of the others, but for the epochs that random weights need
VIT = [
    *("--preset", "small", "--model", "test_vit", "--img_size", "128"),
    *("--no-pretrained", "--epochs", "40", "--warmup_head_epochs", "0", "--warmup_epochs", "2"),
    *("--folds", "5", "--run_folds", "1", "--batch_size", "16", "--seed", "0"),
    *("--loss", "bce", "--logit_adjust", "0", "--no-pos_weight"),
    *("--backbone_lr", "1e-3", "--head_lr", "1e-3", "--no-ema", "--drop_rate", "0"),
    *("--head", "mlp"),
]


def main(names: Sequence[str]) -> None:
    out = runs.OUT / "pointing"
    data = out / "data"
    runs.call("-m", "core.data.phantom", data, "--images", "1200", "--size", "224", "--seed", "0")
    if "methods" in names:
        trained = [
            runs.train(method, out / method, *BUDGET, *flags, data=data)
            for method, flags in RECIPES.items()
        ]
        _explain(trained, data, out / "maps")
    if "vit" in names:
        given = ("--train_csv", data / "train.csv", "--train_dir", data / "images")
        runs.call("methods/standard_head/train.py", *VIT, *given, "--out_dir", out / "vit")
        _explain([out / "vit"], data, out / "maps_vit")


def _explain(trained: Sequence[Path], data: Path, output: Path) -> None:
    members = [path for one in trained for path in runs.checkpoints(one)]
    runs.call(
        *("-m", "ensemble.explain", "--checkpoints", *members, "--boxes", data / "boxes.csv"),
        *("--test_csv", data / "test.csv", "--image_dir", data / "images"),
        *("--output", output, "--overwrite"),
    )


if __name__ == "__main__":
    start(main, __doc__, ("methods", "vit"))
