"""Settings of `python -m ensemble.export`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.errors import UserError
from ensemble.predict.config import MergeConfig, ModelsConfig


@dataclass(kw_only=True, slots=True)
class Config:
    """Export one model, or several as an ensemble."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    format: Literal["onnx", "folder"] = "onnx"
    """onnx: one graph with normalisation, augmented copies, merging and calibration, for ONNX
    Runtime; folder: weights and settings for `methods.load_model`, as a folder for model hubs."""
    merge: MergeConfig = field(default_factory=MergeConfig)
    calibration: Path | None = None
    """Calibration file of `python -m ensemble.calibrate`, exported with its thresholds. Isotonic
    maps are too steep for float32: the graph then has the calibration in its metadata alone."""
    input: Literal["uint8", "float"] = "uint8"
    """Input of the graph: uint8 from 0 to 255, or float32 from 0 to 1."""
    any_size: bool = False
    """Accept images of any height and width; the graph resizes them as in training."""
    test_csv: Path | None = None
    """CSV with the names of the images for the check of the graph."""
    image_dir: Path | None = None
    """Folder of images for the check of the graph; the first 16 are used."""
    scores: bool = True
    """Add scores of the out-of-fold predictions beside each checkpoint to the card."""
    output: Path = Path("outputs/export")
    """Folder of the model and its card."""
    overwrite: bool = False
    """Replace an earlier --output."""

    def check(self) -> None:
        """Raise UserError if settings contradict each other."""
        self.merge.check(self.models, many_images=False)
        if self.test_csv is not None and self.image_dir is None:
            raise UserError("--test_csv needs --image_dir: add it")
        of_graph = {
            "--image_dir": self.image_dir is not None,
            "--input float": self.input != "uint8",
            "--any_size": self.any_size,
            "--classes": self.merge.classes != "same",
        }
        given = [name for name, there in of_graph.items() if there]
        if self.format == "folder" and given:
            raise UserError(f"{given[0]} needs --format onnx: leave it out")
