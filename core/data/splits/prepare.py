"""Data preparation: the label table and its patient-disjoint folds."""

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
from core.data.csv.columns import AS_EARLIER
from core.data.splits.duplicates import describe_duplicates, find_duplicates
from core.data.splits.folds import (
    assign_folds,
    count_positives,
    describe_empty_classes,
    fold_table,
    inventory,
    lacks_patients,
    read_folds,
    source_table,
)
from core.data.splits.official import join_official_split
from core.data.splits.soft_labels import (
    assign_around_soft,
    describe_soft,
    drop_soft_duplicates,
)
from core.data.splits.source_weights import drop_untrained_classes, source_shares
from core.data.tables.anonymous import anonymize
from core.data.tables.label_table import LabelTable
from core.data.tables.load import gather, source_names
from core.errors import UserError, doctor_hint, list_first

BY_IMAGE = "folds by image: a patient may be on both sides"


@dataclass(frozen=True)
class PreparedData:
    """Table, validation fold of each image and folds to run.

    `assignment` (N,) int counts from 0. Images below 0 are never validated: -1 trains in every fold
    (official split, soft labels), -2 - k in every fold but k, which validates its patient.
    `run_folds` counts from 1.
    """

    table: LabelTable
    assignment: np.ndarray
    run_folds: tuple[int, ...]
    files: str = ""
    """Digest of the sizes of the image files, and of the pixels of packs."""

    @property
    def folds(self) -> int:
        """Number of folds; 1 for an official split."""
        return int(self.assignment.max()) + 1

    def rows(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(fold from 1, training rows (T,), validation rows (V,)) of each fold to run."""
        for fold in self.run_folds:
            held_out = self.assignment == fold - 1
            trained = ~held_out & (self.assignment != -1 - fold)
            yield fold, np.flatnonzero(trained), np.flatnonzero(held_out)

    def prevalence(self, source_weights: Sequence[float] = ()) -> np.ndarray:
        """Share of positives (sum of targets) among each class's known training labels, (C,).

        NaN if none is known. Images with soft labels alone count only if there are no others, so
        that groups of classes do not depend on predictions.

        Counts all images; with an official split only those of --train_csv; with `source_weights`
        only sources with a weight above 0.
        """
        trained = self.assignment < (0 if self.folds == 1 else self.folds)
        if source_weights and self.table.sources is not None:
            trained &= np.asarray(source_weights)[self.table.sources] > 0
        if (own := trained & ~self.table.is_pseudo).any():
            trained = own
        positives, known = count_positives(self.table.targets[trained])
        return np.where(known > 0, positives / np.maximum(known, 1), np.nan)

    @property
    def by_image(self) -> str:
        """`describe_by_image` of the table."""
        return describe_by_image(self.table)

    def fingerprint(self) -> str:
        """Digest of identifiers, patients, labels and folds."""
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
        """Separate digests of images, labels, patients and folds."""
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
        # NaN has several bit patterns
        targets = np.nan_to_num(self.table.targets, nan=-1)
        # one byte each if all are hard
        return targets.astype(np.float32 if self.table.is_soft.any() else np.int8).tobytes()


def describe_by_image(table: LabelTable) -> str:
    """Note for the reports if images of some source were split without patients; else ""."""
    if table.patients is None:
        return BY_IMAGE
    own = table.patients == np.asarray(table.ids, dtype=object)
    sources = [
        name
        for source, name in enumerate(table.source_names)
        if table.sources is not None and own[table.sources == source].all()
    ]
    return f"{BY_IMAGE} (source {', '.join(sources)})" if sources else ""


def prepare(
    data: DataConfig,
    split: SplitConfig,
    log: Callable[[str], None],
    source_weights: Sequence[float] = (),
    run: RunConfig | None = None,
) -> PreparedData:
    """Read the table, assign folds, and log a summary and warnings.

    If `run` resumes an earlier run, its labels and folds are reused. Raises UserError for invalid
    CSVs, folders, labels, folds or weights.
    """
    try:
        earlier = None if run is None or run.overwrite else find_run(run.out_dir)
        if earlier and not data.reading.patient_column:
            data = _without_new_patients(data, earlier, log)
            return _divide_as_earlier(data, split, log, source_weights, earlier)
        return divide(_gather(data, earlier), data, split, log, source_weights, earlier)
    except UserError as error:
        if not all(csv.is_file() for csv in data.train_csv):
            raise
        does = "with the same data flags, or --config, checks all of it"
        raise UserError(doctor_hint(does, after=str(error))) from error


def divide(
    table: LabelTable,
    data: DataConfig,
    split: SplitConfig,
    log: Callable[[str], None],
    source_weights: Sequence[float] = (),
    earlier: EarlierRun | None = None,
) -> PreparedData:
    """`prepare` for a table that is already read; without --val_csv it needs no paths.

    Raises UserError for invalid folds or weights, an invalid --val_csv or one that overlaps with
    --train_csv, and if no class has a positive in the training part of a fold.
    """
    for note in table.notes:
        log(note)
    shares = source_shares(table, source_weights)
    if shares is not None:
        table = drop_untrained_classes(table, shares, log)
    if not data.val_csv:
        first = find_duplicates(table.images) if table.paths else np.arange(len(table))
        if sentence := describe_duplicates(table.ids, table.patients, first):
            log(sentence)
        table, first = drop_soft_duplicates(table, first, log)
        named = anonymize(table) if data.anonymous else table
        earlier_folds = None if earlier is None else _folds_of(earlier, named)
        if earlier_folds is None:
            assign = partial(assign_folds, folds=split.folds, seed=split.seed)
            assignment = assign_around_soft(table, first, assign)
        else:
            assignment = earlier_folds
        run_folds = split.run_folds or tuple(range(1, split.folds + 1))
        table = named
    else:
        if split.run_folds not in ((), (1,)):
            raise UserError("--val_csv defines the only split, fold 1: leave --run_folds out")
        table, assignment = join_official_split(table, data, log)
        run_folds = (1,)
    log(inventory(table))
    if table.sources is not None:
        log(source_table(table))
    if data.soft_labels:
        log(describe_soft(table, assignment))
    validated = assignment >= 0
    patients = None if table.patients is None else table.patients[validated]
    counted = table.hard_targets[validated], assignment[validated], table.class_names
    log(fold_table(*counted, patients))
    if sentence := describe_empty_classes(*counted):
        log(sentence)
    prepared = PreparedData(table, assignment, run_folds, table.images.digest())
    check_training(prepared, shares, log)
    return prepared


def _divide_as_earlier(
    data: DataConfig,
    split: SplitConfig,
    log: Callable[[str], None],
    source_weights: Sequence[float],
    earlier: EarlierRun,
) -> PreparedData:
    """`divide`, by the patient columns of version 0.1 where these alone give the earlier run's
    patients."""
    parts, recorded = earlier.environment.get("parts"), earlier.environment["data"]
    prepared = refusal = None
    try:
        prepared = divide(_gather(data, earlier), data, split, log, source_weights, earlier)
        patients = parts.get("patients") if isinstance(parts, dict) else None
        if recorded == prepared.fingerprint() or patients == prepared.digests()["patients"]:
            return prepared
    except UserError as error:
        refusal = error
    given, lines = data.reading.patient_column or "", list[str]()
    columns = [one or AS_EARLIER for one in ([given] if isinstance(given, str) else given)]
    data = replace(data, reading=data.reading.change(patient_column=tuple(columns)))
    with suppress(UserError):
        before = divide(_gather(data, earlier), data, split, lines.append, source_weights, earlier)
        if before.fingerprint() == recorded:
            log(f"Patients are those of the run in {earlier.path}, which knew fewer column names.")
            for line in lines:
                log(line)
            return before
    if prepared is None:
        assert refusal is not None
        raise refusal
    return prepared


def _without_new_patients(
    data: DataConfig, earlier: EarlierRun, log: Callable[[str], None]
) -> DataConfig:
    """`data` without patient columns that the earlier run did not use: older versions knew fewer
    column names."""
    csvs = data.train_csv
    names = source_names(csvs, data.reading.source or (None,) * len(csvs))
    by_image = lacks_patients(earlier.folds, names)
    if not any(by_image):
        return data
    sources = list_first([str(csv) for csv in compress(csvs, by_image)])
    log(f"Warning: the run in {earlier.path} was begun with {BY_IMAGE} ({sources}).")
    columns = tuple("none" if one else "" for one in by_image)
    return replace(data, reading=data.reading.change(patient_column=columns))


def _gather(data: DataConfig, earlier: EarlierRun | None) -> LabelTable:
    """Load the table, with the labels of the earlier run unless --labels is given."""
    missing = [csv for csv in (*data.train_csv, *data.val_csv) if not csv.exists()]
    of_run = [earlier.settings.get(n) for n in ("train_csv", "val_csv")] if earlier else []
    if missing and earlier and str(missing[0]) in str(of_run):
        raise UserError(
            f"there is no file {missing[0]} below {Path.cwd()}, and the run in {earlier.path} was "
            "trained on it: restore it, or run this command where the training was started"
        )
    names = earlier.class_names() if earlier and data.label_names is None else None
    if names is not None:
        # if the CSV lacks them, the check of the run folder reports the difference
        with suppress(UserError):
            return gather(data, labels=names)
    return gather(data)


def _folds_of(earlier: EarlierRun, table: LabelTable) -> np.ndarray | None:
    """Fold of each image in the earlier run, (N,) from 0; None if its data differ."""
    folds = read_folds(earlier.folds, table)
    recorded = earlier.environment["data"]
    is_same = folds is not None and PreparedData(table, folds, ()).fingerprint() == recorded
    return folds if is_same else None


def check_training(
    prepared: PreparedData, shares: np.ndarray | None, log: Callable[[str], None]
) -> None:
    """Log classes without training positives in a fold. Raises UserError if no class has any.

    shares: (S,) of `source_shares`; images of sources with a share of 0 are not counted.
    """
    names = prepared.table.class_names
    sources = prepared.table.sources
    for fold, training, _ in prepared.rows():
        if shares is not None and sources is not None:
            training = training[shares[sources[training]] > 0]
        positives, _ = count_positives(prepared.table.targets[training])
        if not positives.any():
            raise UserError(
                f"no label has a positive among the {len(training):,} training images of fold "
                f"{fold}: check the label columns ({list_first(list(names))})"
            )
        for name in compress(names, positives == 0):
            log(
                f"Warning: {name} has no positive in the training part of fold {fold}, so that it "
                "cannot be learnt there."
            )
