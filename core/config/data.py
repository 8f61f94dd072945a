"""Settings that say where images and labels are; without torch, as all settings."""

import csv
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from core.config.values import check_values
from core.errors import UserError, suggest_name

Uncertain = Literal["ignore", "zero", "one"]
Blank = Literal["unknown", "zero"]


@dataclass(kw_only=True, slots=True)
class LabelReading:
    """How a table of labels is read."""

    source: tuple[str, ...] = ()
    """What kind of table each CSV of labels is; recognised by its columns when not given."""
    official_split: Literal["all", "train", "test"] = "all"
    """Of a source that names official test images: take all, leave these out, or take them
    alone."""
    views: Literal["all", "frontal", "lateral"] = "all"
    """Take images of these views only."""
    readers: Literal["majority", "any"] = "majority"
    """Where several readers labelled an image: positive for most of them, or for any of them."""
    label_map: Path | None = None
    """CSV of label,means that renames labels, over the map that joins those of known sources."""
    image_column: str = ""
    """Column that names the image; found by its usual names when not given."""
    patient_column: str = ""
    """Column that names the patient; "none" to split or draw by image on purpose."""
    study_column: str = ""
    """Column that names the study (counted in the first lines of a run)."""
    view_column: str = ""
    """Column that names the view, PA, AP, ...; found by its usual names when not given."""
    uncertain: Uncertain = "ignore"
    """What a label of -1 means: unknown and left out of loss and metrics, 0, or 1."""
    blank: Blank | None = None
    """What a blank label means: unknown, but asked where a label is more than half blank. CheXpert
    and MIMIC-CXR say so themselves (zero): over that only where it is the one CSV."""

    def __post_init__(self) -> None:
        # a script may give one text, or None
        if not isinstance(self.source, tuple | list):
            self.source = (self.source,) if self.source else ()
        for name in ("image_column", "patient_column", "study_column", "view_column"):
            setattr(self, name, getattr(self, name) or "")
        check_values(self)

    def of_csv(self, place: int) -> "LabelReading":
        """How one of several CSVs is read."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(LabelReading)}
        for name in OF_EACH:
            if isinstance(given := values[name], tuple | list):
                values[name] = given[place if len(given) > 1 else 0]
        return LabelReading(**values | {"source": self.source[place : place + 1]})

    def change(self, **fields_: Any) -> Self:
        """A copy with other values. Raises UserError for a name that is no field, or a value."""
        names = [one.name for one in fields(self)]
        for name in fields_:
            if name not in names:
                raise UserError(f"a LabelReading has no '{name}'{suggest_name(name, names)}")
        return replace(self, **fields_)


# settings that several CSVs may share, or have one each
OF_EACH = ("image_column", "patient_column", "study_column", "view_column", "uncertain", "blank")


@dataclass(kw_only=True, slots=True)
class SourcesReading(LabelReading):
    """How the tables of one or several sources are read."""

    # `of_csv` gives the one value of each
    image_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the image; found by its usual names when not given. This and the
    following: one for all --train_csv, or one each."""
    patient_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the patient; "none" to split by image on purpose."""
    study_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the study (counted in the first lines of a run)."""
    view_column: str | tuple[str, ...] = ""  # type: ignore[assignment]
    """Column that names the view, PA, AP, ...; found by its usual names when not given."""
    uncertain: Uncertain | tuple[Uncertain, ...] = "ignore"  # type: ignore[assignment]
    """What a label of -1 means: unknown and left out of loss and metrics, 0, or 1."""
    blank: Blank | tuple[Blank, ...] | None = None  # type: ignore[assignment]
    """What a blank label means: unknown, but asked where a label is more than half blank. CheXpert
    and MIMIC-CXR say so themselves (zero): over that only where it is the one CSV, or given for
    it."""

    def check_lengths(self, csvs: int) -> None:
        """Raise UserError where a setting has several values, and not one for each CSV."""
        for name in OF_EACH:
            given = getattr(self, name)
            if isinstance(given, tuple | list) and len(given) not in (1, csvs):
                raise UserError(
                    f"--{name} has {len(given)} of them and --train_csv {csvs}: give one for each "
                    "--train_csv, or one for all"
                )


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where the images and their labels are, and how to read them."""

    train_csv: tuple[Path, ...] = (Path("data/train.csv"),)
    """CSV with one row an image: image, patient, one column a label (1, 0, -1 or blank), or a known
    source's own table. Several are joined: their labels united, their patients kept apart."""
    train_dir: tuple[Path, ...] = (Path("data/images"),)
    """Folder of the images, searched with its sub-folders, or a pack of them (python -m
    core.data.pack); one for each --train_csv."""
    val_csv: tuple[Path, ...] = ()
    """Official validation CSV (images in --train_dir), one for each --train_csv: replaces the folds
    by this one split."""
    labels: str = ""
    """Label columns in the order wanted, 'A,B,"C, with a comma"'; empty: detect them."""
    anonymous: bool = False
    """Name images and patients by number in all that the run folder holds, and no paths in report
    and checkpoints; config.json and env.json keep those, to go on by."""
    reading: SourcesReading = field(default_factory=lambda: SourcesReading(official_split="train"))
    """How the CSVs are read."""

    def check(self) -> None:
        """Raise UserError where labels are named twice, or lists do not belong together."""
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
                    f"--{name} has {len(given)} of them and --train_csv {count}: give one for "
                    f"each --train_csv, or {'one for all' if otherwise else 'none'}"
                )

    @property
    def label_names(self) -> list[str] | None:
        """The names given by --labels, in order; None to detect them."""
        try:
            cells = next(csv.reader([self.labels], skipinitialspace=True), [])
        except csv.Error as error:
            raise UserError(f"--labels {self.labels} cannot be read: {error}") from error
        return [name for cell in cells if (name := cell.strip())] or None
