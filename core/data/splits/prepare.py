"""From settings to a table and its patient-disjoint folds."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress
from pathlib import Path

import numpy as np

from core.config.data import DataConfig
from core.config.earlier_run import EarlierRun, find_run
from core.config.training import RunConfig, SplitConfig
from core.data.splits.duplicates import describe_duplicates, find_duplicates, merge_patients
from core.data.splits.folds import (
    assign_by_name,
    assign_folds,
    describe_empty_classes,
    fold_table,
    lacks_patients,
    read_folds,
    source_table,
)
from core.data.splits.official import join_official_split
from core.data.tables.anonymous import anonymize
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather, source_names
from core.errors import UserError, doctor_hint, escape_control, list_first

SMALLEST_SHARE = 1e-4
BY_IMAGE = "folds by image: a patient may be on both sides"


@dataclass(frozen=True)
class PreparedData:
    """A table, the fold (from 0) in which each image is validated (-1: in none, by an official
    split), and the folds to run (from 1)."""

    table: LabelTable
    assignment: np.ndarray
    run_folds: tuple[int, ...]
    files: str = ""
    """Digest of the sizes of the image files, and of the pixels of packs."""

    @property
    def folds(self) -> int:
        """How many folds there are in all; 1 for an official split."""
        return int(self.assignment.max()) + 1

    def rows(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(fold from 1, training rows, validation rows) of each fold to run."""
        for fold in self.run_folds:
            held_out = self.assignment == fold - 1
            yield fold, np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def prevalence(self, source_weights: Sequence[float] = ()) -> np.ndarray:
        """Share of positives among each class's known training labels, (C,); NaN where none is.

        Every image trains in some fold; with an official split those of --train_csv alone do, and
        with `source_weights` those of sources that have one above 0.
        """
        trained = self.assignment < (0 if self.folds == 1 else self.folds)
        if source_weights and self.table.sources is not None:
            trained &= np.asarray(source_weights)[self.table.sources] > 0
        targets = self.table.targets[trained]
        known = (~np.isnan(targets)).sum(axis=0)
        positives = (targets == 1).sum(axis=0)
        return np.where(known > 0, positives / np.maximum(known, 1), np.nan)

    @property
    def by_image(self) -> str:
        """What to know of the scores where images without a patient were divided one by one."""
        table = self.table
        if table.patients is None:
            return BY_IMAGE
        own = table.patients == np.asarray(table.ids, dtype=object)
        sources = [
            name
            for source, name in enumerate(table.source_names)
            if table.sources is not None and own[table.sources == source].all()
        ]
        return f"{BY_IMAGE} (source {', '.join(sources)})" if sources else ""

    def fingerprint(self) -> str:
        """Digest of identifiers, patients, labels and folds: equal only for the same data."""
        table = self.table
        patients = () if table.patients is None else table.patients
        digest = hashlib.sha256("\n".join([*table.class_names, *table.ids, *patients]).encode())
        if table.sources is not None:
            digest.update("\n".join(table.source_names).encode())
            digest.update(table.sources.astype(np.int32).tobytes())
        digest.update(self._target_bytes())
        digest.update(self.assignment.astype(np.int32).tobytes())
        return digest.hexdigest()

    def digests(self) -> dict[str, str]:
        """The parts of `fingerprint`, each by itself, by what a user calls them."""
        table = self.table
        sources = [] if table.sources is None else [*table.source_names, *map(str, table.sources)]
        patients = () if table.patients is None else table.patients
        parts = {
            "images": "\n".join([*table.ids, *sources]).encode(),
            "labels": "\n".join(table.class_names).encode() + b"\0" + self._target_bytes(),
            "patients": "\n".join(patients).encode(),
            "folds": self.assignment.astype(np.int32).tobytes(),
        }
        return {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}

    def _target_bytes(self) -> bytes:
        # NaN has many bit patterns
        return np.nan_to_num(self.table.targets, nan=-1).astype(np.int8).tobytes()


def prepare(
    data: DataConfig,
    split: SplitConfig,
    log: Callable[[str], None],
    source_weights: Sequence[float] = (),
    run: RunConfig | None = None,
) -> PreparedData:
    """Read the table, divide it, and tell the user what was found and which classes are short.

    Labels and folds are those of the earlier run in the folder of `run`, where it resumes one.
    Raises UserError for whatever is wrong with CSV, folder, labels, folds or weights.
    """
    try:
        earlier = None if run is None or run.overwrite else find_run(run.out_dir)
        if earlier and not data.reading.patient_column:
            data = _without_new_patients(data, earlier, log)
        return divide(_gather(data, earlier), data, split, log, source_weights, earlier)
    except UserError as error:
        if not all(csv.is_file() for csv in data.train_csv):
            raise
        more = doctor_hint("with the same flags of the data, or --config, looks at all of it")
        raise UserError(f"{str(error).rstrip('.')}{more}") from error


def divide(
    table: LabelTable,
    data: DataConfig,
    split: SplitConfig,
    log: Callable[[str], None],
    source_weights: Sequence[float] = (),
    earlier: EarlierRun | None = None,
) -> PreparedData:
    """`prepare` for a table that was read, without paths too where there is no --val_csv."""
    for note in table.notes:
        log(note)
    shares = source_shares(table, source_weights)
    if shares is not None:
        table = _without_untrained(table, shares, log)
    if not data.val_csv:
        first = find_duplicates(table.images) if table.paths else np.arange(len(table))
        if sentence := describe_duplicates(table.ids, table.patients, first):
            log(sentence)
        named = anonymize(table) if data.anonymous else table
        earlier_folds = None if earlier is None else _folds_of(earlier, named)
        if earlier_folds is None:
            groups = merge_patients(table.patients, first)
            assign = partial(assign_folds, folds=split.folds, seed=split.seed)
            assignment = assign_by_name(table, groups, assign)
        else:
            assignment = earlier_folds
        run_folds = split.run_folds or tuple(range(1, split.folds + 1))
        table = named
    else:
        if split.run_folds not in ((), (1,)):
            raise UserError("--val_csv is a split of its own, fold 1: leave --run_folds out")
        table, assignment = join_official_split(table, data, log)
        run_folds = (1,)
    log(_inventory(table))
    if table.sources is not None:
        log(source_table(table))
    validated = assignment >= 0
    patients = None if table.patients is None else table.patients[validated]
    counted = table.targets[validated], assignment[validated], table.class_names
    log(fold_table(*counted, patients))
    if sentence := describe_empty_classes(*counted):
        log(sentence)
    prepared = PreparedData(table, assignment, run_folds, table.images.digest())
    check_training(prepared, shares, log)
    return prepared


def _without_new_patients(
    data: DataConfig, earlier: EarlierRun, log: Callable[[str], None]
) -> DataConfig:
    """`data` without the patients that the earlier run did not know: fewer names of columns were
    known when it was begun."""
    csvs = data.train_csv
    unnamed = lacks_patients(
        earlier.folds, source_names(csvs, data.reading.source or (None,) * len(csvs))
    )
    if not any(unnamed):
        return data
    sources = list_first([str(csv) for csv in compress(csvs, unnamed)])
    log(f"Warning: the run in {earlier.path} was begun with {BY_IMAGE} ({sources}).")
    columns = tuple("none" if one else "" for one in unnamed)
    return replace(data, reading=data.reading.change(patient_column=columns))


def _gather(data: DataConfig, earlier: EarlierRun | None) -> LabelTable:
    """The table, with the labels of the earlier run unless --labels names some."""
    gone = [csv for csv in (*data.train_csv, *data.val_csv) if not csv.exists()]
    of_run = [earlier.settings.get(n) for n in ("train_csv", "val_csv")] if earlier else []
    if gone and earlier and str(gone[0]) in str(of_run):
        raise UserError(
            f"there is no file {gone[0]} below {Path.cwd()}, and the run in {earlier.path} was "
            "trained on it: put it back, or give this command where the training was started"
        )
    names = earlier.class_names() if earlier and data.label_names is None else None
    if names is not None:
        # where the CSV has them no more, the run folder says that its labels are others
        with suppress(UserError):
            return gather(data, labels=names)
    return gather(data)


def _folds_of(earlier: EarlierRun, table: LabelTable) -> np.ndarray | None:
    """The earlier run's fold of each image, (N,) from 0; None where it was not of these data."""
    folds = read_folds(earlier.folds, table)
    recorded = earlier.environment["data"]
    is_own = folds is not None and PreparedData(table, folds, ()).fingerprint() == recorded
    return folds if is_own else None


def source_shares(table: LabelTable, weights: Sequence[float]) -> np.ndarray | None:
    """The share of an epoch's draws for each of the table's sources, (S,) with sum 1.

    None without weights. Raises UserError for another number of weights than of sources, and for a
    share that is so small that it would never be drawn.
    """
    if not weights:
        return None
    sources = len(table.source_names)
    if len(weights) != sources:
        raise UserError(
            f"--source_weights gives {len(weights)} numbers for {max(sources, 1)} --train_csv: one "
            "for each of several, or leave it out"
        )
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    if ((shares > 0) & (shares < SMALLEST_SHARE)).any():
        name = table.source_names[int(np.where(shares > 0, shares, 1).argmin())]
        raise UserError(
            f"--source_weights gives source '{name}' less than one draw in "
            f"{round(1 / SMALLEST_SHARE):,}: give it more, or 0 to leave it out of training"
        )
    return shares


def _without_untrained(
    table: LabelTable, shares: np.ndarray, log: Callable[[str], None]
) -> LabelTable:
    """The table without the classes that only sources with a share of 0 know.

    Raises UserError where one of these sources knows no class that is left.
    """
    assert table.sources is not None
    known = ~np.isnan(table.targets)
    trained = known[shares[table.sources] > 0].any(axis=0)
    left_out = known.any(axis=0) & ~trained
    if not left_out.any():
        return table
    for source in np.flatnonzero(shares == 0):
        if not known[table.sources == source][:, ~left_out].any():
            raise UserError(
                f"source '{table.source_names[source]}' has a weight of 0 in --source_weights and "
                "no label that another source could teach: leave its CSV out"
            )
    log(
        f"Warning: {', '.join(compress(table.class_names, left_out))} cannot be learnt, as only "
        "sources with a weight of 0 in --source_weights know it: left out of model and scores."
    )
    names = tuple(compress(table.class_names, ~left_out))
    return replace(table, targets=table.targets[:, ~left_out], class_names=names)


def check_training(
    prepared: PreparedData, shares: np.ndarray | None, log: Callable[[str], None]
) -> None:
    """Name the classes that a fold cannot learn. Raises UserError where it can learn none."""
    names = prepared.table.class_names
    sources = prepared.table.sources
    for fold, training, _ in prepared.rows():
        if shares is not None and sources is not None:
            training = training[shares[sources[training]] > 0]
        positives = (prepared.table.targets[training] == 1).sum(axis=0)
        if not positives.any():
            raise UserError(
                f"no label has a positive among the {len(training):,} training images of fold "
                f"{fold}: nothing can be learnt; look at the label columns "
                f"({list_first(list(names))})"
            )
        for name in compress(names, positives == 0):
            log(
                f"Warning: {name} has no positive in the training part of fold {fold}, so that it "
                "cannot be learnt there."
            )


def _inventory(table: LabelTable) -> str:
    """One line: how many images, patients and studies, and the views."""
    parts = [f"{len(table):,} images"]
    for values, what in ((table.patients, "patients"), (table.studies, "studies")):
        if values is not None:
            parts.append(f"{len(np.unique(values)):,} {what}")
    if table.views is not None:
        views, counts = np.unique(table.views, return_counts=True)
        told = [f"{v or '(blank)'} {n:,}" for v, n in zip(views, counts, strict=True)]
        parts.append(f"views {escape_control(list_first(told, 12))}")
    return ", ".join(parts)
