"""Detection of label columns, and conversion of their cells to 1, 0 and unknown."""

from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import numpy as np

from core.data.csv.columns import Column
from core.data.csv.label_values import (
    SOFT_RANGE,
    is_missing,
    is_probability,
    label_key,
    label_value,
)
from core.data.csv.non_labels import is_known_non_label
from core.errors import UserError, escape_control, list_first, suggest_name

UNCERTAIN = {"ignore": np.nan, "zero": 0.0, "one": 1.0}
BLANK = {"unknown": np.nan, "zero": 0.0}
# minimum share of images with a soft label, among those with any, in a table of soft labels alone
SOFT_ALONE = 0.9
# minimum share of label values among the filled cells of a column that looks like a label
LOOKS_LIKE_LABEL = 0.5
# pairs of answers that look like labels but are rejected, because F is also a sex
ANSWERS = (
    *({"y", "n"}, {"t", "f"}, {"+", "-"}, {"pos", "neg"}),
    *({"positive", "negative"}, {"present", "absent"}, {"wahr", "falsch"}, {"vrai", "faux"}),
    *({"verdadero", "falso"}, {"ja", "nein"}, {"oui", "non"}, {"si"}, {"s\u00ed"}, {"x"}),
    *({".true.", ".false."}, {"on", "off"}, {"abnormal", "normal"}, {"[1]", "[0]"}, {"'1", "'0"}),
    *({'="1"', '="0"'}, {"100%", "0%"}),
)
UNSURE = {"u", "?", "uncertain", "unsure", "unknown", "possible", "equivocal", "unclear", "unklar"}


def choose_labels(
    path: Path,
    columns: dict[str, Column],
    used: set[str],
    labels: Sequence[str] | None,
    *,
    soft: bool = False,
) -> tuple[tuple[str, ...], list[str]]:
    """Requested labels, checked, or the detected ones; and notes on other columns.

    `soft`: numbers between 0 and 1 are labels too. Raises UserError for an invalid request, and for
    a column in which most but not all cells are labels.
    """
    labels, notes = _detect_labels(path, columns, used, soft) if labels is None else (labels, [])
    if not labels:
        raise UserError("--labels is empty: name at least one column, or leave it out.")
    for name in labels:
        if name not in columns:
            has_comma = any("," in column for column in columns)
            hint = " (put double quotes around a name with a comma)" if has_comma else ""
            raise UserError(
                f"{path} has no label column '{name}'{suggest_name(name, columns)}{hint}."
            )
        if name in used:
            raise UserError(
                f"{path}: column '{name}' is the image, patient, study or view and cannot be a "
                "label. Remove it from --labels."
            )
        check_printable(path, name)
    if twice := [name for name, count in Counter(labels).items() if count > 1]:
        raise UserError(f"--labels names '{twice[0]}' more than once.")
    return tuple(labels), notes


def check_printable(path: Path, label: str) -> None:
    """Raise UserError if a label of the table at `path` has control characters in its name."""
    if escape_control(label) != label:
        raise UserError(
            f"{path}: the name of label '{label}' has a line break or another control character: "
            "rename it."
        )


def add_absent(
    path: Path, columns: dict[str, Column], labels: Sequence[str], listed: Sequence[str]
) -> tuple[dict[str, Column], list[str]]:
    """Add columns of 0 for those of `labels` that no list of the table contains, and notes on them.

    `listed` are the labels of the lists; names are compared by `label_key`. If none of `labels` is
    listed, nothing is added.
    """
    known = {label_key(name): name for name in listed}
    if not any(label_key(name) in known for name in labels):
        return columns, []
    absent = [name for name in labels if name not in columns]
    zeros = np.zeros(len(next(iter(columns.values())).codes), dtype=np.int8)
    added, notes = {}, []
    for name in absent:
        if label_key(name) in known:
            added[name] = columns[known[label_key(name)]]
            continue
        added[name] = Column(name, path, zeros, ["0"])
        notes.append(
            f"Warning: no list of {path} names '{name}', which counts as absent from every image"
            f"{suggest_name(name, listed)}."
        )
    renamed = {known.get(label_key(name)) for name in absent} - {*labels}
    others = {name: column for name, column in columns.items() if name not in renamed}
    return others | added, notes


def is_label(column: Column, *, soft: bool = False) -> bool:
    """Whether a column's cells are labels: 1, 0, -1 and blanks, but not 1 for every image.

    If `soft`, numbers between 0 and 1 are labels too.
    """
    is_readable = all(label_value(text, soft=soft) is not None for text in column.values)
    is_blank = all(map(is_missing, column.values))
    return is_readable and not is_blank and not is_always_positive(column)


def is_always_positive(column: Column) -> bool:
    """Whether a label column has at least two rows, all of them 1."""
    return len(column.codes) > 1 and all(label_value(text) == 1 for text in column.values)


def _detect_labels(
    path: Path, columns: dict[str, Column], used: set[str], soft: bool
) -> tuple[tuple[str, ...], list[str]]:
    rest = {n: c for n, c in columns.items() if n not in used and not is_known_non_label(n)}
    found = tuple(name for name, column in rest.items() if is_label(column, soft=soft))
    others = {name: column for name, column in rest.items() if name not in found}
    for name, column in others.items():
        if (wrong := _wrong_cell(column, soft)) is not None:
            raise UserError(
                f"{_bad_cell(column, wrong, soft)} If '{name}' is not a label, name the label "
                "columns with --labels."
            )
    constant = [name for name, column in others.items() if is_always_positive(column)]
    sentence = (
        f"columns of {path} that are 1 for every image are left out: {list_first(constant, 12)}. "
        "Name them by --labels if they are labels."
    )
    if found:
        return found, [f"Warning: {sentence}"] if constant else []
    lists = [name for name, column in columns.items() if any("|" in v for v in column.values)]
    words = [(c, text) for c in others.values() for text in c.values if label_value(text) is None]
    hint = f" {_bad_cell(*words[0], soft)}" if words else ""
    if lists:
        hint = f" Column '{lists[0]}' has lists of labels: split it, or pass --source nih."
    elif constant:
        hint = f" All {sentence}"
    raise UserError(
        f"{path} has no label column: one column of 1 and 0 for each label is needed.{hint}"
    )


def _wrong_cell(column: Column, soft: bool) -> str | None:
    """First invalid cell of a column that looks like a label; None for any other column."""
    wrong = next((text for text in column.values if label_value(text, soft=soft) is None), None)
    if wrong is None:
        return None
    # faster: values of less than a thousandth of the images do not decide
    common = np.flatnonzero(column.counts * 1000 > len(column.codes))
    if soft:
        # probabilities are rarely equal
        common = np.arange(len(column.values))
    texts = [column.values[place] for place in common.tolist()]
    values, cells = [label_value(text, soft=soft) for text in texts], column.counts[common]
    is_blank = np.array([is_missing(text) for text in texts], dtype=bool)
    is_filled_label = np.array([value is not None for value in values], dtype=bool) & ~is_blank
    share = cells[is_filled_label].sum() / (len(column.codes) - cells[is_blank].sum())
    # -1 alone often means "no mask" or "no score"
    is_mostly_label = share >= LOOKS_LIKE_LABEL and any(
        value is not None and 0 <= value <= 1 for value in values
    )
    # words of one language for present and absent, possibly with unsure; F alone is a sex
    sure = {t.casefold() for t, v in zip(texts, values, strict=True) if v is None} - UNSURE
    are_answers = bool(sure) and sure != {"f"} and any(sure <= pair for pair in ANSWERS)
    # probabilities, labels and blanks, and more than one distinct value
    is_soft = len(column.values) > 1 and all(
        is_probability(text) or label_value(text) is not None for text in column.values
    )
    return wrong if is_mostly_label or are_answers or is_soft else None


def _bad_cell(column: Column, value: str, soft: bool) -> str:
    also = ", or, with --soft_labels, between 0 and 1" if soft else ""
    if is_probability(value):
        also = ", or, for training only, a probability in --train_csv with --soft_labels"
    return f"{column.cell(value)}; a label is 1, 0, -1 (uncertain) or blank{also}."


def _has_soft_alone(columns: Sequence[Column]) -> bool:
    """Whether label columns have soft labels alone: a few rows may have rounded ones (1 and 0)."""
    known = soft = np.zeros(len(columns[0].codes), dtype=bool)
    for column in columns:
        values = column.each(lambda text: label_value(text, soft=True))
        known = known | (values >= 0)
        soft = soft | ((values > 0) & (values < 1))
    return bool(soft.any() and soft.sum() >= SOFT_ALONE * known.sum())


def read_targets(
    path: Path,
    columns: dict[str, Column],
    names: Sequence[str],
    uncertain: str,
    blank: str | None,
    *,
    soft: bool = False,
) -> tuple[np.ndarray, list[str]]:
    """Targets (N, C) float32 with NaN for unknown, and notes on them.

    `soft`: numbers between 0 and 1 are labels too. If SOFT_ALONE of the images with a label have
    one, the table has no hard labels, and its 0 and 1 are clipped to SOFT_RANGE.
    """
    of_blank = BLANK[blank or "unknown"]

    def target(text: str) -> float:
        value = label_value(text, soft=soft)
        if value is None or np.isnan(value):
            return of_blank
        return UNCERTAIN[uncertain] if value < 0 else value

    rows = len(columns[names[0]].codes)
    targets = np.empty((rows, len(names)), dtype=np.float32)
    blanks, words = [], set[str]()
    for position, column in enumerate(columns[name] for name in names):
        for text in column.values:
            if label_value(text, soft=soft) is None:
                raise UserError(_bad_cell(column, text, soft))
        targets[:, position] = column.each(target)
        missing = [is_missing(text) for text in column.values]
        words.update(text for text in compress(column.values, missing) if text)
        empty = column.counts[missing].sum() / rows
        if empty > 0.5:
            blanks.append(f"{names[position]} ({empty:.0%})")
    if blanks and blank is None:
        raise UserError(
            f"{path}: more than half of the cells are blank in {list_first(blanks)}. Does a blank "
            "mean that the finding is absent (--blank zero) or unknown (--blank unknown)?"
        )
    notes = []
    if soft and _has_soft_alone([columns[name] for name in names]):
        targets = np.clip(targets, *SOFT_RANGE)
        notes.append(f"{path} has soft labels alone: its images train and are never validated.")
    if words:
        notes.append(f"Label cells of {path} that count as blank: {list_first(sorted(words), 12)}.")
    for what, found in (("positive", targets > 0), ("negative", targets < 1)):
        is_there = np.any(found, axis=0)
        if not is_there.all():
            without = ", ".join(compress(names, ~is_there))
            effect = "so it cannot be learnt or scored."
            notes.append(f"Warning: no image of {path} is {what} for {without}, {effect}")
    return targets, notes
