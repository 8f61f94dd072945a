"""Leak check of pseudo-labels by digests of patients."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.data.images.collection import Images
from core.data.splits.prepare import PreparedData
from core.data.tables.label_table import LabelTable
from core.models.data_digests import DataDigests, DigestSet, Role, patient_digests
from core.runs.pseudo_labels import check_pseudo_labels

KEY = b"key"


def prepared(letter: str) -> PreparedData:
    """Six hard-labelled patients in two folds, and one image with a soft label."""
    patients = [f"train/{letter}1000{number}" for number in range(6)]
    table = LabelTable(
        ids=[f"train/{number}" for number in range(6)] + ["pseudo/6"],
        images=Images.of_files([]),
        patients=np.array([*patients, "pseudo/q"], dtype=object),
        targets=np.array([[1], [0], [1], [0], [1], [0], [0.5]], np.float32),
        class_names=("A",),
        sources=np.array([0] * 6 + [1]),
        source_names=("train", "pseudo"),
    )
    return PreparedData(table, np.array([0, 0, 0, 1, 1, 1, -1]), (1, 2))


def check(data: PreparedData, trained: list[str], validated: list[str], folder: Path) -> list[str]:
    sets: list[tuple[Role, list[str]]] = [("training", trained), ("validation", validated)]
    parts = [DigestSet(role, np.sort(patient_digests(n, KEY)), key=KEY) for role, n in sets]
    content = {"checkpoints": [{"checkpoint": "teacher.safetensors"}]}
    (folder / "pseudo_training_overlap.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        stored = DataDigests(tuple(parts)).to_tensors()
        patch.setattr("core.runs.pseudo_labels.load_tensors", lambda _: stored)
        csvs = [folder / "train.csv", folder / "pseudo.csv"]
        return list(check_pseudo_labels(data, csvs, anonymous=False))


@pytest.mark.parametrize("letter", ["p", ""], ids=["p", "no p"])
@pytest.mark.parametrize("of_teacher", ["p", ""], ids=["teacher p", "teacher no p"])
def test_patients_of_mimic_match_without_their_letter(
    of_teacher: str, letter: str, tmp_path: Path
) -> None:
    names = [f"{of_teacher}1000{number}" for number in range(6)]
    # the teacher is that of fold 1, and saw two of the three patients of fold 2
    found = check(prepared(letter), names[3:5], names[:3], tmp_path)
    assert len(found) == 1
    assert "was trained on 2 of the 3 patients that fold 2 validates" in found[0]


def test_a_teacher_of_the_validation_alone_prints_nothing(tmp_path: Path) -> None:
    validated = [f"1000{number}" for number in range(6)]
    assert check(prepared(""), ["x"], validated, tmp_path) == []


def test_a_teacher_of_other_patients_cannot_be_checked(tmp_path: Path) -> None:
    found = check(prepared(""), ["20000", "20001"], ["20002"], tmp_path)
    assert len(found) == 1
    assert "cannot be checked (none of its patients is in --train_csv)" in found[0]
