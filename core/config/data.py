"""Settings of data: images, labels and how to read them; without torch, as all settings."""

import csv
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from core.config.values import check_values
from core.errors import UserError, pluralize, suggest_name

Uncertain = Literal["ignore", "zero", "one"]
Blank = Literal["unknown", "zero"]


@dataclass(kw_only=True, slots=True)
class LabelReading:
    """How a table of labels is read."""

    source: tuple[str, ...] = ()
    """Format of each CSV of labels; recognised by its columns when not given."""
    official_split: Literal["all", "train", "test"] = "all"
    """For sources with official test images: use all images, all but these, or only these."""
    views: Literal["all", "frontal", "lateral"] = "all"
    """Use images of these views only."""
    readers: Literal["majority", "any"] = "majority"
    """Where several readers labelled an image: positive for most of them, or for any of them."""
    label_map: Path | None = None
    """CSV with the columns label,means that renames labels, over the built-in map."""
    image_column: str = ""
    """Column that names the image; found by its usual names when not given."""
    patient_column: str = ""
    """Column that names the patient; "none" to split or resample by image."""
    study_column: str = ""
    """Column that names the study (counted in the first lines of a run)."""
    view_column: str = ""
    """Column that names the view, PA, AP, ...; found by its usual names when not given."""
    uncertain: Uncertain = "ignore"
    """What a label of -1 means: unknown and left out of loss and metrics, 0, or 1."""
    blank: Blank | None = None
    """Meaning of a blank label. Default: unknown, but an error where more than half of a label is
    blank; zero for CheXpert and MIMIC-CXR, which this overrides only for a single CSV."""

    def __post_init__(self) -> None:
        # a script may pass one text, or None
        if not isinstance(self.source, tuple | list):
            self.source = (self.source,) if self.source else ()
        for name in ("image_column", "patient_column", "study_column", "view_column"):
            setattr(self, name, getattr(self, name) or "")
        check_values(self)

    def of_csv(self, place: int) -> "LabelReading":
        """The settings of the CSV at `place` (from 0) of several."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(LabelReading)}
        for name in OF_EACH:
            if isinstance(given := values[name], tuple | list):
                values[name] = given[place if len(given) > 1 else 0]
        return LabelReading(**values | {"source": self.source[place : place + 1]})

    def change(self, **fields_: Any) -> Self:
        """A copy with other values. Raises UserError for an unknown name or invalid value."""
        names = [one.name for one in fields(self)]
        for name in fields_:
            if name not in names:
                raise UserError(f"a LabelReading has no '{name}'{suggest_name(name, names)}")
        return replace(self, **fields_)


# settings with one value for all CSVs, or one for each
OF_EACH = ("image_column", "patient_column", "study_column", "view_column", "uncertain", "blank")


@dataclass(kw_only=True, slots=True)
class SourcesReading(LabelReading):
    """How the tables of one or several sources are read."""

    # `of_csv` selects the value of each CSV
    image_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the image; found by its usual names when not given. This and the following
    settings: one value for all --train_csv, or one for each."""
    patient_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the patient; "none" to split by image."""
    study_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the study (counted in the first lines of a run)."""
    view_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the view, PA, AP, ...; found by its usual names when not given."""
    uncertain: Uncertain | tuple[Uncertain, ...] = "ignore"  # type: ignore[assignment]
    """What a label of -1 means: unknown and left out of loss and metrics, 0, or 1."""
    blank: Blank | tuple[Blank, ...] | None = None  # type: ignore[assignment]
    """Meaning of a blank label. Default: unknown, but an error where more than half of a label is
    blank; zero for CheXpert and MIMIC-CXR, which this overrides only for a single CSV or with one
    value for each CSV."""

    def check_lengths(self, csvs: int) -> None:
        """Raise UserError if a setting has several values, but not one for each CSV."""
        for name in OF_EACH:
            given = getattr(self, name)
            if isinstance(given, tuple | list) and len(given) not in (1, csvs):
                raise UserError(
                    f"--{name} has {pluralize(len(given), 'value')} and --train_csv {csvs}: give "
                    "one for each --train_csv, or one for all"
                )


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Paths of images and labels, and how to read them."""

    train_csv: tuple[Path, ...] = (Path("data/train.csv"),)
    """CSV with one row an image: image, patient, one column a label (1, 0, -1 or blank), or the
    table of a known source. Several are merged: union of the labels, separate patients."""
    train_dir: tuple[Path, ...] = (Path("data/images"),)
    """Folder of the images (searched with its sub-folders), or a pack (python -m core.data.pack);
    one for each --train_csv."""
    val_csv: tuple[Path, ...] = ()
    """Official validation CSV (images in --train_dir), one for each --train_csv; replaces the folds
    by this single split."""
    labels: str = ""
    """Label columns in this order, 'A,B,"C, with a comma"'; detected when empty."""
    soft_labels: bool = False
    """Allow targets between 0 and 1 in --train_csv, such as pseudo-labels. A cell of 1 or 0 is a
    hard label; validation and scores use these alone."""
    anonymous: bool = False
    """Replace names of images and patients by numbers in the run folder, and omit paths from report
    and checkpoints; config.json and env.json keep the paths for a resume."""
    reading: SourcesReading = field(default_factory=lambda: SourcesReading(official_split="train"))
    """Settings for reading the CSVs."""

    def check(self) -> None:
        """Raise UserError if a label is repeated, or lists differ in length."""
        names = self.label_names
        if names is not None and len(set(names)) < len(names):
            raise UserError(f"--labels names a label twice: {self.labels}")
        count = len(self.train_csv)
        if not count:
            raise UserError("--train_csv names no file: give one, or leave it out")
        self.reading.check_lengths(count)
        for name, given, otherwise in (
            ("train_dir", self.train_dir, 1),
            ("val_csv", self.val_csv, 0),
            ("source", self.reading.source, 0),
        ):
            if len(given) not in (count, otherwise):
                raise UserError(
                    f"--{name} has {pluralize(len(given), 'value')} and --train_csv {count}: give "
                    f"one for each --train_csv, or {'one for all' if otherwise else 'none'}"
                )

    @property
    def label_names(self) -> list[str] | None:
        """The names in --labels, in order; None to detect them."""
        try:
            cells = next(csv.reader([self.labels], skipinitialspace=True), [])
        except csv.Error as error:
            raise UserError(f"--labels {self.labels} cannot be read: {error}") from error
        return [name for cell in cells if (name := cell.strip())] or None
