"""Settings of `python -m ensemble.evaluate`, and their checks."""

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
    """Run folders: out-of-fold predictions are scored; several give a leaderboard."""
    predictions: tuple[Path, ...] = ()
    """CSVs of probabilities from ensemble.infer, or run folders; several give a leaderboard."""
    labels: Path | None = None
    """CSV of the labels: one row an image (or study), one column a class (1, 0, -1 or blank), or
    the table of a known source. By default the labels in the run folder or beside the predictions
    of ensemble.choose."""
    train_csv: Path | None = None
    """CSV of the training labels. Their prevalences divide classes into head (> 10 %), medium and
    tail (< 1 %); by default those of the scored labels."""
    against: Path | None = None
    """CSV of probabilities for paired differences; a leaderboard uses the first of --predictions by
    default."""
    by: tuple[str, ...] = ()
    """Subgroups: sex, view, age, or any column of --labels or --meta."""
    meta: Path | None = None
    """CSV with more columns for --by, joined by image name."""
    thresholds: str = ""
    """Operating points at this threshold, or at those of a calibration.json of
    ensemble.calibrate."""
    gated: bool = False
    """Use the calibration's thresholds for probabilities after normal gating."""
    sensitivity: float | None = None
    """Operating points at each class's highest threshold that reaches this sensitivity."""
    specificity: float | None = None
    """Operating points at each class's lowest threshold that reaches this specificity."""
    common: bool = False
    """Score the images and classes that all files have; by default differences are an error."""
    reading: LabelReading = field(default_factory=LabelReading)
    """Reading of --labels; the label map, readers, uncertain and blank labels also apply to
    --train_csv."""
    resamples: Count = 1000
    """Jackknife resamples for the bias of AP, each without a part of the patients; 0 leaves out the
    95 % intervals."""
    seed: Count = 0
    """Seed of the division of patients into these parts."""
    anonymous: bool = False
    """Write no image names, and file names without folders."""
    report: bool = False
    """Also write OUTPUT.html: a page with pictures and a comparison of the files."""
    image_dir: Path | None = None
    """Folder of the images, or a pack: the report of one file shows its worst misses and false
    alarms as small pictures."""
    output: Path | None = None
    """Start of the outputs' names, OUTPUT.json and OUTPUT.csv. By default the first of
    --predictions plus "_metrics", for several "_leaderboard"; in outputs for a run folder."""
    overwrite: bool = False
    """Replace earlier outputs."""

    def shown_path(self, path: Path) -> str:
        """Path as written to the outputs: only the file name with --anonymous."""
        return path.name if self.anonymous else str(path)


def check(config: Config) -> None:
    """Raise UserError for missing or contradictory flags."""
    several = len(config.predictions) > 1
    reaching = (config.sensitivity is not None) + (config.specificity is not None)
    points = bool(config.thresholds) + reaching
    view, images = config.reading.view_column, config.image_dir is not None
    for wrong, message in (
        (
            not config.predictions,
            "no predictions are given: give a run folder, or a CSV with --predictions",
        ),
        (
            points > 1,
            "--thresholds, --sensitivity and --specificity contradict each other: give one",
        ),
        (
            several and (points or config.by),
            "--by and operating points need a single file: give one of --predictions",
        ),
        (
            config.gated and not config.thresholds,
            "--gated needs the --thresholds of a calibration.json: add them",
        ),
        (
            config.meta is not None and not config.by,
            "--meta needs --by: give the columns that divide the images",
        ),
        (
            view and "view" not in config.by and config.reading.views == "all",
            "--view_column is the column of --by view: add --by view, or leave it out",
        ),
        (
            not several and config.against in config.predictions,
            f"--against {config.against} is the scored file itself: give another one",
        ),
        (
            images and not config.report,
            "--image_dir has the images of the report: add --report, or leave it out",
        ),
        (images and config.anonymous, "--anonymous shows no images: leave out --image_dir"),
        (
            images and several,
            "--image_dir needs a single file: give one of --predictions",
        ),
    ):
        if wrong:
            raise UserError(message)
