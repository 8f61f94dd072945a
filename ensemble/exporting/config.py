"""The settings of `python -m ensemble.export`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.errors import UserError
from ensemble.predict.config import MergeConfig, ModelsConfig


@dataclass(kw_only=True, slots=True)
class Config:
    """Hand a model, or several as one, to others."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    format: Literal["onnx", "folder"] = "onnx"
    """onnx: one graph with normalisation, views, merging and calibration in it, for ONNX Runtime;
    folder: weights and settings that `methods.load_model` reads, as a model hub takes them."""
    merge: MergeConfig = field(default_factory=MergeConfig)
    calibration: Path | None = None
    """Calibrate by a file that `python -m ensemble.calibrate` wrote; its thresholds go along. An
    isotonic map is too steep for a graph of 32 bits: with one, all is told and nothing applied."""
    input: Literal["uint8", "float"] = "uint8"
    """Pixels that the graph takes: uint8 from 0 to 255, or float32 from 0 to 1."""
    any_size: bool = False
    """Take images of any height and width: the graph resizes them as training does."""
    test_csv: Path | None = None
    """Check the graph on images that this CSV names too."""
    image_dir: Path | None = None
    """Check the graph on images of this folder too; the first 16 of them."""
    scores: bool = True
    """Score the out-of-fold predictions beside each checkpoint for the card, with intervals."""
    output: Path = Path("outputs/export")
    """Folder of the model and its card."""
    overwrite: bool = False
    """Replace --output where an earlier call made it."""

    def check(self) -> None:
        """Raise UserError where two settings contradict each other, or ask what cannot be."""
        self.merge.check(self.models, many_images=False)
        if self.test_csv is not None and self.image_dir is None:
            raise UserError("--test_csv names images of --image_dir: give that too")
        of_graph = {
            "--image_dir": self.image_dir is not None,
            "--input float": self.input != "uint8",
            "--any_size": self.any_size,
            "--classes": self.merge.classes != "same",
        }
        given = [name for name, there in of_graph.items() if there]
        if self.format == "folder" and given:
            raise UserError(f"{given[0]} is for --format onnx: leave it out")
