"""The study of tail methods: its rows survive a stop, and its tables show what is missing."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.studies import phantom as study
from core.data.phantom.lesions import FINDINGS

CLASSES = [*FINDINGS, "Normal"]


def row(recipe: str, seed: int, hernia: float, emphysema: float, **others: Any) -> dict[str, Any]:
    """A training on 1,000 images of the default tail; AP 0.5 of the common classes."""
    aps = dict.fromkeys(CLASSES, 0.5)
    aps |= {"Hernia": hernia, "Subcutaneous_Emphysema": emphysema}
    positives = dict.fromkeys(CLASSES, 100) | {"Hernia": 3 + seed, "Subcutaneous_Emphysema": 9}
    keys = {"tail": "default", "seed": seed, "images": 1000, "recipe": recipe, "seconds": 90.0}
    found = {f"ap {name}": ap for name, ap in aps.items()}
    return keys | others | found | {f"positives {name}": n for name, n in positives.items()}


ROWS = [
    row("bce", 1, 0.1, 0.3),
    row("csra_db_cas", 1, 0.2, 0.5),
    row("bce", 2, 0.16, 0.4),
    row("csra_db_cas", 2, 0.1, 0.5),
    # a training without its BCE does not count
    row("retrained", 3, 0.9, 0.9),
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tail_is_what_is_in_at_most_one_percent() -> None:
    assert study.tail_classes("default") == ["Subcutaneous_Emphysema", "Hernia"]
    # 0.3 of 3 % is 0.9 %, of 4 % it is 1.2 %
    assert study.tail_classes("long")[0] == "Emphysema"


def test_means_differences_and_ranges() -> None:
    lines = {
        tuple(cells(line)[:2]): cells(line) for line in study.table_of_means(pd.DataFrame(ROWS))
    }
    # tail mAP 0.2 and 0.28 of BCE, 0.35 and 0.3 of csra_db_cas; 13 classes of 15 have 0.5
    assert lines["1,000", "default"][2:] == [
        *("2 of 3", "4 to 9", "0.240", "0.465"),
        "+0.085 (+0.020 to +0.150)",
        "+0.011 (+0.003 to +0.020)",
        *("missing", "missing"),
    ]
    assert lines["1,000", "long"][2:] == ["0 of 3", *["missing"] * 7]
    assert len(lines) == 2 + len(study.EPOCHS) * len(study.TAILS)


def test_gains_by_positives_of_a_class() -> None:
    lines = {cells(line)[0]: cells(line) for line in study.table_of_classes(pd.DataFrame(ROWS))}
    # Hernia with 4 positives, then 5; Subcutaneous_Emphysema twice with 9
    assert lines["0 to 4"] == ["0 to 4", "1", "0.100", "+0.100", "missing"]
    assert lines["5 to 9"][1:4] == ["3", "0.287", "+0.080 (-0.060 to +0.200)"]
    assert lines["from 160 on"][1:] == ["0", *["missing"] * 3]


def test_a_stopped_study_continues_with_the_next_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[Any, ...]] = []

    def train(*keys: Any) -> Path:
        if len(done) == stop_at:
            raise KeyboardInterrupt
        done.append(keys)
        return tmp_path

    def score(*_: Any) -> dict[str, Any]:
        return {name: value for name, value in ROWS[0].items() if name.startswith(("ap", "pos"))}

    for name, value in {"train": train, "score": score, "draw": lambda *_: tmp_path}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "ROWS", tmp_path / "rows.csv")
    monkeypatch.setattr(study, "EPOCHS", {1000: 8})
    stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        study.main()
    assert len(study.read_rows()) == 5
    assert "5 trainings" in capsys.readouterr().out
    stop_at = 99
    study.main()
    assert len(done) == len(set(done)) == 3 * len(study.TAILS) * len(study.SEEDS)
    # both tails are complete before the next seed begins
    assert [keys[1] for keys in done[:7]] == [*[1] * 6, 2]
    study.main()
    assert len(study.read_rows()) == len(done)


def test_a_folder_without_rows_has_no_table() -> None:
    assert study.describe(pd.DataFrame(columns=study.KEYS)) == "no training is finished"
