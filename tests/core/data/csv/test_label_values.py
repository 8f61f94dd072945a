"""Parsing of label cells, against pandas."""

import io

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES  # type: ignore[import-not-found]

from core.data.csv.label_values import is_missing, is_probability, label_key, label_value

NUMBERS = [
    *("1", "1.0", "1.00", "+1", "1e0", "1E+00", "+1.000", "01", "10e-1", "0.1E1", "1."),
    *("0", "0.0", "0.00", "-0", "+0", "0e0", "0E-5", ".0", "00", "-0.00", "0e99"),
    *("-1", "-1.0", "-1.00", "-1e0", "-01", "-10e-1"),
]


def test_numbers_are_those_of_pandas() -> None:
    truth = pd.read_csv(io.StringIO("\n".join(["cell", *NUMBERS])))["cell"]
    assert truth.dtype == float
    assert [label_value(cell) for cell in NUMBERS] == truth.tolist()


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title, str.swapcase])
def test_words_in_any_case(change: object) -> None:
    assert callable(change)
    words = {"true": 1, "yes": 1, "false": 0, "no": 0}
    assert {word: label_value(change(word)) for word in words} == words


@pytest.mark.parametrize("word", sorted(STR_NA_VALUES | {"\\N", "(null)", "."}))
def test_missing_values_are_those_of_pandas(word: str) -> None:
    for spelling in (word, word.lower(), word.upper()):
        assert is_missing(spelling)
        value = label_value(spelling)
        assert value is not None
        assert np.isnan(value)


@pytest.mark.parametrize(
    "cell",
    [
        *("2", "-2", "10", "1e1", "0.5", "1e-400", "1e-999", "1e999999999", "1.0.0", "1 0", "--1"),
        *("1,000", "0x1", "1_0", "\uff11", "\u0661", "1\u200b", "on", "maybe", "inf", "1;0", "e0"),
        *("1" * 5000, "0" * 41, "true false", "Nanny", "none found", "+", "-", "=1", "'1'"),
    ],
)
def test_cells_that_are_not_labels(cell: str) -> None:
    assert label_value(cell) is None


def test_a_decimal_comma() -> None:
    cells = ["1,0", "0,0", "-1,00", "0,00"]
    truth = pd.read_csv(
        io.StringIO("\n".join(["a;b", *(f"{c};x" for c in cells)])), sep=";", decimal=","
    )
    assert [label_value(cell) for cell in cells] == truth["a"].tolist()


def test_probabilities() -> None:
    assert all(map(is_probability, ["0.9", ".05", "5e-1", "1e-9", "0,5", "0.999"]))
    assert not any(map(is_probability, ["0", "1", "-0.5", "1.5", "", "nan", "0.5%", "x"]))


def test_one_label_in_several_spellings() -> None:
    assert len({label_key(n) for n in ("No Finding", "No_Finding", "no-finding", "NoFinding")}) == 1
    assert label_key("Grade+") != label_key("Grade")
