"""`ensemble.evaluate` of several files: means and differences over the same classes."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from core.metrics import paired_difference
from ensemble.calibrate import _describe_gain
from ensemble.scoring.subgroups import Grouping, score_subgroups
from ensemble.scoring.tables import subgroup_table
from tests.helpers.page_text import words
from tests.helpers.synthetic.scores import (
    CLASSES,
    NAMES,
    NEVER,
    ONE,
    RARE,
    Command,
    Files,
    read_json,
    scored_of,
)

SCORED = [*NAMES, RARE]
METRICS = {"mAP": average_precision_score, "mAUROC": roc_auc_score}


pytestmark = pytest.mark.usefixtures("blank")


@pytest.fixture
def files(files: Files, tmp_path: Path) -> Files:
    """With a file that is worse than `best` on the common classes and finds the rare one."""
    flip = files.probabilities["best"].copy()
    flip[::4, :4] = 0.5
    flip[:, CLASSES.index(RARE)] = np.arange(150) == 7
    frame = pd.DataFrame(flip, columns=CLASSES)
    frame.insert(0, "ImageID", [f"{number:03d}.png" for number in range(150)])
    frame.to_csv(tmp_path / "flip.csv", index=False)
    files = replace(files, probabilities=files.probabilities | {"flip": flip})
    every, common = (
        mean(files, "flip", "mAP", classes) - mean(files, "best", "mAP", classes)
        for classes in (SCORED, NAMES)
    )
    assert every > 0.05
    assert common < -0.05
    return files


def mean(files: Files, name: str, metric: str, classes: list[str]) -> float:
    """Macro mean by scikit-learn over the images with a known label."""
    values = []
    for place in map(CLASSES.index, classes):
        known = ~np.isnan(files.targets[:, place])
        labels, scores = files.targets[known, place], files.probabilities[name][known, place]
        values.append(METRICS[metric](labels, scores))
    return float(np.mean(values))


@pytest.mark.parametrize(("resamples", "classes"), [(20, NAMES), (0, SCORED)])
def test_a_leaderboard(command: Command, files: Files, resamples: int, classes: list[str]) -> None:
    names, out = ["best", "flip", "poor"], files.folder / "out"
    flags = ["--labels", files.path("labels"), "--resamples", resamples, "--report"]
    paths = [files.path(name) for name in names]
    code, printed, error = command("--predictions", *paths, *flags, "--output", out)
    assert code == 0, error
    lines = [re.split(r"  +", line) for line in printed.splitlines()]
    heads = next(cells for cells in lines if cells[0] == "File")
    assert f"mAP ({len(SCORED)})" in heads
    rows = {cells[0]: dict(zip(heads, cells, strict=True)) for cells in lines if len(cells) > 4}
    page, found = words(out.with_suffix(".html").read_text()), read_json(out.with_suffix(".json"))
    board = {Path(one["predictions"]).stem: one["compared"] for one in found["leaderboard"]}
    assert board["best"] is None
    count = len(classes)
    for metric in METRICS:
        means = {name: mean(files, name, metric, classes) for name in names}
        for name in names:
            row, difference = rows[f"{name}.csv"], means[name] - means["best"]
            assert row[f"{metric} ({count})"] == f"{means[name]:.3f}"
            expected = "reference" if name == "best" else f"{difference:+.3f}"
            assert row[f"{metric} difference ({count})"].split(" ")[0] == expected
            if compared := board[name]:
                assert compared["classes"] == classes
                assert compared["left_out"] == [one for one in SCORED if one not in classes]
                assert compared[metric]["file"] == pytest.approx(means[name])
                assert compared[metric]["reference"] == pytest.approx(means["best"])
                assert compared[metric]["difference"] == pytest.approx(difference)
                assert (compared[metric]["interval"] is None) == (resamples == 0)
    # on the page too, and the classes by name wherever they are fewer
    fewer = count < len(SCORED)
    ends = f"mAP difference ({count}) mAUROC difference ({count})"
    assert f"ECE (6){' mAP (4) mAUROC (4)' if fewer else ''} {ends}" in page
    for text in (" ".join(printed.split()), page):
        assert f"cannot be scored: {NEVER}." in text
        assert ("over the 4 classes with at least 10 positive patients" in text) == fewer
        assert (f"are, without {RARE}." in text) == fewer
    table = pd.read_csv(out.with_suffix(".csv"), index_col="predictions")
    own = table.T[str(files.path("flip"))]
    assert own["difference_mAP"] == pytest.approx(own["mAP"] - table["mAP"][str(paths[0])])
    assert (own["classes_scored"], own["unscored"]) == (5, NEVER)
    if resamples:
        assert (own["classes_in_intervals"], own["too_rare_for_intervals"]) == (4, RARE)


def test_subgroups_have_intervals_over_the_same_classes_alone(files: Files) -> None:
    rows = {"one": np.arange(100), "other": np.arange(100, 150)}
    targets = files.targets[:, :3].copy()
    targets[100:, 2] = 0
    targets[[101, 103], 2] = 1
    best = files.probabilities["best"][:, :3]
    scored = scored_of(targets, best, NAMES[:3], [0.3] * 3)
    scores = score_subgroups(Grouping("site", "", rows), scored, ONE)
    lines = {line.split()[0]: line for line in subgroup_table(scores).as_text().splitlines()}
    assert "[" in lines["one"]
    # two positives of the third class are too few there
    assert "[" not in lines["other"]


def test_a_calibration_names_both_sets_of_classes(files: Files) -> None:
    flip, best = (files.probabilities[name] for name in ("flip", "best"))
    message = _describe_gain(paired_difference(files.targets, flip, best, CLASSES, resamples=20))
    differences = [
        mean(files, "flip", "mAP", classes) - mean(files, "best", "mAP", classes)
        for classes in (SCORED, NAMES)
    ]
    assert message.startswith(f"mAP {differences[0]:+.3f} *{differences[1]:+.3f} [")
    assert (
        f"over the 5 classes that can be scored. * mean and interval over the {len(NAMES)}"
        in message
    )
    assert message.endswith(f"positive patients, without {RARE}.")
