"""The settings of `python -m ensemble.export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import UserError
from ensemble.predict.config import check_models


@dataclass(kw_only=True, slots=True)
class Config:
    """Hand a model, or several as one, to others."""

    checkpoints: tuple[Path, ...] = ()
    """Checkpoints of any methods and backbones; classes are matched by name."""
    weights: tuple[float, ...] = ()
    """Weight of each checkpoint; equal unless given, scaled to a sum of 1."""
    ensemble: Path | None = None
    """Checkpoints and weights from a file that `python -m ensemble.choose` wrote."""
    classes: Literal["same", "union", "intersection"] = "same"
    """What to do where the checkpoints have other classes: refuse, take all (each by the models
    that have it), or those that all have."""
    format: Literal["onnx", "folder"] = "onnx"
    """onnx: one graph with normalisation, views, merging and calibration in it, for ONNX Runtime;
    folder: weights and settings that `methods.load_model` reads, as a model hub takes them."""
    use_tta: bool = True
    """Merge several views of each image; --no-use_tta takes the image alone."""
    tta_config: Literal["none", "flip", "light", "medium", "heavy", "flip_scale"] = "flip"
    """Which views, as for `python -m ensemble.infer`."""
    tta_merge_mode: Literal["mean", "max", "gmean", "median", "logit_mean"] = "mean"
    """How a model's probabilities for the views are merged."""
    ensemble_mode: Literal["weighted_mean", "logit_mean", "gmean", "rank_mean", "median", "max"] = (
        "weighted_mean"
    )
    """How the models' probabilities are merged; not rank_mean, which needs all images at once."""
    calibration: Path | None = None
    """Calibrate by a file that `python -m ensemble.calibrate` wrote; its thresholds go along. An
    isotonic map is too steep for a graph of 32 bits: with one, all is told and nothing applied."""
    input: Literal["uint8", "float"] = "uint8"
    """Pixels that the graph takes: uint8 from 0 to 255, or float32 from 0 to 1."""
    test_csv: Path | None = None
    """Check the graph on images that this CSV names too."""
    image_dir: Path | None = None
    """Check the graph on images of this folder too; the first 16 of them."""
    scores: bool = True
    """Score the out-of-fold predictions beside each checkpoint for the card, with intervals."""
    output: Path = Path("export")
    """Folder of the model and its card."""
    overwrite: bool = False
    """Replace --output where an earlier call made it."""

    @property
    def views(self) -> str:
        """Which views are taken."""
        return self.tta_config if self.use_tta else "none"

    def check(self) -> None:
        """Raise UserError where two settings contradict each other, or ask what cannot be."""
        check_models(self)
        if self.ensemble_mode == "rank_mean":
            raise UserError(
                "--ensemble_mode rank_mean ranks each image among all others, which a model that "
                "is handed on does not see: take another mode"
            )
        if self.test_csv is not None and self.image_dir is None:
            raise UserError("--test_csv names images of --image_dir: give that too")
        if self.format == "folder":
            self._check_folder()

    def _check_folder(self) -> None:
        of_graph = {
            "--image_dir": self.image_dir is not None,
            "--input float": self.input != "uint8",
            "--classes": self.classes != "same",
        }
        if given := [name for name, there in of_graph.items() if there]:
            raise UserError(f"{given[0]} is for --format onnx: leave it out")
