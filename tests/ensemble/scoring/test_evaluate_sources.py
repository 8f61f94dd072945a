"""`python -m ensemble.evaluate` with the label table of a known source."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.data.sources.nih import LABELS
from tests.helpers.synthetic.scores import Command, read_json

FIXTURES = Path(__file__).resolve().parents[2] / "core" / "data" / "sources"
NIH = FIXTURES / "nih" / "Data_Entry_2017_v2020.csv"
# of the fixture's test_list.txt; 00000003_001.png alone of these has a mass
IMAGES = ["00000003_000.png", "00000003_001.png"]
FOUR = [f"{n}.png" for n in range(4)]


def write(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def of_nih(path: Path, **renamed: str) -> Path:
    """Predictions for IMAGES that find the mass."""
    columns: dict[str, Any] = dict.fromkeys(LABELS, 0.5) | {"Mass": [0.1, 0.9]}
    named = {renamed.get(name.replace(" ", "_"), name): cells for name, cells in columns.items()}
    return write(path, ImageID=IMAGES, **named)


def test_the_official_test_alone_is_scored(command: Command, tmp_path: Path) -> None:
    path = of_nih(tmp_path / "p.csv")
    flags = ("--predictions", path, "--labels", NIH, "--train_csv", NIH, "--resamples", 0)
    code, _, error = command(*flags)
    assert code == 2
    assert "images of" in error
    code, printed, error = command(*flags, "--official_split", "test")
    assert (code, error) == (0, "")
    assert "its official test, are selected" in printed
    mass = read_json(tmp_path / "p_metrics.json")["per_class"]["Mass"]
    assert (mass["n"], mass["positives"], mass["auroc"]) == (2, 1, 1.0)
    # none of the training images has one
    assert mass["prevalence"] == 0


def test_classes_are_found_by_the_label_map(command: Command, tmp_path: Path) -> None:
    """A model of several sources calls Mass and No Finding otherwise."""
    path = of_nih(tmp_path / "p.csv", No_Finding="Normal", Mass="Tumour")
    (tmp_path / "map.csv").write_text("label,means\nMass,Tumour\n")
    flags = ("--predictions", path, "--labels", NIH, "--resamples", 0, "--official_split", "test")
    code, printed, error = command(*flags, "--label_map", tmp_path / "map.csv")
    assert (code, error) == (0, "")
    renamed = printed.split(f"Labels of {NIH} by the label map: ")[1].split(".\n")[0].split(", ")
    assert sorted(renamed) == ["Mass is Tumour", "No Finding is Normal"]
    found = read_json(tmp_path / "p_metrics.json")["per_class"]["Tumour"]
    assert (found["n"], found["positives"], found["auroc"]) == (2, 1, 1)
    # without the user's row Tumour has no meaning
    code, _, error = command(*flags)
    assert code == 2
    assert "Tumour" in error


def test_a_training_table_without_a_class(command: Command, tmp_path: Path) -> None:
    labels = write(tmp_path / "l.csv", ImageID=FOUR, Mass=[1, 0, 1, 0], Hernia=[0, 1, 0, 1])
    train = write(tmp_path / "t.csv", ImageID=FOUR, Mass=[1, 0, 0, 0])
    other = write(tmp_path / "o.csv", ImageID=FOUR, Mess=[1, 0, 0, 0])
    path = write(tmp_path / "p.csv", ImageID=FOUR, Mass=[0.1] * 4, Hernia=[0.2] * 4)
    flags = ("--predictions", path, "--labels", labels, "--resamples", 0)
    code, printed, error = command(*flags, "--train_csv", train)
    assert (code, error) == (0, "")
    assert f"{train} has no column for Hernia: of no known prevalence in training." in printed
    found = read_json(tmp_path / "p_metrics.json")["per_class"]
    assert (found["Mass"]["prevalence"], found["Hernia"]["prevalence"]) == (0.25, None)
    code, _, error = command(*flags, "--train_csv", other)
    assert code == 2
    assert "has no column for any of the classes Mass, Hernia: give the table that" in error


def test_the_training_table_has_its_own_blanks(command: Command, tmp_path: Path) -> None:
    """CheXpert's Edema is positive in 13 of 38 known reports, 14 of them blank."""
    columns: dict[str, Any] = {
        "Path": [f"x/patient{n:05}/study1/view1_frontal.jpg" for n in range(40)],
        "Frontal/Lateral": "Frontal",
        "AP/PA": "AP",
        "No Finding": "",
        "Edema": ["1"] * 13 + ["0"] * 11 + [""] * 14 + ["-1"] * 2,
    }
    train = write(tmp_path / "train.csv", **columns)
    labels = write(tmp_path / "l.csv", ImageID=FOUR, Edema=["1", "0", "", "-1"])
    path = write(tmp_path / "p.csv", ImageID=FOUR, Edema=[0.9, 0.1, 0.5, 0.4])
    flags = ("--predictions", path, "--labels", labels, "--train_csv", train, "--resamples", 0)
    code, _, error = command(*flags, "--blank", "unknown", "--uncertain", "one")
    assert (code, error) == (0, "")
    found = read_json(tmp_path / "p_metrics.json")["per_class"]["Edema"]
    assert (found["n"], found["positives"]) == (3, 2)
    assert found["prevalence"] == pytest.approx(13 / 38, abs=1e-6)


def test_subgroups_read_the_labels_as_the_scores_do(command: Command, tmp_path: Path) -> None:
    """Readers as in VinDr under other names, in three rows an image; --source selects it."""
    labels = write(
        tmp_path / "l.csv",
        image_id=np.repeat(FOUR, 3),
        rad_id=["R0", "R1", "R2"] * 4,
        Mass=np.repeat([1, 0, 1, 0], 3),
        hospital=np.repeat([*"ABAB"], 3),
        subject=1,
    )
    path = write(tmp_path / "p.csv", ImageID=FOUR, Mass=[0.9, 0.1, 0.8, 0.3])
    flags = ("--predictions", path, "--labels", labels, "--source", "vindr", "--resamples", 0)
    code, _, error = command(*flags, "--by", "hospital", "--patient_column", "none")
    assert (code, error) == (0, "")
    found = read_json(tmp_path / "p_metrics.json")["subgroups"]["hospital"]["subgroups"]
    assert set(found) == {"A", "B"}


def test_scores_within_sources_stand_beside_the_pooled_ones(
    command: Command, tmp_path: Path
) -> None:
    """Scores and prevalence are higher in b alone: pooled, that looks like skill."""
    names = [f"{n}.png" for n in range(40)]
    mass = [1, *[0] * 19, *[1] * 12, *[0] * 8]
    source = ["a"] * 20 + ["b"] * 20
    scores, edema = [0.1] * 20 + [0.8] * 20, ["1", "0", *[""] * 38]
    labels = write(tmp_path / "l.csv", ImageID=names, Source=source, Mass=mass, Edema=edema)
    path = write(tmp_path / "p.csv", ImageID=names, Mass=scores, Edema=scores)
    flags = ("--predictions", path, "--labels", labels, "--resamples", 0, "--blank", "unknown")
    code, printed, error = command(*flags)
    assert (code, error) == (0, "")
    found = read_json(tmp_path / "p_metrics.json")
    assert found["per_class"]["Mass"]["auroc"] > 0.7
    within = {name: one["per_class"]["Mass"]["auroc"] for name, one in found["sources"].items()}
    assert within == {"a": 0.5, "b": 0.5}
    rows = [line.split() for line in printed.splitlines()]
    # AUROC and share of known labels in a, in b and in all
    (row,) = (row for row in rows if row[0:1] == ["Edema"] and "100%" not in row and len(row) == 7)
    assert row == ["Edema", "0.500", "10%", "-", "0%", "0.500", "5%"]
    # a column of that name with a value an image divides nothing
    write(labels, ImageID=names, Source=names, Mass=mass, Edema=edema)
    code, _, error = command(*flags)
    assert (code, error) == (0, "")
    assert "sources" not in read_json(tmp_path / "p_metrics.json")
