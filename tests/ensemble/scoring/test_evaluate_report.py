"""`python -m ensemble.evaluate --report`: the report page."""

import os
import re

import cv2
import numpy as np
import pandas as pd
import pytest

from core.metrics import evaluate, paired_difference
from ensemble.predict.calibration import Calibration, Identity, write_calibration
from tests.helpers.page_text import words
from tests.helpers.synthetic.scores import CLASSES, Command, Files, read_json


def test_one_file_has_its_numbers_and_pictures(command: Command, files: Files) -> None:
    flags = ["--predictions", files.path("best"), *files.flags, "--thresholds", 0.5]
    code, printed, error = command(*flags, "--report", "--output", files.folder / "out")
    assert code == 0, error
    page = (files.folder / "out.html").read_text()
    assert printed.splitlines()[-1] == f"report       {files.folder / 'out.html'}"
    expected = evaluate(
        files.targets, files.probabilities["best"], CLASSES, None, files.patients, 20
    )
    text = words(page)
    assert "Scores of best.csv 150 images" in text
    assert f"mAP 5 {expected.summary['mAP']:.3f}" in text
    shown = {"head": "head classes (> 10 %)", "tail": "tail classes (< 1 %)"}
    shown["medium"] = "medium classes (1-10 %)"
    for name, row in expected.per_class.iterrows():
        assert f"{name} {shown[row['group']]} {row['positives']} " in text
    assert "Operating points at threshold 0.5" in text
    assert page.count("data:image/png") == 5
    assert "data:image/jpeg" not in page
    assert "Worst cases" not in text
    assert f"--predictions {files.path('best')} --labels" in text
    # the scores are those without a page
    assert command(*flags, "--output", files.folder / "plain")[0] == 0
    with_page, without = (read_json(files.folder / f"{name}.json") for name in ("out", "plain"))
    assert (with_page.pop("page"), without.pop("page")) == (True, False)
    assert with_page == without
    assert not (files.folder / "plain.html").exists()


@pytest.mark.usefixtures("blank")
def test_one_file_beside_another(command: Command, files: Files) -> None:
    flags = ["--predictions", files.path("best"), "--against", files.path("poor"), *files.flags]
    assert command(*flags, "--report")[0] == 0
    text = words((files.folder / "best_metrics.html").read_text())
    best, poor = (files.probabilities[name] for name in ("best", "poor"))
    paired = paired_difference(files.targets, best, poor, CLASSES, files.patients, 20).per_class
    scores = [evaluate(files.targets, one, CLASSES, resamples=0) for one in (best, poor)]
    for name, own in paired.iterrows():
        aps = [float(one.per_class["ap"][str(name)]) for one in scores]
        if np.isnan(aps[0]):
            assert f"{name} - - - - - -" in text
            continue
        rare = np.isnan(own["ap_low"])
        interval = "" if rare else f" [{own['ap_low']:+.3f}, {own['ap_high']:+.3f}]"
        assert f" {aps[0]:.3f} {aps[1]:.3f} {own['ap']:+.3f}{interval} " in text, name
    assert "best.csv" in text
    assert "poor.csv" in text
    assert "Files beside each other" in text
    assert "Differences, best.csv minus poor.csv (other)" in text
    assert "Differences: the file minus poor.csv; above 0 the file is better." in text


@pytest.mark.usefixtures("blank")
def test_worst_cases_are_shown_where_the_images_are_given(command: Command, files: Files) -> None:
    images = files.folder / "images"
    images.mkdir()
    for number in range(150):
        cv2.imwrite(str(images / f"{number:03d}.png"), np.full((8, 8), number, np.uint8))
    column = CLASSES.index("Hernia")
    p, labels = files.probabilities["best"][:, column], files.targets[:, column]
    worst = min(np.flatnonzero(labels == 1), key=lambda place: p[place])
    (images / f"{worst:03d}.png").write_text("no image")
    flags = ["--predictions", files.path("best"), "--labels", files.path("labels")]
    flags += ["--resamples", 0, "--report", "--image_dir", images]
    code, _, error = command(*flags)
    assert code == 0, error
    page = (files.folder / "best_metrics.html").read_text()
    text = words(page)
    assert page.count("data:image/jpeg") > 25
    start = "Hernia head classes (> 10 %) Positives with the lowest scores cannot be read"
    hernia = text[text.rindex("Hernia head classes (> 10 %) Positives with") :]
    assert hernia.startswith(f"{start} {p[worst]:.3f} rank")
    assert f"{worst:03d}.png" in hernia[:200]
    (images / "149.png").unlink()
    code, _, error = command(*flags)
    assert code == 2
    assert "1 of 150 images has no file" in error


@pytest.mark.usefixtures("blank")
def test_a_page_without_names(command: Command, files: Files) -> None:
    flags = ["--predictions", files.path("best"), "--against", files.path("poor"), "--common"]
    fewer = pd.read_csv(files.path("poor"), dtype=str)[5:]
    fewer.to_csv(files.path("poor"), index=False)
    flags += ["--labels", files.path("labels"), "--resamples", 0, "--report"]
    thresholds = files.folder / "cal.json"
    classes = {name: Identity(threshold=0.5, threshold_gated=0.5) for name in CLASSES}
    write_calibration(thresholds, Calibration(classes, None, 0), {})
    flags += ["--thresholds", thresholds, "--by", "sex", "--meta", files.path("meta")]
    assert command(*flags, "--output", files.folder / "named")[0] == 0
    assert command(*flags, "--anonymous", "--output", files.folder / "hidden")[0] == 0
    named, hidden = ((files.folder / f"{name}.html").read_text() for name in ("named", "hidden"))
    lost = f"{sorted(set(pd.read_csv(files.path('best'))['ImageID']) - set(fewer['ImageID']))[0]}"
    for text in (lost, str(files.folder)):
        assert text in named
        assert text not in hidden
    assert "left out (--anonymous)" in hidden
    assert "Operating points at threshold cal.json" in words(hidden)
    scores = [(files.folder / f"{name}.json").read_text() for name in ("named", "hidden")]
    assert [str(files.folder) in text for text in scores] == [True, False]
    assert "column 'Sex' of meta.csv" in scores[1]


@pytest.mark.usefixtures("blank")
def test_a_page_of_two_files_names_the_reference_whichever_is_better(
    command: Command, files: Files
) -> None:
    paths = [files.path(name) for name in ("best", "poor")]
    for given in (paths, paths[::-1]):
        flags = ["--predictions", *given, "--labels", files.path("labels"), "--resamples", 0]
        assert command(*flags, "--report", "--output", files.folder / "two")[0] == 0
        text = words((files.folder / "two.html").read_text())
        other = given[1].name
        text = text.split(f"Differences, {other} minus {given[0].name} (other)")[-1]
        gain = re.search(r"Effusion [.\d]+ [.\d]+ ([+-])", text)
        assert gain is not None
        assert gain[1] == ("+" if other == "best.csv" else "-")


@pytest.mark.usefixtures("blank")
def test_a_file_name_that_is_not_utf_8(command: Command, files: Files) -> None:
    odd = files.folder / os.fsdecode(b"odd\xff.csv")
    odd.write_bytes(files.path("best").read_bytes())
    flags = ["--labels", files.path("labels"), "--resamples", 0, "--report"]
    flags += ["--output", files.folder / "out"]
    code, _, error = command("--predictions", odd, files.path("poor"), *flags)
    assert code == 0, error
    assert "minus odd?.csv (other)" in (files.folder / "out.html").read_text()
