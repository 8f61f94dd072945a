"""What labels of other sources are called here: a CSV of `label,means`, the user's over ours.

Ours, label_map.csv, joins the vocabularies of NIH ChestX-ray14, CheXpert, MIMIC-CXR-JPG, CXR-LT,
PadChest and VinDr-CXR where two names mean one finding. A finding that is part of another (a hiatal
hernia and Hernia, a pulmonary mass and Mass) is none of these: joined, its absence would be taken
for the absence of all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.data.csv.columns import Column, read_columns
from core.data.csv.labels import check_printable
from core.errors import UserError, plain, some

OURS = Path(__file__).with_name("label_map.csv")
# each row is followed to its end
MOST_ROWS, MOST_STEPS = 10_000, 20


@dataclass(frozen=True)
class LabelMap:
    """Which label means which other one. Case and punctuation do not matter."""

    steps: Mapping[str, str]
    """From a label, as `core.errors.plain` gives it, to the label of its row's `means`."""
    given: tuple[str, ...]
    """The labels of the user's own rows."""

    def way(self, label: str) -> list[str]:
        """The label and those that it means, one after another; the last one is its meaning."""
        return _way(self.steps, label)

    def spelling(self, label: str) -> str | None:
        """How a meaning is written in the map; None where no row has it as one."""
        wanted = plain(label)
        return next((name for name in self.steps.values() if plain(name) == wanted), None)

    def idle(self, labels: Iterable[str]) -> list[str]:
        """The labels of the user's rows by which none of `labels` is renamed."""
        used = {plain(step) for label in labels for step in self.way(label)}
        return [name for name in self.given if plain(name) not in used]


def read_label_map(path: Path | None) -> LabelMap:
    """The map for known sources, with the rows of the CSV at `path` over it.

    Rows are followed from one to the next. A row whose label is its own meaning keeps that label
    as it is. Where a row of the user's turns one of ours round, ours falls away. Raises UserError
    where there is no such file, for a CSV without the columns label and means, a blank cell, a
    label with two meanings, and labels that mean each other in a circle.
    """
    _, ours = _read(OURS)
    if path is None:
        return LabelMap(ours, ())
    if not path.is_file():
        raise UserError(f"--label_map {path} is no file: give a CSV with the columns label,means")
    labels, theirs = _read(path)
    circles = [circle for label in labels if (circle := _circle(theirs, label))]
    if circles:
        raise UserError(
            f"--label_map {path} goes in a circle: {' means '.join(circles[0])}; take one of these "
            "rows out"
        )
    steps = {**ours, **theirs}
    for label in labels:
        if _circle(steps, label):
            # where the user's own rows end is where the way is to end
            steps.pop(plain(_way(theirs, label)[-1]), None)
    return LabelMap(steps, labels)


def _read(path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The labels of a map's CSV, and from each, made plain, to what it means."""
    columns = read_columns(path)
    labels, meanings = _column(path, columns, "label"), _column(path, columns, "means")
    if len(labels.codes) > MOST_ROWS:
        raise UserError(
            f"{path} has {len(labels.codes):,} rows, and a label map at most {MOST_ROWS:,}: keep "
            "those of labels that your tables have"
        )
    for name, column in (("label", labels), ("means", meanings)):
        blank = next((value for value in column.values if not plain(value)), None)
        if blank is not None:
            raise UserError(
                f"{path}: row {column.row_of(blank)} (the header is row 1) names no label in "
                f"column '{name}'"
            )
        for value in column.values:
            check_printable(path, value)
    steps: dict[str, str] = {}
    for label, meaning in zip(labels.cells, meanings.cells, strict=True):
        other = steps.setdefault(plain(label), meaning)
        if plain(other) != plain(meaning):
            raise UserError(
                f"{path} gives '{label}' two meanings, '{other}' and '{meaning}': keep one"
            )
    return tuple(labels.values), steps


def _column(path: Path, columns: Mapping[str, Column], name: str) -> Column:
    found = [column for title, column in columns.items() if plain(title) == name]
    if len(found) != 1:
        raise UserError(
            f"{path} needs the columns label,means, and has {some(list(columns), 12)}: each row "
            "says which label a label means"
        )
    return found[0]


def _way(steps: Mapping[str, str], label: str) -> list[str]:
    """From `label` on by `steps`, to a label without a step, to itself, or back on the way.

    Raises UserError where that is far.
    """
    way, passed = [label], {plain(label)}
    while (following := steps.get(plain(way[-1]))) is not None:
        if plain(following) in passed:
            break
        if len(way) > MOST_STEPS:
            raise UserError(
                f"the label map leads from '{label}' on over more than {MOST_STEPS} rows: say at "
                "once what it means"
            )
        way.append(following)
        passed.add(plain(following))
    return way


def _circle(steps: Mapping[str, str], label: str) -> list[str]:
    """The way from `label` back to a label on it, if it comes back; a label may mean itself."""
    way = _way(steps, label)
    back = steps.get(plain(way[-1]))
    if back is None or plain(back) == plain(way[-1]):
        return []
    return [*way, back]
