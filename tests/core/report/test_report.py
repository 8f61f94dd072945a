"""The report page and the closing table."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from core.metrics import evaluate
from core.report.figures import HEADINGS, Picture, draw_pictures
from core.report.page import Contents, rerun_command, write_report
from core.report.plots.style import shorten
from core.report.tables import (
    Table,
    class_table,
    fold_tables,
    format_table,
    lead_sentence,
    source_tables,
    summary_table,
)
from core.report.worst_images import Case, WorstImages
from core.runs.folder import PLOTS
from tests.helpers.synthetic.report import (
    EVIL,
    NAMES,
    TRAINING,
    synthetic_history,
    synthetic_scores,
)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def scored():
    return synthetic_scores()


def contents(scored, history, title, **more):
    """Report page with all sections."""
    evaluation, targets, probabilities = scored
    sections: list[Table | Picture] = [summary_table(evaluation), class_table(evaluation)]
    sections += draw_pictures(evaluation, targets, probabilities, history)
    return Contents(title=title, lead=lead_sentence(evaluation), sections=sections, **more)


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
def written(tmp_path_factory, scored):
    """Run folder and parsed page."""
    folder = tmp_path_factory.mktemp("run")
    facts = {"data": "\"A,B\" <in> 'x'", EVIL: EVIL}
    cases = [Case(EVIL, 0.25, 7, b"\xff\xd8 a jpeg"), Case("gone.png", 0.5, 3, b"")]
    page = contents(
        scored,
        synthetic_history(),
        f"Run {EVIL}",
        worst=[WorstImages("Effusion", "head", 1234, cases, [])],
        command=f"python train.py {EVIL}",
        facts=facts,
        settings={"model": EVIL, "val_csv": ""},
        environment={"python": "3.11"},
    )
    path = write_report(folder, page)
    assert path == folder / "report.html"
    return folder, Page(path.read_text(encoding="utf-8"))


# --- page -----------------------------------------------------------------------------------


def test_run_folder_holds_the_page_and_the_pictures_and_nothing_else(written):
    folder, _ = written
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [f"plots/{name}.png" for name in sorted(HEADINGS)] + ["report.html"]
    # what --overwrite deletes
    assert set(PLOTS) == set(HEADINGS)


def test_page_embeds_its_pictures_and_loads_nothing(written):
    folder, page = written
    *images, worst = page.all("img")
    assert worst["src"] == "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8 a jpeg").decode()
    assert worst["alt"] == f"Miss of Effusion: image {EVIL}, predicted 0.250"
    sources = [image["src"].partition("data:image/png;base64,")[2] for image in images]
    embedded = {base64.b64decode(source) for source in sources}
    assert embedded == {path.read_bytes() for path in folder.glob("plots/*.png")}
    assert all(data.startswith(PNG) for data in embedded)
    headings = [image["alt"].removesuffix(", as described below") for image in images]
    assert headings == [heading for heading, _ in HEADINGS.values()]
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object"}
    assert [name for _, attributes in page.tags for name in attributes if name[:2] == "on"] == []
    assert "http" not in page.text


def test_page_lets_no_script_run_but_its_own(written):
    folder, page = written
    assert len(page.all("script")) == 1
    (script,) = re.findall("<script>(.*?)</script>", (folder / "report.html").read_text(), re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [tag["content"] for tag in page.all("meta") if "http-equiv" in tag]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"


def test_names_from_files_are_text_and_never_markup(written):
    _, page = written
    # title (twice), class, image, command, setting, name and value of a fact
    assert page.text.count(EVIL) == 8
    assert "\"A,B\" <in> 'x'" in page.text


def test_page_shows_the_worst_cases_and_survives_an_image_that_is_gone(written):
    _, page = written
    assert f"0.250 rank 7 of 1,234 {EVIL}" in page.text
    assert "cannot be read 0.500 rank 3 of 1,234 gone.png" in page.text
    assert "Positives with the lowest scores" in page.text
    assert "Negatives with the highest scores" not in page.text
    assert "or the 30 rarest: up to 3 images labelled positive" in page.text


def test_page_shows_the_numbers(written, scored):
    _, page = written
    summary, rows = scored[0].summary, scored[0].per_class
    assert "300 images, 150 patients, 5 classes, 4 of them scored" in page.text
    low, high = summary["intervals"]["mAP"]
    rarest = f"without the rarest: {summary['interval_points']['mAP']:.3f} [{low:.3f}, {high:.3f}]"
    assert f"mAP 4 {summary['mAP']:.3f} {rarest}" in page.text
    low, high = summary["intervals"]["mAP_medium"]
    assert (
        f"mAP, medium classes (1-10 %) 1 {summary['mAP_medium']:.3f} [{low:.3f}, {high:.3f}]"
        in page.text
    )
    row = rows.loc["Effusion"]
    assert (
        f"Effusion head classes (> 10 %) {row['positives']} ({row['positive_patients']}) "
        f"{row['ap']:.3f} [{row['ap_low']:.3f}, {row['ap_high']:.3f}] "
        f"{row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}] "
        f"{row['f1']:.3f} {row['ece']:.3f}"
    ) in page.text
    assert "has no AP and no AUROC and is left out of the means. Here: Never seen." in page.text
    assert (
        f"Never seen tail classes (< 1 %) 0 - - - {rows.at['Never seen', 'ece']:.3f}" in page.text
    )
    assert "of a mean over the 3 classes with at least 10, without A very long name" in page.text


def test_folds_are_beside_each_other(scored):
    pooled, targets, probabilities = scored
    halves = {
        fold: evaluate(targets[part], probabilities[part], NAMES, TRAINING, resamples=0)
        for fold, part in ((1, slice(0, 150)), (2, slice(150, 300)))
    }
    means, classes = fold_tables(pooled, halves)
    assert [row[0] for row in means.rows] == ["fold 1", "fold 2", "all together"]
    for row, one in zip(means.rows, (*halves.values(), pooled), strict=True):
        cells = dict(zip(means.columns, row, strict=True))
        assert cells["Images"] == ("300" if one is pooled else "150")
        assert cells["Classes scored"] == str(one.summary["classes_scored"])
        for metric in ("mAP", "mAUROC", "ECE"):
            assert cells[metric] == f"{one.summary[metric]:.3f}"
    effusion = classes.rows[0]
    aps = [one.per_class.at["Effusion", "ap"] for one in (*halves.values(), pooled)]
    assert effusion[3:] == [f"{ap:.3f}" for ap in aps]
    assert classes.rows[-1][3:] == ["-", "-", "-"]
    assert fold_tables(pooled, {1: halves[1]}) == []


def test_report_is_tolerant_of_what_a_run_has_not(tmp_path):
    """Nothing scored, no intervals, no history, no facts."""
    targets, probabilities = np.zeros((4, 2)), np.full((4, 2), 0.2)
    evaluation = evaluate(targets, probabilities, ["A", "B"], resamples=0)
    empty = contents((evaluation, targets, probabilities), None, "Empty")
    page = Page(write_report(tmp_path, empty).read_text(encoding="utf-8"))
    names = ["classes", "co_occurrence", "reliability", "score_histograms"]
    assert sorted(plot.stem for plot in tmp_path.glob("plots/*")) == names
    assert len(page.all("img")) == 4
    assert "mAP 0 -" in page.text
    assert "Here: A, B." in page.text
    assert "bootstrap" not in page.text


def test_table_fits_a_hundred_columns_and_shows_the_numbers(scored):
    evaluation = scored[0]
    lines = format_table(evaluation).splitlines()
    assert max(len(line) for line in lines) <= 100
    order = [line.split()[0] for line in lines[2:7]]
    assert order == ["Effusion", "Nodule", "<script>alert('x')</script>", "A", "Never"]
    row = evaluation.per_class.loc["Effusion"]
    ap = f"{row['ap']:.3f} [{row['ap_low']:.3f}, {row['ap_high']:.3f}]"
    auroc = f"{row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
    assert lines[2].split(maxsplit=3) == [
        "Effusion",
        str(row["positives"]),
        f"({row['positive_patients']})",
        f"{ap}  {auroc}  head > 10 %",
    ]
    assert lines[5].startswith("A very long name of a very ra… ")
    assert lines[6].split() == ["Never", "seen", "0", "-", "-", "tail", "<", "1", "%"]
    macro = f"{evaluation.summary['mAP']:.3f}"
    assert ["mAP", "4", macro] in [line.split()[:3] for line in lines]
    assert "Here: Never seen." in lines[-1]


def test_long_names_are_cut_with_an_ellipsis():
    assert shorten("short") == "short"
    assert shorten("two\nlines\tand tabs") == "two lines and tabs"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"
    assert shorten("a\udcff.csv") == "a?.csv"  # a file's name that is no UTF-8


def test_a_flag_of_the_next_command_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--out-dir", "a", "--labels", "b", "c", "--overwrite", "--config=d", "--tta"]
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    again = rerun_command(["python", "train.py"], more=["--config", "e f", "--out_dir", "g"])
    assert again == "python train.py --labels b c --tta --config 'e f' --out_dir g"


def test_sources_stand_beside_each_other(scored):
    """A score within each of two sources, and what share of its images has a known label."""
    pooled, targets, probabilities = scored
    parts = {"nih": slice(0, 100), "vindr": slice(100, 300)}
    found = {
        name: evaluate(targets[rows], probabilities[rows], NAMES, TRAINING, resamples=0)
        for name, rows in parts.items()
    }
    means, classes = source_tables(pooled, found)
    assert [row[0] for row in means.rows] == ["nih", "vindr", "all together"]
    scorable = [one.per_class["ap"].notna() for one in found.values()]
    common = scorable[0] & scorable[1]
    assert 0 < common.sum() < len(common)
    expected = [one.per_class["ap"][common].mean() for one in (*found.values(), pooled)]
    assert [row[2] for row in means.rows] == [f"{mean:.3f}" for mean in expected]
    assert f"over the {common.sum()} classes" in means.notes[1]
    effusion = next(row for row in classes.rows if row[0] == "Effusion")
    aurocs = [one.per_class.at["Effusion", "auroc"] for one in (*found.values(), pooled)]
    # one of a hundred labels of the first source is unknown
    shares = ["99%", "100%", "100%"]
    assert effusion[1:] == [
        cell for pair in zip(map("{:.3f}".format, aurocs), shares, strict=True) for cell in pair
    ]
    assert source_tables(pooled, {"nih": pooled}) == []
