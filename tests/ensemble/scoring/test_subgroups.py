"""Subgroups: found by name, and scored like separate tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.data.images.collection import Images
from core.data.sources import read_source_table
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.metrics import evaluate
from ensemble.scoring.subgroups import Grouping, read_groupings, score_subgroups, years
from tests.helpers.synthetic.scores import ONE, scored_of

IDS = [f"{number}.png" for number in range(6)]


@pytest.mark.parametrize(
    ("text", "age"),
    [
        *[("58", 58), ("58.5", 58.5), ("058Y", 58), ("58y", 58), ("012M", 1), ("000D", 0)],
        *[("026W", 26 * 7 / 365.25), ("730D", 730 / 365.25), ("0", 0), ("125", 125)],
        *[(text, np.nan) for text in ("", "old", "-5", "414", "058X", "Y", "1e3", "nan", "5 8")],
    ],
)
def test_ages_of_tables_and_of_dicom(text: str, age: float) -> None:
    np.testing.assert_allclose(years(text), age)


def write(path: Path, **columns: list[str]) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def groupings(
    by: list[str], ids: list[str], labels: Path, meta: Path | None = None, view: str = ""
) -> list[Grouping]:
    """As `read_groupings` finds them for these images of the CSV."""
    nothing = np.empty((len(ids), 0))
    table = LabelTable(ids=ids, images=Images.of_files([]), targets=nothing, class_names=())
    return read_groupings(by, table, read_source_table(labels), meta, view)


def divided(grouping: Grouping) -> dict[str, list[int]]:
    return {name: rows.tolist() for name, rows in grouping.rows.items()}


def test_columns_of_the_labels_and_of_another_file(tmp_path: Path) -> None:
    turned = [4, 0, 5, 3, 1, 2]
    ages = ["017Y", "18", "39", "", "101M", "080Y"]
    labels = write(
        tmp_path / "labels.csv",
        **{"ImageID": IDS, "Patient Gender": ["M", "F", "F", "", "F", "U"], "Site": list("ABABAB")},
    )
    meta = write(
        tmp_path / "meta.csv",
        **{
            "Image Index": [*(IDS[row] for row in turned), "other.png"],
            "Patient Age": [*(ages[row] for row in turned), "1"],
            "View Position": [*(("PA", "AP")[row > 1] for row in turned), "LL"],
            "Mine": [*("x" for _ in turned), "y"],
        },
    )
    sex, view, age, site = groupings(["sex", "view", "age", "Site"], IDS, labels, meta)
    assert list(divided(sex).items()) == [
        *[("F", [1, 2, 4]), ("M", [0]), ("U", [5]), ("unknown", [3])]
    ]
    assert sex.source == f"column 'Patient Gender' of {labels}"
    assert divided(view) == {"AP": [2, 3, 4, 5], "PA": [0, 1]}
    assert view.source == f"column 'View Position' of {meta}"
    assert list(divided(age).items()) == [
        *[("0-17", [0, 4]), ("18-39", [1, 2]), ("80+", [5]), ("unknown", [3])]
    ]
    assert divided(site) == {"A": [0, 2, 4], "B": [1, 3, 5]}
    # a part of the images, in another order; another column that is the view; age by its own name
    (mine,) = groupings(["view"], IDS[2:4], labels, meta, "Mine")
    assert divided(mine) == {"x": [0, 1]}
    (own,) = groupings(["Patient Age"], IDS[3:1:-1], labels, meta)
    assert divided(own) == {"18-39": [1], "unknown": [0]}


@pytest.mark.parametrize(
    ("by", "columns", "expected"),
    [
        (["sex", "sex"], {}, "--by names sex more than once"),
        (["sx"], {"Sex": ["M"] * 6}, r"is not a column of .*labels.csv and .*meta.csv.*'Sex'"),
        (["age"], {"Age": ["old"] * 6}, "has no age such as 58, 058Y or 012M, but old"),
        (["age"], {"Stage": ["IV"] * 6, "age_at": ["40"] * 6}, "'age_at' seems to have .* it Age$"),
        (["age"], {"Stage": ["IV"] * 6}, r"did you mean 'Stage'\?$"),
        (["Site"], {"ImageID": [f"{n}.png" for n in range(30)]}, "not a column"),
        (["Sex"], {"ImageID": [*IDS[:4], "7.png", "8.png"], "Sex": ["M"] * 6}, "lacks 2 of the 6"),
        (["Sex"], {"ImageID": [*IDS[:5], IDS[0]], "Sex": ["M"] * 6}, "more than once: 0.png"),
        (
            ["Sex"],
            {"ImageID": None, "name": IDS, "Sex": ["M"] * 6},
            "no column 'ImageID' of image names",
        ),
    ],
)
def test_columns_that_make_no_subgroups(
    by: list[str], columns: dict[str, list[str]], expected: str, tmp_path: Path
) -> None:
    labels = write(tmp_path / "labels.csv", ImageID=IDS)
    given = {key: value for key, value in ({"ImageID": IDS} | columns).items() if value}
    meta = write(tmp_path / "meta.csv", **given)
    with pytest.raises(UserError, match=expected):
        groupings(by, IDS, labels, meta)


def test_too_many_values_make_no_subgroups(tmp_path: Path) -> None:
    ids = [f"{number}.png" for number in range(21)]
    labels = write(tmp_path / "labels.csv", ImageID=ids, PatientID=[f"p{i}" for i in ids])
    with pytest.raises(UserError, match=r"'PatientID' of .* has 21 different values, .* 20$"):
        groupings(["PatientID"], ids, labels)
    years = write(tmp_path / "years.csv", ImageID=ids, age_years=[str(20 + i) for i in range(21)])
    with pytest.raises(UserError, match=r"20; ages are cut into bands if their column is named Ag"):
        groupings(["age_years"], ids, years)
    # only those of the images that are scored count
    assert len(groupings(["PatientID"], ids[1:], labels)[0].rows) == 20


NAMES = ["A", "B", "C", "D"]


def scored_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    targets = (random.random((240, 4)) < (0.4, 0.3, 0.2, 0.2)).astype(float)
    probabilities = 1 / (1 + np.exp(-random.normal(size=targets.shape) - targets))
    targets[random.random(targets.shape) < 0.1] = np.nan
    return targets, probabilities, random.integers(0, 90, size=240)


def test_each_subgroup_is_scored_as_a_separate_table() -> None:
    targets, probabilities, patients = scored_table()
    first, second, third = (np.flatnonzero(np.arange(240) % 5 == k) for k in range(3))
    # C has no positive in the second, and the third has nothing but A, which is fewer than half
    targets[second, 2] = 0
    targets[third, 1:] = np.nan
    grouping = Grouping("sex", "", {"M": first, "F": second, "unknown": third})
    prevalence = np.array([0.5, 0.05, 0.002, np.nan])
    scored = scored_of(targets, probabilities, NAMES, prevalence, patients, seed=3)
    scores = score_subgroups(grouping, scored, ONE)
    assert scores.compared_classes == ["A", "B", "D"]
    assert scores.subgroups["unknown"].compared is None
    for name, rows in grouping.rows.items():
        own = evaluate(
            targets[rows], probabilities[rows], NAMES, prevalence, patients[rows], 20, seed=3
        )
        found = scores.subgroups[name].own
        pd.testing.assert_frame_equal(found.per_class, own.per_class)
        assert repr(found.summary) == repr(own.summary)
    shared = [0, 1, 3]
    for name, rows in (("M", first), ("F", second)):
        part = targets[rows][:, shared], probabilities[rows][:, shared], ["A", "B", "D"]
        same = evaluate(*part, patients=patients[rows], resamples=20, seed=3).summary
        compared = scores.subgroups[name].compared
        assert compared is not None
        assert compared.summary["intervals"]
        for key in ("mAP", "mAUROC"):
            assert compared.summary[key] == pytest.approx(same[key], abs=1e-12)
        for key in {"mAP", "mAUROC"} & set(compared.summary["intervals"]):
            bounds = compared.summary["intervals"][key]
            assert bounds == pytest.approx(same["intervals"][key], abs=1e-12)


def test_subgroups_without_a_class_in_common_are_not_compared() -> None:
    targets, probabilities, _ = scored_table()
    rows = {"x": np.arange(100), "y": np.arange(100, 200), "one": np.array([239])}
    targets[:100, :2] = 0
    targets[100:, 2:] = 0
    scored = scored_of(targets, probabilities, NAMES, [0.1] * 4, resamples=0)
    scores = score_subgroups(Grouping("site", "", rows), scored, ONE)
    assert scores.compared_classes == []
    assert all(one.compared is None for one in scores.subgroups.values())
    assert scores.subgroups["one"].own.summary["classes_scored"] == 0
    assert scores.subgroups["x"].own.summary["patients"] is None


def test_equal_subgroups_of_other_sizes_have_equal_map() -> None:
    """The smaller one, and the one with more positives, would look better by their own mAP."""
    random = np.random.default_rng(0)
    shares = np.where(np.arange(3000) < 2500, 0.1, 0.3)
    targets = (random.random((3000, 4)) < shares[:, None]).astype(float)
    probabilities = 1 / (1 + np.exp(-random.normal(size=targets.shape) - 1.5 * targets))
    rows = {"many": np.arange(2500), "few": np.arange(2500, 3000)}
    scored = scored_of(targets, probabilities, NAMES, [0.1] * 4, resamples=0)
    scores = score_subgroups(Grouping("site", "", rows), scored, ONE)
    many, few = scores.subgroups["many"], scores.subgroups["few"]
    assert few.own.summary["mAP"] > many.own.summary["mAP"] + 0.1
    assert many.equal_map == pytest.approx(few.equal_map, abs=0.03)
    assert few.equal_map == pytest.approx(few.own.summary["mAP"], abs=1e-12)
