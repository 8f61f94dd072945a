"""Leak check of pseudo-labels: did their checkpoints train on patients that a fold validates?

`ensemble.infer` names the checkpoints in a JSON file beside its CSV, and a checkpoint has digests
of its training patients.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from core.data.splits.prepare import PreparedData
from core.errors import UserError, list_first, pluralize
from core.io.untrusted_files import read_json
from core.models.checkpoint import load_tensors
from core.models.data_digests import DataDigests, DigestSet, patient_digests

# of the JSON file that `ensemble.infer` writes
KIND = "training_overlap"


def overlap_path(output: Path) -> Path:
    """Path of the overlap's JSON beside the predictions `output`."""
    name = output.name.removesuffix(".gz")
    return output.with_name(f"{Path(name).stem}_{KIND}.json")


def check_pseudo_labels(
    prepared: PreparedData, csvs: Sequence[Path], *, anonymous: bool
) -> Iterator[str]:
    """Warnings about leaks from the soft labels of `csvs`, or why they cannot be checked.

    `anonymous`: the names of patients are replaced by numbers.
    """
    table = prepared.table
    soft = table.is_soft.any(axis=1)
    sources = np.zeros(len(table), dtype=int) if table.sources is None else table.sources
    for place in np.unique(sources[soft]).tolist():
        csv = csvs[place]
        try:
            if anonymous or table.patients is None:
                raise UserError("the names of the patients are unknown")
            teachers = _read_teachers(csv)
        except UserError as error:
            yield f"Soft labels of {csv}: leaks into the validation cannot be checked ({error})."
            continue
        everyone = _own_names(prepared, np.arange(len(table)))
        for path, parts in list(teachers.items()):
            # two names each; 10 times the 32-bit digests that are equal by chance
            chance = 20 * len(everyone) * sum(len(part.digests) for part in parts) / 2**32
            if _are_in(parts, everyone).sum() <= chance:
                del teachers[path]
                yield (
                    f"Soft labels of {csv}: leaks of {path} into the validation cannot be checked "
                    "(none of its patients is in --train_csv)."
                )
        for fold, _, validated in prepared.rows():
            patients = _own_names(prepared, validated)
            for path, parts in teachers.items():
                leaks = _are_in([part for part in parts if part.role == "training"], patients)
                if leaks.any():
                    yield (
                        f"Warning: {path}, which made the soft labels of {csv}, was trained on "
                        f"{leaks.sum():,} of the {pluralize(len(patients), 'patient')} that fold "
                        f"{fold} validates, which inflates its scores. Predict with the checkpoint "
                        f"of fold {fold}, and train with --run_folds {fold} and the same --folds "
                        "and --seed."
                    )


def _own_names(prepared: PreparedData, rows: np.ndarray) -> list[str]:
    """Names of the patients of `rows` in their CSVs, without the prefix of several sources."""
    assert prepared.table.patients is not None
    names = np.unique(prepared.table.patients[rows].astype(str)).tolist()
    if prepared.table.sources is None:
        return names
    return [name.partition("/")[2] for name in names]


def _are_in(parts: Sequence[DigestSet], patients: Sequence[str]) -> np.ndarray:
    """Whether each patient is in any of `parts`, (N,) bool.

    Names match with or without the letter p of MIMIC-CXR, which a table of one source keeps.
    """
    numbers = [name.removeprefix("p") for name in patients]
    found = np.zeros(len(patients), dtype=bool)
    for part in parts:
        for names in (numbers, [f"p{number}" for number in numbers]):
            found |= part.has(patient_digests(names, part.key))
    return found


def _read_teachers(csv: Path) -> dict[Path, list[DigestSet]]:
    """Digests of the patients of each checkpoint that made `csv`.

    Raises UserError if there is no record of them, or if they are missing or lack digests of
    training patients.
    """
    record = overlap_path(csv)
    if not record.is_file():
        raise UserError(f"ensemble.infer left no {record.name} beside it")
    try:
        found = read_json(record).get("checkpoints")
        paths = [Path(one["checkpoint"]) for one in found]  # type: ignore[union-attr]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{record} names no checkpoints") from error
    digests = {path: DataDigests.read(*load_tensors(path), path) for path in paths}
    teachers = {
        path: [part for part in one.parts if part.of == "patients"]
        for path, one in digests.items()
        if one is not None
    }
    if unknown := [
        path.name
        for path in paths
        if not any(part.role == "training" for part in teachers.get(path, ()))
    ]:
        raise UserError(f"no digests of patients in {list_first(unknown)}")
    return teachers
