"""Choice of the worst predicted images, and their thumbnails."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from core.data.images.collection import Images
from core.data.images.decode import read_image
from core.data.images.pack_format import Checksums, Pack, Plan
from core.data.tables.label_table import LabelTable
from core.metrics import Evaluation, evaluate
from core.report import worst_images as worst
from core.report.worst_images import SIDE, worst_cases

NAMES = ("Common", "Rare")


@pytest.fixture
def table(tmp_path: Path) -> LabelTable:
    """Twelve images (the third invalid, the fourth missing) and two classes."""
    random = np.random.default_rng(5)
    paths = []
    for number in range(12):
        path = tmp_path / f"{number:02d}.png"
        pixels = cv2.resize(random.integers(0, 255, (4, 3), np.uint8), (300, 400))
        cv2.imwrite(str(path), pixels)
        paths.append(str(path))
    Path(paths[2]).write_text("no image")
    Path(paths[3]).unlink()
    targets = np.zeros((12, 2), np.float32)
    targets[:6, 0], targets[4, 1] = 1, 1
    targets[5, 0] = np.nan
    ids = [f"image {number}" for number in range(12)]
    return LabelTable(ids=ids, images=Images.of_files(paths), targets=targets, class_names=NAMES)


def scores(table: LabelTable) -> tuple[Evaluation, np.ndarray]:
    p = np.column_stack([np.linspace(0.1, 0.9, 12), np.linspace(0.9, 0.1, 12)])
    return evaluate(table.targets, p, NAMES, resamples=0), p


def test_the_furthest_off_are_chosen_by_their_rank(table: LabelTable) -> None:
    evaluation, p = scores(table)
    common, rare = worst_cases(evaluation, table, np.arange(12), p)
    assert (common.name, common.group, common.known) == ("Common", "head", 11)
    assert [case.name for case in common.misses] == ["image 0", "image 1", "image 2"]
    assert [case.rank for case in common.misses] == [11, 10, 9]
    assert [case.name for case in common.alarms] == ["image 11", "image 10", "image 9"]
    assert [case.score for case in common.alarms] == p[[11, 10, 9], 0].tolist()
    assert [case.name for case in rare.misses] == ["image 4"]
    assert [case.rank for case in rare.misses] == [5]
    assert [case.name for case in rare.alarms] == ["image 0", "image 1", "image 2"]


def test_rows_are_those_of_the_predictions(table: LabelTable) -> None:
    rows = np.array([9, 1, 0])
    p = np.array([[0.2, 0.5], [0.6, 0.4], [0.7, 0.3]])
    evaluation = evaluate(table.targets[rows], p, NAMES, resamples=0)
    common, _ = worst_cases(evaluation, table, rows, p)
    assert [case.name for case in common.misses] == ["image 1", "image 0"]
    assert [case.name for case in common.alarms] == ["image 9"]


def test_pictures_are_the_images_made_small_and_none_that_cannot_be_read(table: LabelTable) -> None:
    evaluation, p = scores(table)
    cases = worst_cases(evaluation, table, np.arange(12), p)[0].misses
    assert cases[2].jpeg == b""
    for number in (0, 1):
        shown = cv2.imdecode(np.frombuffer(cases[number].jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown is not None
        assert shown.shape == (SIDE, SIDE * 3 // 4)
        original = read_image(table.paths[number])
        small = cv2.resize(original, shown.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(shown.astype(float) - small).mean() < 3
    assert len(cases[0].jpeg) < 8_000


def test_a_pack_that_is_gone_leaves_the_report_without_pictures(table: LabelTable) -> None:
    evaluation, p = scores(table)
    plan = Plan(size=8, count=12, block_rows=12, total=12, names_sha256="")
    pack = Pack(Path("/gone"), plan, pd.DataFrame({"name": table.ids}), Checksums("", ()), {})
    gone = replace(table, images=Images.in_folder("/gone", table.ids, [pack]))
    cases = worst_cases(evaluation, gone, np.arange(12), p)
    assert {case.jpeg for one in cases for case in (*one.misses, *one.alarms)} == {b""}


def test_of_very_many_classes_the_rarest_are_shown(
    table: LabelTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, p = scores(table)
    unknown = evaluate(table.targets, p, NAMES, [np.nan, 0.01], resamples=0)
    monkeypatch.setattr(worst, "MOST_CLASSES", 1)
    for one in (evaluation, unknown):
        assert [case.name for case in worst_cases(one, table, np.arange(12), p)] == ["Rare"]
