"""Map of labels between sources: a CSV of `label,means`, the user's over ours.

Ours, label_map.csv, joins the vocabularies of NIH ChestX-ray14, CheXpert, MIMIC-CXR-JPG, CXR-LT,
PadChest and VinDr-CXR where two names mean one finding. A part of another finding (a hiatal hernia
and Hernia) is none of these: joined, its absence would be taken for the absence of all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.data.csv.columns import read_columns
from core.data.csv.labels import check_printable
from core.errors import UserError, list_first, normalize_name

OURS = Path(__file__).with_name("label_map.csv")
# each row is followed to its end
MOST_ROWS, MOST_STEPS = 10_000, 20


@dataclass(frozen=True)
class LabelMap:
    """Which label means which other one. Case and punctuation do not matter."""

    steps: Mapping[str, str]
    """From a label, as `core.errors.normalize_name` gives it, to the label of its row's `means`."""
    given: tuple[str, ...] = ()
    """The labels of the user's own rows."""

    def way(self, label: str) -> list[str]:
        """From `label` on by `steps`, to a label without a step, to itself, or back on the way.

        Raises UserError where that is far.
        """
        way = [label]
        while (following := self.steps.get(normalize_name(way[-1]))) is not None:
            if normalize_name(following) in map(normalize_name, way):
                break
            if len(way) > MOST_STEPS:
                raise UserError(
                    f"the label map leads from '{label}' on over more than {MOST_STEPS} rows: say "
                    "at once what it means"
                )
            way.append(following)
        return way

    def meaning(self, label: str) -> str:
        """What the label means in the end, as the map writes it."""
        end = self.way(label)[-1]
        return self._spellings.get(normalize_name(end), end)

    def circle(self, label: str) -> list[str]:
        """The way from `label` back to a label on it, if it comes back; a label may mean itself."""
        way = self.way(label)
        back = self.steps.get(normalize_name(way[-1]))
        return (
            [] if back is None or normalize_name(back) == normalize_name(way[-1]) else [*way, back]
        )

    def unused(self, labels: Iterable[str]) -> list[str]:
        """The labels of the user's rows by which none of `labels` is renamed."""
        used = {normalize_name(step) for label in labels for step in self.way(label)}
        return [name for name in self.given if normalize_name(name) not in used]

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {normalize_name(name): name for name in reversed([*self.steps.values()])}


def read_label_map(path: Path | None) -> LabelMap:
    """The map for known sources, with the rows of the CSV at `path` over it.

    Rows are followed from one to the next. A row whose label is its own meaning keeps that label.
    Where a row of the user's turns one of ours round, ours falls away. Raises UserError for a file
    that is no such map, a label with two meanings, and labels that mean each other in a circle.
    """
    ours = _read(OURS).steps
    if path is None:
        return LabelMap(ours)
    if not path.is_file():
        raise UserError(f"--label_map {path} is no file: give a CSV with the columns label,means")
    theirs = _read(path)
    for circle in filter(None, map(theirs.circle, theirs.given)):
        raise UserError(
            f"--label_map {path} goes in a circle: {' means '.join(circle)}; take a row out"
        )
    steps = {**ours, **theirs.steps}
    joint = LabelMap(steps, theirs.given)
    for label in theirs.given:
        if joint.circle(label):
            # where the user's own rows end is where the way is to end
            steps.pop(normalize_name(theirs.way(label)[-1]), None)
    return joint


def _read(path: Path) -> LabelMap:
    columns = read_columns(path)
    found = [
        [c for name, c in columns.items() if normalize_name(name) == n] for n in ("label", "means")
    ]
    if [len(one) for one in found] != [1, 1]:
        raise UserError(
            f"{path} needs the columns label,means, and has {list_first(list(columns), 12)}"
        )
    (labels,), (meanings,) = found
    if (rows := len(labels.codes)) > MOST_ROWS:
        raise UserError(
            f"{path} has {rows:,} rows, and a label map at most {MOST_ROWS:,}: leave some out"
        )
    for column in (labels, meanings):
        for value in column.values:
            if not normalize_name(value):
                raise UserError(f"{column.place(value)} names no label in column '{column.name}'")
            check_printable(path, value)
    steps: dict[str, str] = {}
    for label, meaning in zip(labels.cells, meanings.cells, strict=True):
        other = steps.setdefault(normalize_name(label), meaning)
        if normalize_name(other) != normalize_name(meaning):
            raise UserError(
                f"{path} gives '{label}' two meanings, '{other}' and '{meaning}': keep one"
            )
    return LabelMap(steps, tuple(labels.values))
