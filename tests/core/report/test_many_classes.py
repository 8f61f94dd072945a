"""Thousands of classes: pictures show the head and the tail and say so, tables stay whole."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from core.metrics import Evaluation, evaluate
from core.report.figures import as_pictures, draw_pictures
from core.report.plots import (
    classes_figure,
    compared_figure,
    histograms_figure,
    precision_recall_figure,
)
from core.report.plots.precision_recall import compared_precision_recall
from core.report.tables import class_table, fold_tables, format_table
from ensemble.scoring.page import HEADINGS as COMPARED

Scored = tuple[Evaluation, np.ndarray, np.ndarray]
CLASSES, WITHOUT = 300, 10


def synthetic_scores(classes: int, without: int) -> Scored:
    """Class c has the prevalence rank c; the last `without` have no positive."""
    random = np.random.default_rng(0)
    images = 2 * classes
    order = random.permuted(np.tile(np.arange(images), (classes, 1)), axis=1).T
    counts = np.where(np.arange(classes) < classes - without, classes - np.arange(classes), 0)
    targets = (order < counts).astype(float)
    probabilities = random.random(targets.shape)
    names = [f"c{place}" for place in range(classes)]
    return evaluate(targets, probabilities, names, resamples=0), targets, probabilities


@pytest.fixture(scope="module")
def scored() -> Scored:
    return synthetic_scores(CLASSES, WITHOUT)


def drawn(figure: Figure | None) -> tuple[list[str], str]:
    """The classes with a row or a plot of their own, in order, and the note above them."""
    assert figure is not None
    if len(figure.axes) == 2:
        names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    else:
        names = [axis.get_title() for axis in figure.axes if axis.get_title()]
    return [name.split(" ")[0] for name in names], figure.get_suptitle()


def figures_of(scored: Scored) -> list[Figure | None]:
    evaluation, targets, probabilities = scored
    files = {"a": probabilities, "b": 1 - probabilities}
    return [
        classes_figure(evaluation),
        histograms_figure(evaluation, targets, probabilities),
        precision_recall_figure(evaluation, targets, probabilities),
        compared_figure({"a": evaluation, "b": evaluation}),
        compared_precision_recall(evaluation, targets, files),
    ]


def test_pictures_of_many_classes_show_the_head_and_the_tail(scored: Scored) -> None:
    last = CLASSES - WITHOUT
    expected = [f"c{place}" for place in (*range(32), *range(last - 32, last))]
    for figure in figures_of(scored):
        names, note = drawn(figure)
        assert names == expected
        assert note == "the 32 most and 32 least prevalent of 290 scored classes (300 in all)"


@pytest.mark.parametrize(("classes", "without"), [(14, 0), (64, 4)])
def test_pictures_of_fewer_classes_show_all(classes: int, without: int) -> None:
    scored = synthetic_scores(classes, without)
    rows, *small = (drawn(figure) for figure in figures_of(scored))
    every = [f"c{place}" for place in range(classes)]
    assert rows == (every, "")
    assert small[0] == (every, "")
    assert small[1] == (every[: classes - without], "")


@pytest.mark.parametrize("without", [300, 290])
def test_many_classes_of_which_hardly_any_can_be_scored(without: int) -> None:
    evaluation, targets, probabilities = synthetic_scores(300, without)
    names, note = drawn(classes_figure(evaluation))
    if without == 290:
        assert names == [f"c{place}" for place in range(10)]
        assert note == "all of 10 scored classes (300 in all)"
    else:
        assert len(names) == 64
        assert precision_recall_figure(evaluation, targets, probabilities) is None
    compared_figure({"a": evaluation, "b": evaluation})


def test_captions_say_what_is_shown_and_tables_stay_whole(
    scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, targets, probabilities = scored
    note = "the 32 most and 32 least prevalent of 290 scored classes (300 in all)"
    monkeypatch.setattr("core.report.figures._png", lambda _: b"")
    pictures = {one.name: one for one in draw_pictures(evaluation, targets, probabilities)}
    for name in ("classes", "precision_recall", "score_histograms"):
        assert pictures[name].caption.endswith(f"Shown: {note}.")
        assert note in pictures[name].alt
    assert "Shown" not in pictures["reliability"].caption
    compared = as_pictures(dict.fromkeys(COMPARED, (Figure(), "")), COMPARED, evaluation)
    assert [note in one.caption for one in compared] == [True, True, False]
    assert len(class_table(evaluation).rows) == CLASSES
    assert len(fold_tables(evaluation, {1: evaluation, 2: evaluation})[1].rows) == CLASSES
    printed = format_table(evaluation)
    assert sum(line.startswith("c") and "class" not in line for line in printed.splitlines()) == 300
    # what cannot be scored is named, and not all of thousands of names
    assert max(map(len, printed.splitlines())) <= 100
