"""The settings of `python -m ensemble.evaluate`, and what contradicts itself among them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from core.config.data import LabelReading
from core.config.values import Count
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class Config:
    """Score predictions."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Run folders: their out-of-fold predictions are scored; several give a leaderboard."""
    predictions: tuple[Path, ...] = ()
    """CSVs of probabilities, as ensemble.infer writes them, or run folders; several give a
    leaderboard."""
    labels: Path | None = None
    """CSV of the labels: one row an image (or study), one column a class (1, 0, -1 or blank), or a
    known source's own table. Those of a run folder, or of ensemble.choose, are found beside
    --predictions unless given."""
    train_csv: Path | None = None
    """CSV of the training labels, whose prevalences divide classes into head (> 10 %), medium and
    tail (< 1 %); the scored labels themselves unless given."""
    against: Path | None = None
    """CSV of probabilities to take paired differences to; a leaderboard takes them to the first of
    --predictions unless given."""
    by: tuple[str, ...] = ()
    """Subgroups: sex, view, age, or any column of --labels or --meta by its name."""
    meta: Path | None = None
    """CSV of more columns for --by, joined by the images' names."""
    thresholds: str = ""
    """Operating points at this threshold, or at those of a calibration.json of
    ensemble.calibrate."""
    gated: bool = False
    """Take the calibration's thresholds for probabilities after normal gating."""
    sensitivity: float | None = None
    """Operating points at each class's highest threshold that reaches this sensitivity."""
    specificity: float | None = None
    """Operating points at each class's lowest threshold that reaches this specificity."""
    common: bool = False
    """Score the images and classes that all files have; differences are an error otherwise."""
    reading: LabelReading = field(default_factory=LabelReading)
    """How --labels is read; of these the label map, readers, uncertain and blank labels count for
    --train_csv too."""
    resamples: Count = 1000
    """Jackknife resamples, each without a part of the patients, by which the bias of AP is
    estimated; 0 leaves out the 95 % intervals."""
    seed: Count = 0
    """Seed of the division into these parts."""
    anonymous: bool = False
    """Write no names of images, and those of files without their folders."""
    report: bool = False
    """Write OUTPUT.html too: a page with pictures, and the files beside each other."""
    image_dir: Path | None = None
    """Folder of the images, or a pack of them: the report then shows the worst misses and false
    alarms of one file as small pictures."""
    output: Path | None = None
    """Writes OUTPUT.json and OUTPUT.csv. Unless given, the first of --predictions plus "_metrics",
    of several "_leaderboard"; of a run folder in outputs."""
    overwrite: bool = False
    """Replace what an earlier call wrote there."""

    def told(self, path: Path) -> str:
        """What is written of a file's path."""
        return path.name if self.anonymous else str(path)


def check(config: Config) -> None:
    """Raise UserError for what is missing, and for flags that contradict each other."""
    several = len(config.predictions) > 1
    reaching = (config.sensitivity is not None) + (config.specificity is not None)
    points = bool(config.thresholds) + reaching
    view, images = config.reading.view_column, config.image_dir is not None
    for wrong, message in (
        (
            not config.predictions,
            "no predictions are given: name a run folder, or their CSV with --predictions",
        ),
        (
            points > 1,
            "--thresholds, --sensitivity and --specificity contradict each other: give one",
        ),
        (
            several and (points or config.by),
            "--by and operating points are of one file: give one of --predictions",
        ),
        (
            config.gated and not config.thresholds,
            "--gated chooses among the --thresholds of a calibration.json: give it",
        ),
        (
            config.meta is not None and not config.by,
            "--meta has columns for --by: name those that divide the images",
        ),
        (
            view and "view" not in config.by and config.reading.views == "all",
            "--view_column says what --by view means: add that, or leave it out",
        ),
        (
            not several and config.against in config.predictions,
            f"--against {config.against} is the file itself: name another one",
        ),
        (
            images and not config.report,
            "--image_dir has the images that a page shows: add --report, or leave it out",
        ),
        (images and config.anonymous, "--anonymous shows no images: leave --image_dir out"),
        (
            images and several,
            "--image_dir shows the worst cases of one file: give one of --predictions",
        ),
    ):
        if wrong:
            raise UserError(message)
