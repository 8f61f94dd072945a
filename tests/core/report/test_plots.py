"""Pictures of a report."""

import io

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle, StepPatch
from scipy.stats import spearmanr

from core.metrics import evaluate
from core.report.plots.classes import classes_figure, compared_figure
from core.report.plots.cooccurrence import cooccurrence, cooccurrence_figure
from core.report.plots.histograms import histograms_figure
from core.report.plots.precision_recall import precision_recall_figure
from core.report.plots.reliability import reliability_figure
from core.report.plots.style import shorten
from core.report.plots.training_curves import curves_figure
from tests.helpers.synthetic.report import NAMES, TRAINING, synthetic_history, synthetic_scores


@pytest.fixture(scope="module")
def scored():
    return synthetic_scores()


@pytest.fixture
def history():
    return synthetic_history()


def axes_of(figure):
    """The axes of a figure that must be there."""
    assert figure is not None
    return figure.axes


def lines_of(axis, **wanted):
    """Data of the lines of an axis with these properties."""
    return [
        line.get_xydata()
        for line in axis.lines
        if all(getattr(line, f"get_{name}")() == value for name, value in wanted.items())
    ]


def dots_of(collection):
    """Positions of dots, NaN where there is none."""
    return np.ma.filled(collection.get_offsets().astype(float), np.nan)


def test_curves_ring_the_kept_epoch_of_each_fold(history):
    loss, ap, auroc, _ = axes_of(curves_figure(history))
    titles = [axis.get_title(loc="left") for axis in (loss, ap, auroc)]
    assert titles == ["Training loss", "Macro AP", "Macro AUROC"]
    rings = np.concatenate(lines_of(ap, marker="o"))
    np.testing.assert_array_equal(rings, [[3, 0.4], [2, 0.5]])
    np.testing.assert_array_equal(np.concatenate(lines_of(auroc, marker="o")), [[3, 0.8], [2, 0.7]])
    (first, second) = lines_of(ap, marker=".")
    np.testing.assert_array_equal(first, [[1, 0.1], [2, 0.2], [3, 0.4], [4, 0.3]])
    np.testing.assert_array_equal(second[:, 1], [0.1, 0.5, 0.2, 0.3])
    (change,) = lines_of(loss, linestyle=":")
    np.testing.assert_array_equal(change[:, 0], 1.5)


def test_curves_show_the_learning_rate_of_each_part_that_is_trained(history):
    *_, rates = axes_of(curves_figure(history))
    backbone, head = lines_of(rates, marker=".")
    # the second point is the gap between the phases
    np.testing.assert_array_equal(backbone[:, 1], [np.nan, np.nan, 0.1, 0.05, 0])
    np.testing.assert_array_equal(head, [[1, 0.25], [np.nan] * 2, [2, 0.5], [3, 0.25], [4, 0]])
    assert [text.get_text() for text in rates.get_legend().get_texts()] == ["backbone", "head"]


def test_classes_are_ordered_by_training_prevalence_with_chance_and_interval(scored):
    evaluation = scored[0]
    left, right = classes_figure(evaluation).axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert [label.rsplit("  ", 1)[0] for label in labels] == [shorten(name) for name in NAMES]
    assert list(left.get_yticks()) == [4, 3, 2, 1, 0]  # first on top
    for axis, metric in ((left, "ap"), (right, "auroc")):
        intervals, dots = axis.collections
        assert isinstance(intervals, LineCollection)
        np.testing.assert_array_equal(dots_of(dots)[:, 0], evaluation.per_class[metric])
        bounds = evaluation.per_class[[f"{metric}_low", f"{metric}_high"]]
        drawn = [segment[:, 0] for segment in intervals.get_segments() if len(segment)]
        np.testing.assert_array_equal(drawn, bounds.dropna())
    bars = [patch for patch in left.patches if isinstance(patch, Rectangle)]
    widths = [bar.get_width() for bar in bars]
    np.testing.assert_array_equal(widths, evaluation.per_class["ap"].fillna(0))
    colours = ["#0072B2"] * 2 + ["#009E73"] + ["#D55E00"] * 2
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == colours
    (chance,) = lines_of(left, marker="|")
    shares = evaluation.per_class["positives"] / evaluation.per_class["n"]
    np.testing.assert_allclose(chance[:4, 0], shares[:4])
    assert [text.get_text() for text in left.texts] == ["not scored: no positives"]


def test_area_under_each_drawn_precision_recall_curve_is_the_ap(scored):
    axes = axes_of(precision_recall_figure(*scored))
    drawn = [axis for axis in axes if axis.get_title()]
    assert len(drawn) == 4
    for axis, (name, row) in zip(drawn, scored[0].per_class.iterrows(), strict=False):
        assert axis.get_title() == f"{shorten(name, 22)}  {row['ap']:.2f}"
        curve = next(line for line in axis.lines if line.get_drawstyle() != "default")
        assert curve.get_drawstyle() == "steps-post"  # a height holds until the next point
        recall, precision = curve.get_xydata().T
        area = -np.sum(np.diff(recall) * precision[:-1])
        assert area == pytest.approx(row["ap"], abs=1e-9)


def test_reliability_shows_every_filled_bin(scored):
    evaluation, targets, probabilities = scored
    top, bottom = reliability_figure(evaluation, targets, probabilities).axes
    known = ~np.isnan(targets)
    y, p = targets[known], probabilities[known]
    cells = [(p >= low / 15) & (p < (low + 1) / 15) for low in range(15)]
    expected = [(p[cell].mean(), y[cell].mean()) for cell in cells if cell.any()]
    (points,) = lines_of(top, marker="o")
    np.testing.assert_allclose(points, expected)
    (histogram,) = bottom.patches
    assert isinstance(histogram, StepPatch)
    assert list(histogram.get_data()[0]) == [cell.sum() for cell in cells]
    assert f"{evaluation.summary['ECE_flat']:.3f}" in top.get_title(loc="left")


def test_histograms_hold_every_score_of_positives_and_of_negatives(scored):
    evaluation, targets, probabilities = scored
    axes = axes_of(histograms_figure(evaluation, targets, probabilities))
    drawn = [axis for axis in axes if axis.get_title()]
    assert len(drawn) == 5
    for axis, (column, name) in zip(drawn, enumerate(NAMES), strict=True):
        negative, positive = [one for one in axis.patches if isinstance(one, StepPatch)]
        labels = targets[:, column]
        counts = f"{(labels == 1).sum()} / {(labels == 0).sum()}"
        assert axis.get_title() == f"{shorten(name, 20)}  {counts}"
        for patch, label in ((negative, 0), (positive, 1)):
            heights, edges, _ = patch.get_data()
            scores = np.log(probabilities / (1 - probabilities))[labels == label, column]
            expected, _ = np.histogram(scores, edges)
            assert expected.sum() == (labels == label).sum()
            np.testing.assert_allclose(heights, expected / max(1, expected.sum()))


def test_labels_that_come_together_are_counted_where_both_are_known():
    random = np.random.default_rng(3)
    targets = (random.random((60, 4)) < 0.4).astype(float)
    targets[random.random((60, 4)) < 0.2] = np.nan
    # the last two are never known together
    targets[:30, 2], targets[30:, 3] = np.nan, np.nan
    probabilities = random.random((60, 4))
    observed, predicted = cooccurrence(targets, probabilities)
    # a class that is never predicted comes with others as by chance
    assert (cooccurrence(targets, probabilities * [0, 1, 1, 1])[1][0, 1:] == 0).all()
    for i in range(4):
        for j in range(4):
            rows = [k for k in range(60) if not np.isnan(targets[k, [i, j]]).any()]
            if i == j or not rows:
                assert np.isnan(observed[i, j])
                assert np.isnan(predicted[i, j])
                continue
            n = len(rows)
            chance = sum(targets[k, i] for k in rows) * sum(targets[k, j] for k in rows) / n
            both = sum(targets[k, i] * targets[k, j] for k in rows)
            p, q = probabilities[rows, i], probabilities[rows, j]
            lift = np.mean(p * q) / (np.mean(p) * np.mean(q))
            expected = [(times + 0.5) / (chance + 0.5) for times in (both, lift * chance)]
            assert [observed[i, j], predicted[i, j]] == pytest.approx(np.log2(expected))
    assert np.isnan(observed[2, 3])


def test_the_maps_of_coupled_labels_agree(scored, monkeypatch):
    evaluation, targets, probabilities = scored
    left, right, _ = axes_of(cooccurrence_figure(evaluation, targets, probabilities))
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [shorten(name, 22) for name in NAMES]
    maps = cooccurrence(targets, probabilities)
    for axis, values in zip((left, right), maps, strict=True):
        np.testing.assert_allclose(axis.images[0].get_array().filled(np.nan), values, atol=1e-12)
    pairs = [one[np.triu_indices(5, 1)] for one in maps]
    agreement = f"(rank correlation {spearmanr(*pairs).statistic:.2f})"
    assert right.get_title(loc="left").endswith(agreement)
    nothing = np.full_like(targets, np.nan)
    assert cooccurrence_figure(evaluation, nothing, probabilities) is None
    assert left.get_title(loc="left") == "Labels"
    monkeypatch.setattr("core.report.plots.cooccurrence.MOST_CLASSES", 3)
    left, *_ = axes_of(cooccurrence_figure(*scored))
    assert left.get_title(loc="left") == "Labels, the 3 most prevalent of 5 classes"


def test_why_a_class_is_not_scored():
    targets = np.array([[0, 1, np.nan, 1], [0, 1, np.nan, 0]])
    evaluation = evaluate(targets, np.full((2, 4), 0.5), list("abcd"), resamples=0)
    axis = classes_figure(evaluation).axes[0]
    texts = {text.get_position()[1]: text.get_text() for text in axis.texts}
    names = [label.get_text()[0] for label in axis.get_yticklabels()]
    reasons = dict(zip(names, map(texts.get, axis.get_yticks()), strict=True))
    lacking = {"a": "positives", "b": "negatives", "c": "known labels"}
    assert reasons == {n: f"not scored: no {what}" for n, what in lacking.items()} | {"d": None}


def test_files_are_compared_class_by_class(scored):
    evaluation, targets, probabilities = scored
    other = evaluate(targets, 1 - probabilities, NAMES, TRAINING, resamples=20)
    figure = compared_figure({"_a $x": evaluation, "b\udcff": other})
    figure.savefig(io.BytesIO())
    # no formula, and not left out
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"_a \$x", "b?"]
    left, right = axes_of(figure)
    for axis, metric in ((left, "ap"), (right, "auroc")):
        dots = [dots_of(one) for one in axis.collections if isinstance(one, PathCollection)]
        for line, one in zip(dots, (evaluation, other), strict=True):
            np.testing.assert_array_equal(line[:, 0], one.per_class[metric])
        assert (dots[0][:4, 1] > dots[1][:4, 1]).all()  # in the order given, from above
