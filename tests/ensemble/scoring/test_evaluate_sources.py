"""`python -m ensemble.evaluate` scores against a known source's own table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data.sources.nih import LABELS
from tests.helpers.synthetic.scores import Command, read_json

FIXTURES = Path(__file__).resolve().parents[2] / "core" / "data" / "sources"
NIH = FIXTURES / "nih" / "Data_Entry_2017_v2020.csv"


def predict(path: Path, images: list[str], mass: list[float]) -> Path:
    frame = pd.DataFrame(np.full((len(images), len(LABELS)), 0.5), columns=list(LABELS))
    frame["Mass"] = mass
    frame.insert(0, "ImageID", images)
    frame.to_csv(path, index=False)
    return path


def test_the_official_test_alone_is_scored(command: Command, tmp_path: Path) -> None:
    # of the fixture's test_list.txt; 00000003_001.png alone of these has a mass
    images = ["00000003_000.png", "00000003_001.png"]
    path = predict(tmp_path / "p.csv", images, [0.1, 0.9])
    flags = ("--predictions", path, "--labels", NIH, "--train_csv", NIH, "--resamples", 0)
    code, _, error = command(*flags)
    assert code == 2
    assert "images of" in error
    code, printed, error = command(*flags, "--official_split", "test")
    assert (code, error) == (0, "")
    assert "its official test, are taken alone" in printed
    found = read_json(tmp_path / "p_metrics.json")
    mass = found["per_class"]["Mass"]
    assert (mass["n"], mass["positives"], mass["auroc"]) == (2, 1, 1.0)
    # none of the training images has one
    assert mass["prevalence"] == 0


def test_classes_are_found_by_the_label_map(command: Command, tmp_path: Path) -> None:
    """A model of several sources calls Effusion and No Finding otherwise."""
    images = ["00000003_000.png", "00000003_001.png"]
    path = predict(tmp_path / "p.csv", images, [0.1, 0.9])
    frame = pd.read_csv(path).rename(columns={"No Finding": "Normal", "Mass": "Tumour"})
    frame.to_csv(path, index=False)
    (tmp_path / "map.csv").write_text("label,means\nMass,Tumour\n")
    flags = ("--predictions", path, "--labels", NIH, "--resamples", 0, "--official_split", "test")
    code, printed, error = command(*flags, "--label_map", tmp_path / "map.csv")
    assert (code, error) == (0, "")
    told = f"Labels of {NIH} by the label map: "
    assert told in printed
    renamed = printed.split(told)[1].split(".\n")[0].split(", ")
    assert sorted(renamed) == ["Mass is Tumour", "No Finding is Normal"]
    found = read_json(tmp_path / "p_metrics.json")["per_class"]
    assert (found["Tumour"]["n"], found["Tumour"]["positives"]) == (2, 1)
    assert found["Tumour"]["auroc"] == 1
    # without the user's row nothing says what a Tumour is
    code, _, error = command(*flags)
    assert code == 2
    assert "Tumour" in error


def test_a_training_table_without_a_class(command: Command, tmp_path: Path) -> None:
    labels, train, other = tmp_path / "l.csv", tmp_path / "t.csv", tmp_path / "o.csv"
    names = [f"{n}.png" for n in range(4)]
    pd.DataFrame({"ImageID": names, "Mass": [1, 0, 1, 0], "Hernia": [0, 1, 0, 1]}).to_csv(
        labels, index=False
    )
    pd.DataFrame({"ImageID": names, "Mass": [1, 0, 0, 0]}).to_csv(train, index=False)
    pd.DataFrame({"ImageID": names, "Mess": [1, 0, 0, 0]}).to_csv(other, index=False)
    path = tmp_path / "p.csv"
    pd.DataFrame({"ImageID": names, "Mass": [0.1] * 4, "Hernia": [0.2] * 4}).to_csv(
        path, index=False
    )
    flags = ("--predictions", path, "--labels", labels, "--resamples", 0)
    code, printed, error = command(*flags, "--train_csv", train)
    assert (code, error) == (0, "")
    assert f"{train} has no column for Hernia: of no known prevalence in training." in printed
    found = read_json(tmp_path / "p_metrics.json")["per_class"]
    assert found["Mass"]["prevalence"] == 0.25
    assert found["Hernia"]["prevalence"] is None
    code, _, error = command(*flags, "--train_csv", other)
    assert code == 2
    assert "has no column for any of the classes Mass, Hernia: give the table that" in error


def test_the_training_table_has_its_own_blanks(command: Command, tmp_path: Path) -> None:
    """CheXpert's Edema is positive in 13 of 38 known reports, 14 of them blank."""
    edema = ["1"] * 13 + ["0"] * 11 + [""] * 14 + ["-1"] * 2
    train = tmp_path / "train.csv"
    pd.DataFrame(
        {
            "Path": [f"x/patient{n:05}/study1/view1_frontal.jpg" for n in range(40)],
            "Frontal/Lateral": "Frontal",
            "AP/PA": "AP",
            "No Finding": "",
            "Edema": edema,
        }
    ).to_csv(train, index=False)
    labels, path = tmp_path / "l.csv", tmp_path / "p.csv"
    names = [f"{n}.png" for n in range(4)]
    pd.DataFrame({"ImageID": names, "Edema": ["1", "0", "", "-1"]}).to_csv(labels, index=False)
    pd.DataFrame({"ImageID": names, "Edema": [0.9, 0.1, 0.5, 0.4]}).to_csv(path, index=False)
    flags = ("--predictions", path, "--labels", labels, "--train_csv", train, "--resamples", 0)
    code, _, error = command(*flags, "--blank", "unknown", "--uncertain", "one")
    assert (code, error) == (0, "")
    found = read_json(tmp_path / "p_metrics.json")["per_class"]["Edema"]
    assert (found["n"], found["positives"]) == (3, 2)
    assert found["prevalence"] == pytest.approx(13 / 38, abs=1e-6)


def test_subgroups_read_the_labels_as_the_scores_do(command: Command, tmp_path: Path) -> None:
    """Readers of VinDr's kind in other words: --source says so, in three rows an image."""
    rows = [
        (f"{n}.png", f"R{reader}", int(n % 2 == 0), site)
        for n, site in enumerate("ABAB")
        for reader in range(3)
    ]
    labels = tmp_path / "l.csv"
    frame = pd.DataFrame(rows, columns=["image_id", "rad_id", "Mass", "hospital"])
    frame.assign(subject=1).to_csv(labels, index=False)
    path = tmp_path / "p.csv"
    pd.DataFrame({"ImageID": [f"{n}.png" for n in range(4)], "Mass": [0.9, 0.1, 0.8, 0.3]}).to_csv(
        path, index=False
    )
    flags = ("--predictions", path, "--labels", labels, "--source", "vindr", "--resamples", 0)
    code, _, error = command(*flags, "--by", "hospital", "--patient_column", "none")
    assert (code, error) == (0, "")
    assert set(read_json(tmp_path / "p_metrics.json")["subgroups"]["hospital"]["subgroups"]) == {
        "A",
        "B",
    }
