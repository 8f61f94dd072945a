"""`python -m ensemble.evaluate`: scores against core.metrics on tables ordered by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.metrics import evaluate, paired_difference
from ensemble.predict.calibration import Calibration, Identity, write_calibration
from ensemble.scoring.comparison import short_names
from ensemble.scoring.operating_points import TargetPoint, operating_points
from tests.helpers.synthetic.scores import (
    CLASSES,
    NAMES,
    NEVER,
    RARE,
    RESAMPLES,
    Command,
    Files,
    read_json,
)


def assert_same(found: Any, expected: Any) -> None:
    """JSON against what it was made of."""
    if isinstance(expected, pd.DataFrame):
        expected = expected.to_dict("index")
    if isinstance(expected, dict):
        assert list(found) == [str(key) for key in expected]
        for key, value in expected.items():
            assert_same(found[str(key)], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float) and np.isnan(expected):
        assert found is None
    else:
        assert found == expected if isinstance(expected, str) else found == pytest.approx(expected)


def test_studies_are_counted_by_the_column_that_names_them(command: Command, files: Files) -> None:
    labels = pd.read_csv(files.path("labels"), dtype=str, keep_default_na=False)
    labels["visit"] = [f"v{row % 40}" for row in range(len(labels))]
    labels.to_csv(files.path("with_visits"), index=False)
    flags = (
        *("--predictions", files.path("best"), "--labels", files.path("with_visits")),
        *("--resamples", 20, "--output", files.path("out").with_suffix("")),
    )
    _, printed, _ = command(*flags, "--study_column", "visit", "--overwrite")
    assert " patients, 40 studies, 6 classes" in printed
    assert " studies, " not in command(*flags, "--overwrite")[1]


def test_one_file_by_training_prevalence(command: Command, files: Files) -> None:
    code, printed, error = command(
        *("--predictions", files.path("best"), *files.flags, "--seed", 4),
        *("--train_csv", files.path("train")),
    )
    assert code == 0, error
    shares = [0.3, 0.2, 0.05, 0.009, 0.002, 0.0]
    expected = evaluate(
        files.targets, files.probabilities["best"], CLASSES, shares, files.patients, 20, 4
    )
    assert expected.per_class["group"].tolist() == ["head", "head", "medium", *["tail"] * 3]
    found = read_json(files.path("best").with_name("best_metrics.json"))
    assert found["kind"] == "evaluation"
    assert_same(found["summary"], expected.summary)
    assert_same(found["per_class"], expected.per_class)
    table = pd.read_csv(files.path("best_metrics"), index_col="class")
    pd.testing.assert_frame_equal(table, expected.per_class, rtol=1e-6, check_dtype=False)
    patients = len(np.unique(files.patients))
    assert f"150 images, {patients} patients, 6 classes" in printed
    assert f"prevalence   {files.path('train')}" in printed
    low, high = expected.summary["intervals"]["mAP_tail"]
    point = expected.summary["interval_points"]["mAP_tail"]
    assert f"without the rarest: {point:.3f} [{low:.3f}, {high:.3f}]" in printed
    assert re.search(rf"ECE, flattened +{expected.summary['ECE_flat']:.3f}\n", printed)
    assert f"left out of the means. Here: {NEVER}." in " ".join(printed.split())
    prefix = files.folder / "best_metrics"
    assert printed.splitlines()[-1] == f"scores       {prefix}.json, {prefix}.csv"


def test_several_files_are_a_leaderboard(command: Command, files: Files) -> None:
    paths = [files.path(name) for name in ("middling", "poor", "best")]
    code, printed, error = command("--predictions", *paths, *files.flags)
    assert code == 0, error
    rows = [line.split() for line in printed.splitlines() if ".csv  " in line and "0." in line]
    assert [row[0] for row in rows] == ["best.csv", "middling.csv", "poor.csv"]
    assert rows[1][-2:] == ["reference", "reference"]
    found = read_json(files.path("middling").with_name("middling_leaderboard.json"))
    board = {Path(row["predictions"]).stem: row for row in found["leaderboard"]}
    table = pd.read_csv(files.path("middling_leaderboard"), index_col="predictions")
    assert list(board) == ["best", "middling", "poor"] == [Path(path).stem for path in table.index]
    reference = files.probabilities["middling"]
    for name, row in board.items():
        p = files.probabilities[name]
        own = evaluate(files.targets, p, CLASSES, None, files.patients, 20)
        assert_same(row["summary"], own.summary)
        assert table.loc[str(files.path(name)), "ECE"] == pytest.approx(own.summary["ECE"])
        if name == "middling":
            assert row["difference"] is None
            continue
        paired = paired_difference(files.targets, p, reference, CLASSES, files.patients, 20)
        assert_same(row["difference"], {"summary": paired.summary, "per_class": paired.per_class})
        low = paired.summary["intervals"]["mAP"][0]
        assert table.loc[str(files.path(name)), "difference_mAP_low"] == pytest.approx(low)


def test_one_file_against_another(command: Command, files: Files) -> None:
    flags = ["--predictions", files.path("best"), "--against", files.path("poor"), *files.flags]
    code, printed, error = command(*flags)
    assert code == 0, error
    best, poor = files.probabilities["best"], files.probabilities["poor"]
    expected = paired_difference(files.targets, best, poor, CLASSES, files.patients, 20)
    found = read_json(files.folder / "best_metrics.json")["difference"]
    assert_same(found["summary"], expected.summary)
    assert_same(found["per_class"], expected.per_class)
    table = pd.read_csv(files.path("best_metrics"), index_col="class")
    for column, values in expected.per_class.items():
        np.testing.assert_allclose(table[f"difference_{column}"], values, rtol=1e-6)
    value = expected.per_class["ap"]["Mass"]
    row = next(line for line in printed.split("(other):")[1].splitlines() if "Mass" in line)
    assert f" {value:+.3f} [" in row


def test_operating_points(command: Command, files: Files) -> None:
    path, names = files.folder / "calibration.json", list(reversed(CLASSES))
    classes = {
        name: Identity(threshold=0.1 + place / 10, threshold_gated=0.05 + place / 10)
        for place, name in enumerate(names)
    }
    write_calibration(path, Calibration(classes, None, 0), {})
    fitted = np.array([classes[name].threshold for name in CLASSES])
    gated = np.array([classes[name].threshold_gated for name in CLASSES])
    data = files.targets, files.probabilities["best"], CLASSES
    for given, at in (
        (["--thresholds", 0.3], np.full(6, 0.3)),
        (["--thresholds", path], fitted),
        (["--thresholds", path, "--gated"], gated),
        (["--sensitivity", 0.8], TargetPoint("sensitivity", 0.8)),
        (["--specificity", 0.8], TargetPoint("specificity", 0.8)),
    ):
        expected = operating_points(*data, at, files.patients)
        code, printed, error = command("--predictions", files.path("best"), *files.flags, *given)
        assert code == 0, error
        found = read_json(files.path("best").with_name("best_metrics.json"))["operating_points"]
        assert_same(found["per_class"], expected)
        table = pd.read_csv(files.path("best_metrics"), index_col="class")
        thresholds = table["operating_threshold"].to_numpy()
        np.testing.assert_allclose(thresholds, expected["threshold"], rtol=1e-6)
        np.testing.assert_allclose(table["ppv_high"].to_numpy(), expected["ppv_high"], rtol=1e-6)
        row = expected.loc["Nodule"]
        line = next(line for line in printed.split("Operating")[1].splitlines() if "Nodule" in line)
        low, high = row["specificity_low"], row["specificity_high"]
        assert f"{row['specificity']:.3f} [{low:.3f}, {high:.3f}]" in line
        assert ("_at_" in " ".join(table.columns)) == isinstance(at, TargetPoint)


def test_subgroups(command: Command, files: Files) -> None:
    flags = ["--predictions", files.path("best"), *files.flags]
    code, printed, error = command(*flags, "--by", "sex", "age", "--meta", files.path("meta"))
    assert code == 0, error
    found = read_json(files.folder / "best_metrics.json")
    assert list(found["subgroups"]) == ["sex", "age"]
    labels = pd.read_csv(files.path("labels")).merge(pd.read_csv(files.path("meta")), on="ImageID")
    shares = [found["per_class"][name]["prevalence"] for name in CLASSES]
    spans = ["0-17", "18-39", "40-59", "60-79", "80+"]
    ages = pd.cut(labels["Age"].str[:3].astype(int), [0, 17, 39, 59, 79, 200], labels=spans)
    for by, column in (("sex", labels["Sex"]), ("age", ages)):
        groups = found["subgroups"][by]["subgroups"]
        assert set(groups) == set(column)
        for name, group in groups.items():
            rows = np.flatnonzero(column == name)
            p = files.probabilities["best"][rows]
            own = evaluate(files.targets[rows], p, CLASSES, shares, files.patients[rows], 20)
            assert_same(group["per_class"], own.per_class)
            assert_same(group["summary"]["intervals"], own.summary["intervals"])
            start = f"{len(rows)} {len(set(files.patients[rows]))} {own.summary['classes_scored']} "
            line = next(li for li in printed.splitlines() if li.startswith(f"{name} "))
            assert " ".join(line.split()[1:]).startswith(start)
    # one of the sexes has the fracture, so that means are over the other four
    assert found["subgroups"]["sex"]["compared_classes"] == NAMES
    assert f"over the 4 classes by which subgroups can be compared, without {RARE}, {NEVER}" in (
        " ".join(printed.split())
    )


def test_a_column_that_divides_is_no_class(command: Command, files: Files) -> None:
    labels = pd.read_csv(files.path("labels"))
    labels["Smoker"] = np.arange(150) % 2
    labels.to_csv(files.path("labels"), index=False)
    flags = ["--predictions", files.path("best"), *files.flags]
    code, _, error = command(*flags)
    assert code == 2
    assert f"1 class of {files.path('labels')} not in {files.path('best')}: Smoker" in error
    code, printed, error = command(*flags, "--by", "Smoker")
    assert code == 0, error
    assert "1           75" in printed


def test_what_all_have_is_scored_with_common(command: Command, files: Files) -> None:
    frame = pd.read_csv(files.path("best")).drop(columns="Mass").iloc[20:]
    frame.to_csv(files.path("best"), index=False)
    flags = ["--predictions", files.path("best"), *files.flags]
    code, _, error = command(*flags)
    assert code == 2
    assert "20 images of" in error
    assert "1 class of" in error
    assert "--common" in error
    assert not files.path("best_metrics").exists()
    code, printed, error = command(*flags, "--common")
    assert code == 0, error
    rows = np.sort(frame["ImageID"].str[:3].astype(int).to_numpy())
    kept = np.array([0, 1, 3, 4, 5])
    expected = evaluate(
        files.targets[np.ix_(rows, kept)],
        files.probabilities["best"][np.ix_(rows, kept)],
        [CLASSES[place] for place in kept],
        patients=files.patients[rows],
        resamples=20,
    )
    found = read_json(files.path("best").with_name("best_metrics.json"))
    assert_same(found["summary"], expected.summary)
    assert len(found["made_from"]["notes"]) == 2
    for note in found["made_from"]["notes"]:
        assert note in printed


def test_studies_are_matched_by_name(command: Command, tmp_path: Path) -> None:
    targets, p = np.array([0, 1, 0, 1, 1, 0]), np.array([0.1, 0.9, 0.5, 0.4, 0.8, 0.2])
    studies = [f"s{row}" for row in range(6)]
    for name, values in (("l", targets), ("p", p)):
        frame = pd.DataFrame({"StudyID": studies, "Mass": values})
        frame.sample(frac=1, random_state=3).to_csv(tmp_path / f"{name}.csv", index=False)
    flags = ["--predictions", tmp_path / "p.csv", "--labels", tmp_path / "l.csv", *RESAMPLES]
    code, printed, error = command(*flags)
    assert code == 0, error
    found = read_json(tmp_path / "p_metrics.json")["summary"]
    assert found["mAP"] == evaluate(targets[:, None], p[:, None], ["Mass"]).summary["mAP"]
    assert "6 images, patients not known" in printed
    assert found["patients"] is None


def test_a_file_is_called_by_its_name_if_no_other_is() -> None:
    paths = [Path(text) for text in ("a/x/p.csv", "b/x/p.csv", "b/q.csv", "p.csv", "/p.csv")]
    names = ["a/x/p.csv", "b/x/p.csv", "q.csv", "p.csv", "/p.csv"]
    assert list(short_names(paths).values()) == names
    names = ["p.csv (1)", "p.csv (2)", "q.csv", "p.csv (4)", "p.csv (5)"]
    assert list(short_names(paths, anonymous=True).values()) == names
