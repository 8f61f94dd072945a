"""The report page, its pictures and the closing table."""

import base64
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import StepPatch

from core.metrics import evaluate
from core.plots import (
    classes_figure,
    curves_figure,
    precision_recall_figure,
    reliability_figure,
    shorten,
)
from core.report import format_table, write_report

PNG = b"\x89PNG\r\n\x1a\n"
EVIL = "<script>alert('x')</script>"
NAMES = ["Effusion", "Nodule $x_$", EVIL, "A very long name of a very rare finding", "Never seen"]
TRAINING = [0.3, 0.12, 0.05, 0.002, 0.001]


@pytest.fixture(scope="module")
def scored():
    """Evaluation, targets and probabilities of five classes, the last without positives."""
    random = np.random.default_rng(0)
    targets = (random.random((300, 5)) < [0.3, 0.2, 0.1, 0, 0]).astype(float)
    targets[[5, 100, 200], 3] = 1
    targets[0, 0] = np.nan
    probabilities = 1 / (1 + np.exp(1 - 2 * np.nan_to_num(targets) - random.normal(size=(300, 5))))
    patients = np.arange(300) // 2
    evaluation = evaluate(targets, probabilities, NAMES, TRAINING, patients, resamples=100)
    return evaluation, targets, probabilities


@pytest.fixture(scope="module")
def history():
    """Two folds of four epochs in two phases; the weights of epochs 3 and 2 were kept."""
    table = pd.DataFrame({"fold": [1] * 4 + [2] * 4, "epoch": [1, 2, 3, 4] * 2})
    table["phase"] = ["head", "all", "all", "all"] * 2
    table["train_loss"] = [0.5, 0.4, 0.3, 0.2] * 2
    table["mAP"] = [0.1, 0.2, 0.4, 0.3, 0.1, 0.5, 0.2, 0.3]
    table["mAUROC"] = [0.6, 0.7, 0.8, 0.9] * 2
    table["best"] = [1, 1, 1, 0, 1, 1, 0, 0]
    return table


class Page(HTMLParser):
    """Tags and visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def written(tmp_path_factory, scored, history):
    """Run folder and parsed page."""
    folder = tmp_path_factory.mktemp("run")
    facts = {"Command": "python train.py --labels \"A,B\" <in> 'x'", EVIL: EVIL}
    evaluation, targets, probabilities = scored
    path = write_report(folder, evaluation, targets, probabilities, history, f"Run {EVIL}", facts)
    assert path == folder / "report.html"
    return folder, Page(path.read_text(encoding="utf-8"))


# --- page -----------------------------------------------------------------------------------


def test_run_folder_holds_the_page_and_the_pictures_and_nothing_else(written):
    folder, _ = written
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names = ["classes", "curves", "precision_recall", "reliability"]
    assert files == [f"plots/{name}.png" for name in names] + ["report.html"]


def test_page_embeds_its_pictures_and_loads_nothing(written):
    folder, page = written
    prefix = "data:image/png;base64,"
    images = page.all("img")
    assert [image["src"].startswith(prefix) for image in images] == [True] * 4
    embedded = {base64.b64decode(image["src"].removeprefix(prefix)) for image in images}
    assert embedded == {path.read_bytes() for path in folder.glob("plots/*.png")}
    assert all(data.startswith(PNG) for data in embedded)
    assert all(len(image["alt"]) > 40 for image in images)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert [image for tag in page.tags for image in tag[1] if image.startswith("on")] == []
    assert "http" not in page.text


def test_names_from_files_are_text_and_never_markup(written):
    _, page = written
    # title (twice), class, note of the fact's name and its value
    assert page.text.count(EVIL) == 5
    assert "python train.py --labels \"A,B\" <in> 'x'" in page.text


def test_page_tells_the_numbers(written, scored):
    _, page = written
    summary, rows = scored[0].summary, scored[0].per_class
    assert "300 images, 150 patients, 5 classes, 4 of them scored" in page.text
    low, high = summary["intervals"]["mAP"]
    rarest = f"without the rarest: {summary['interval_points']['mAP']:.3f} [{low:.3f}, {high:.3f}]"
    assert f"mAP 4 {summary['mAP']:.3f} {rarest}" in page.text
    low, high = summary["intervals"]["mAP_medium"]
    assert f"mAP, medium 1 {summary['mAP_medium']:.3f} [{low:.3f}, {high:.3f}]" in page.text
    row = rows.loc["Effusion"]
    assert (
        f"Effusion head {row['positives']} "
        f"{row['ap']:.3f} [{row['ap_low']:.3f}, {row['ap_high']:.3f}] "
        f"{row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}] "
        f"{row['f1']:.3f} {row['ece']:.3f}"
    ) in page.text
    assert "has no AP and no AUROC and is left out of the means. Here: Never seen." in page.text
    assert f"Never seen tail 0 - - - {rows.at['Never seen', 'ece']:.3f}" in page.text
    assert "the 3 classes with at least 5 positive patients, without A very long name" in page.text


def test_report_is_tolerant_of_what_a_run_has_not(tmp_path):
    """Nothing scored, no intervals, an empty history, no facts."""
    targets, probabilities = np.zeros((4, 2)), np.full((4, 2), 0.2)
    evaluation = evaluate(targets, probabilities, ["A", "B"], resamples=0)
    path = write_report(tmp_path, evaluation, targets, probabilities, pd.DataFrame(), "Empty", {})
    page = Page(path.read_text(encoding="utf-8"))
    assert sorted(plot.name for plot in tmp_path.glob("plots/*")) == [
        "classes.png",
        "reliability.png",
    ]
    assert len(page.all("img")) == 2
    assert "mAP 0 -" in page.text
    assert "Here: A, B." in page.text
    assert "bootstrap" not in page.text


def test_second_report_replaces_the_first(tmp_path, scored, history):
    evaluation, targets, probabilities = scored
    first, second = (
        write_report(tmp_path, evaluation, targets, probabilities, history, title, {}).read_text()
        for title in ("First", "Second")
    )
    assert first.replace("First", "Second") == second


# --- pictures -------------------------------------------------------------------------------


def axes_of(figure):
    """The axes of a figure that must be there."""
    assert figure is not None
    return figure.axes


def lines_of(axis, **wanted):
    """Data of an axis's lines whose properties are as wanted."""
    return [
        line.get_xydata()
        for line in axis.lines
        if all(getattr(line, f"get_{name}")() == value for name, value in wanted.items())
    ]


def test_curves_ring_the_kept_epoch_of_each_fold(history):
    loss, ap, auroc = axes_of(curves_figure(history))
    assert [axis.get_title(loc="left") for axis in (loss, ap, auroc)] == [
        "Training loss",
        "Macro AP",
        "Macro AUROC",
    ]
    rings = np.concatenate(lines_of(ap, marker="o"))
    np.testing.assert_array_equal(rings, [[3, 0.4], [2, 0.5]])
    np.testing.assert_array_equal(np.concatenate(lines_of(auroc, marker="o")), [[3, 0.8], [2, 0.7]])
    (first, second) = lines_of(ap, marker=".")
    np.testing.assert_array_equal(first, [[1, 0.1], [2, 0.2], [3, 0.4], [4, 0.3]])
    np.testing.assert_array_equal(second[:, 1], [0.1, 0.5, 0.2, 0.3])
    (change,) = lines_of(loss, linestyle=":")
    np.testing.assert_array_equal(change[:, 0], 1.5)


def test_curves_take_a_history_with_missing_columns_and_epochs_counted_anew(history):
    assert curves_figure(pd.DataFrame()) is None
    assert curves_figure(history[["fold", "epoch"]]) is None
    lone = pd.DataFrame({"epoch": [1, 2, 1, 2], "train_loss": [0.4, 0.3, np.nan, 0.35]})
    (axis,) = axes_of(curves_figure(lone))
    (line,) = lines_of(axis, marker=".")
    np.testing.assert_array_equal(line[:, 0], [1, 2, 3, 4])
    assert not len(np.concatenate(lines_of(axis, marker="o")))


def test_classes_are_ordered_by_training_prevalence_with_chance_and_interval(scored):
    evaluation = scored[0]
    left, right = classes_figure(evaluation).axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert [label.rsplit("  ", 1)[0] for label in labels] == [shorten(name) for name in NAMES]
    assert list(left.get_yticks()) == [4, 3, 2, 1, 0]  # first on top
    for axis, metric in ((left, "ap"), (right, "auroc")):
        dots = np.concatenate(lines_of(axis, marker="o"))
        np.testing.assert_array_equal(dots[:, 0], evaluation.per_class[metric])
        bars = lines_of(axis, marker="None", linestyle="-")
        bounds = evaluation.per_class[[f"{metric}_low", f"{metric}_high"]]
        np.testing.assert_array_equal([bar[:, 0] for bar in bars], bounds)
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


def test_pictures_grow_with_the_number_of_classes():
    random = np.random.default_rng(0)
    targets = (random.random((80, 60)) < 0.3).astype(float)
    probabilities = random.random((80, 60))
    names = [f"class {number}" for number in range(60)]
    evaluation = evaluate(targets, probabilities, names, resamples=0)
    assert classes_figure(evaluation).get_figheight() > 60 * 0.25
    figure = precision_recall_figure(evaluation, targets, probabilities)
    assert figure is not None
    assert figure.get_figheight() > 15 * 2


# --- terminal -------------------------------------------------------------------------------


def test_table_fits_a_hundred_columns_and_tells_the_numbers(scored):
    evaluation = scored[0]
    lines = format_table(evaluation).splitlines()
    assert max(len(line) for line in lines) <= 100
    order = [line.split()[0] for line in lines[2:7]]
    assert order == ["Effusion", "Nodule", "<script>alert('x')</script>", "A", "Never"]
    row = evaluation.per_class.loc["Effusion"]
    ap = f"{row['ap']:.3f} [{row['ap_low']:.3f}, {row['ap_high']:.3f}]"
    auroc = f"{row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
    assert lines[2].split(maxsplit=2) == ["Effusion", str(row["positives"]), f"{ap}  {auroc}  head"]
    assert lines[5].startswith("A very long name of a very ra… ")
    assert lines[6].split() == ["Never", "seen", "0", "-", "-", "tail"]
    macro = f"{evaluation.summary['mAP']:.3f}"
    assert ["mAP", "4", macro] in [line.split()[:3] for line in lines]
    assert "Here: Never seen." in lines[-1]


def test_table_without_intervals_and_with_many_unscored_classes():
    names = [f"a class with a name of some length {number}" for number in range(12)]
    evaluation = evaluate(np.zeros((3, 12)), np.full((3, 12), 0.1), names, resamples=0)
    text = format_table(evaluation)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "[" not in text
    flowing = " ".join(text.split())
    assert all(name in flowing for name in names)


def test_long_names_are_cut_with_an_ellipsis():
    assert shorten("short") == "short"
    assert shorten("two\nlines\tand tabs") == "two lines and tabs"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"
