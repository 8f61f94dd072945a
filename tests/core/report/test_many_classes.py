"""Reports of thousands of classes: pictures of head and tail, complete tables."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from core.metrics import Evaluation, evaluate
from core.report.figures import as_pictures, draw_pictures
from core.report.plots.classes import classes_figure, compared_figure
from core.report.plots.histograms import histograms_figure
from core.report.plots.precision_recall import precision_recall_figure
from core.report.tables import class_table, fold_tables, format_table
from ensemble.scoring.page import HEADINGS as COMPARED

Scored = tuple[Evaluation, np.ndarray, np.ndarray]
NOTE = "the 32 most and 32 least prevalent of 290 scored classes (300 in all)"


def synthetic_scores(classes: int, without: int) -> Scored:
    """Class c has the prevalence rank c; the last `without` have no positive."""
    random = np.random.default_rng(0)
    order = random.permuted(np.tile(np.arange(2 * classes), (classes, 1)), axis=1).T
    counts = classes - np.arange(classes)
    targets = (order < np.where(counts > without, counts, 0)).astype(float)
    probabilities = random.random(targets.shape)
    names = [f"c{place}" for place in range(classes)]
    return evaluate(targets, probabilities, names, resamples=0), targets, probabilities


def drawn(figure: Figure | None) -> tuple[list[str], str]:
    """The classes with a row or a plot of their own, in order, and the note above them."""
    assert figure is not None
    if len(figure.axes) == 2:
        names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    else:
        names = [axis.get_title() for axis in figure.axes if axis.get_title()]
    return [name.split(" ")[0] for name in names], figure.get_suptitle()


def test_pictures_of_many_classes_show_the_head_and_the_tail() -> None:
    evaluation, targets, probabilities = synthetic_scores(300, 10)
    names = [f"c{place}" for place in (*range(32), *range(290 - 32, 290))]
    for figure in (
        classes_figure(evaluation),
        compared_figure({"a": evaluation, "b": evaluation}),
        histograms_figure(evaluation, targets, probabilities),
        precision_recall_figure(evaluation, targets, probabilities),
    ):
        assert drawn(figure) == (names, NOTE)


def test_many_classes_of_which_hardly_any_can_be_scored() -> None:
    names, note = drawn(classes_figure(synthetic_scores(300, 290)[0]))
    assert names == [f"c{place}" for place in range(10)]
    assert note == "all of 10 scored classes (300 in all)"
    evaluation, targets, probabilities = synthetic_scores(300, 300)
    assert len(drawn(classes_figure(evaluation))[0]) == 64
    assert precision_recall_figure(evaluation, targets, probabilities) is None
    compared_figure({"a": evaluation, "b": evaluation})


def test_captions_describe_what_is_shown_and_tables_stay_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluation, targets, probabilities = synthetic_scores(300, 10)
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    pictures = {one.name: one for one in draw_pictures(evaluation, targets, probabilities)}
    for name in ("classes", "precision_recall", "score_histograms"):
        assert pictures[name].caption.endswith(f"Shown: {NOTE}.")
    assert "Shown" not in pictures["reliability"].caption
    compared = as_pictures(dict.fromkeys(COMPARED, Figure()), COMPARED, evaluation)
    assert [NOTE in one.caption for one in compared] == [True, True, False]
    assert len(class_table(evaluation).rows) == 300
    assert len(fold_tables(evaluation, {1: evaluation, 2: evaluation})[1].rows) == 300
    # what cannot be scored is named, and not all of thousands of names
    assert max(map(len, format_table(evaluation).splitlines())) <= 100
