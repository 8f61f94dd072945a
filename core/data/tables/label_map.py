"""Label map between sources: a CSV of `label,means`; the user's rows override the built-in ones.

The built-in label_map.csv merges names of the same finding in NIH ChestX-ray14, CheXpert,
MIMIC-CXR-JPG, CXR-LT, PadChest and VinDr-CXR. It does not merge a finding with a more specific one
(Hernia with hiatal hernia): a negative of the specific one is not a negative of the general one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.data.csv.columns import read_columns
from core.data.csv.labels import check_printable
from core.errors import UserError, list_first, normalize_name

BUILT_IN = Path(__file__).with_name("label_map.csv")
# every row is resolved, step by step
MOST_ROWS, MOST_STEPS = 10_000, 20


@dataclass(frozen=True)
class LabelMap:
    """Mapping of labels to their meaning. Case and punctuation do not matter."""

    steps: Mapping[str, str]
    """From a label, normalized by `core.errors.normalize_name`, to the `means` of its row."""
    user_labels: tuple[str, ...] = ()
    """Labels of the user's rows."""

    def resolve(self, label: str) -> list[str]:
        """Labels from `label` to its final meaning; a cycle ends before its first repetition.

        Raises UserError for more than MOST_STEPS steps.
        """
        chain = [label]
        while (following := self.steps.get(normalize_name(chain[-1]))) is not None:
            if normalize_name(following) in map(normalize_name, chain):
                break
            if len(chain) > MOST_STEPS:
                raise UserError(
                    f"the label map needs more than {MOST_STEPS} rows to resolve '{label}': map it "
                    "directly to its meaning"
                )
            chain.append(following)
        return chain

    def meaning(self, label: str) -> str:
        """Final meaning of a label, in the map's spelling. Raises UserError as `resolve` does."""
        end = self.resolve(label)[-1]
        return self._spellings.get(normalize_name(end), end)

    def find_cycle(self, label: str) -> list[str]:
        """Labels of the cycle that `label` leads into; empty if none. A label may mean itself."""
        chain = self.resolve(label)
        back = self.steps.get(normalize_name(chain[-1]))
        return (
            []
            if back is None or normalize_name(back) == normalize_name(chain[-1])
            else [*chain, back]
        )

    def unused(self, labels: Iterable[str]) -> list[str]:
        """Labels of the user's rows that rename none of `labels`."""
        used = {normalize_name(step) for label in labels for step in self.resolve(label)}
        return [name for name in self.user_labels if normalize_name(name) not in used]

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {normalize_name(name): name for name in reversed([*self.steps.values()])}


def read_label_map(path: Path | None) -> LabelMap:
    """Read the built-in map, overridden by the rows of the CSV at `path`.

    Rows are chained. A row that maps a label to itself keeps that label. If a user's row is the
    reverse of a built-in one, the built-in one is dropped. Raises UserError for an invalid file, a
    label with two meanings, and cycles.
    """
    built_in = _read(BUILT_IN).steps
    if path is None:
        return LabelMap(built_in)
    if not path.is_file():
        raise UserError(
            f"--label_map {path} is not a file: give a CSV with the columns label,means"
        )
    user = _read(path)
    for cycle in filter(None, map(user.find_cycle, user.user_labels)):
        raise UserError(
            f"--label_map {path} has a cycle: {' means '.join(cycle)}; remove one of these rows"
        )
    steps = {**built_in, **user.steps}
    merged = LabelMap(steps, user.user_labels)
    for label in user.user_labels:
        if merged.find_cycle(label):
            # the last of the user's rows has the final meaning
            steps.pop(normalize_name(user.resolve(label)[-1]), None)
    return merged


def _read(path: Path) -> LabelMap:
    columns = read_columns(path)
    found = [
        [c for name, c in columns.items() if normalize_name(name) == n] for n in ("label", "means")
    ]
    if [len(one) for one in found] != [1, 1]:
        raise UserError(
            f"{path} needs the columns label,means; it has {list_first(list(columns), 12)}"
        )
    (labels,), (meanings,) = found
    if (rows := len(labels.codes)) > MOST_ROWS:
        raise UserError(
            f"{path} has {rows:,} rows; a label map has at most {MOST_ROWS:,}: remove some"
        )
    for column in (labels, meanings):
        for value in column.values:
            if not normalize_name(value):
                raise UserError(f"{column.place(value)} has no label in column '{column.name}'")
            check_printable(path, value)
    steps: dict[str, str] = {}
    for label, meaning in zip(labels.cells, meanings.cells, strict=True):
        other = steps.setdefault(normalize_name(label), meaning)
        if normalize_name(other) != normalize_name(meaning):
            raise UserError(
                f"{path} gives '{label}' two meanings, '{other}' and '{meaning}': keep one"
            )
    return LabelMap(steps, tuple(labels.values))
