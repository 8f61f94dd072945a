"""The settings of `python -m ensemble.evaluate`, and what contradicts itself among them."""

from dataclasses import dataclass, field
from pathlib import Path

from core.config.data import LabelReading
from core.config.values import Count
from core.errors import UserError


@dataclass(kw_only=True, slots=True)
class Config:
    """Score predictions."""

    predictions: tuple[Path, ...] = ()
    """CSVs of probabilities, as ensemble.infer writes them; several give a leaderboard."""
    labels: Path | None = None
    """CSV of the labels: one row an image (or study), one column a class (1, 0, -1 or blank), or a
    known source's own table. Those of a run folder, or of ensemble.choose, are found beside
    --predictions unless given."""
    train_csv: Path | None = None
    """CSV of the training labels, whose prevalences divide classes into head, medium and tail; the
    scored labels themselves unless given."""
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
    common: bool = False
    """Score the images and classes that all files have; differences are an error otherwise."""
    reading: LabelReading = field(default_factory=LabelReading)
    """How --labels is read; of these the label map, readers, uncertain and blank labels count for
    --train_csv too."""
    resamples: Count = 1000
    """Bootstrap resamples of patients for the 95 % intervals; 0 leaves them out."""
    seed: Count = 0
    """Seed of the resamples."""
    anonymous: bool = False
    """Write no names of images, and those of files without their folders."""
    report: bool = False
    """Write OUTPUT.html too: a page with pictures, and the files beside each other."""
    image_dir: Path | None = None
    """Folder of the images, or a pack of them: the report then shows the worst misses and false
    alarms of one file as small pictures."""
    output: Path | None = None
    """Writes OUTPUT.json and OUTPUT.csv; the first of --predictions plus "_metrics" unless
    given."""
    overwrite: bool = False
    """Replace files there that are no earlier evaluation."""

    def told(self, path: Path) -> str:
        """What is written of a file's path."""
        return path.name if self.anonymous else str(path)


def check(config: Config) -> None:
    """Raise UserError for what is missing, and for flags that contradict each other."""
    if not config.predictions:
        raise UserError("no predictions are given: name their CSV with --predictions")
    points = bool(config.thresholds) + (config.sensitivity is not None)
    if points > 1:
        raise UserError("--thresholds and --sensitivity contradict each other: give one")
    if len(config.predictions) > 1 and (points or config.by):
        raise UserError(
            "--by, --thresholds and --sensitivity are of one file: give one of --predictions"
        )
    if config.gated and not config.thresholds:
        raise UserError("--gated chooses among the --thresholds of a calibration.json: give it")
    if config.meta is not None and not config.by:
        raise UserError("--meta has columns for --by: name those that divide the images")
    if config.reading.view_column and "view" not in config.by and config.reading.views == "all":
        raise UserError("--view_column says what --by view means: add that, or leave it out")
    if config.against in config.predictions and len(config.predictions) == 1:
        raise UserError(f"--against {config.against} is the file itself: name another one")
    if config.image_dir is not None:
        _check_pictures(config)


def _check_pictures(config: Config) -> None:
    """Raise UserError where the images of --image_dir would not be shown."""
    if not config.report:
        raise UserError(
            "--image_dir has the images that a page shows: add --report, or leave it out"
        )
    if config.anonymous:
        raise UserError("--anonymous shows no images: leave --image_dir out")
    if len(config.predictions) > 1:
        raise UserError("--image_dir shows the worst cases of one file: give one of --predictions")
