"""Gating and calibration against their formulas; validation of calibration.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.special import logit as true_logit

from core.errors import UserError
from ensemble.predict.calibration import (
    Calibration,
    Identity,
    Isotonic,
    Platt,
    Temperature,
    find_normal,
    logit,
    normal_gating,
    read_calibration,
    write_calibration,
)

NAMES = ["Mass", "Normal", "Effusion", "Hernia"]
PROBABILITIES = np.random.default_rng(0).random((6, 4))
KNOTS = {"knots": [0.1, 0.4, 0.8], "values": [0.0, 0.3, 0.9]}
CALIBRATION = Calibration(
    {
        "Mass": Temperature(2.5, threshold=0.25, threshold_gated=0.125),
        "Normal": Platt(0.7, -1.5, threshold=0.5, threshold_gated=0.5),
        "Effusion": Isotonic(**KNOTS, threshold=1.0, threshold_gated=0.75),
        "Hernia": Identity(),
    },
    "Normal",
    0.25,
)


def test_gating_is_its_formula() -> None:
    before = PROBABILITIES.copy()
    for alpha in (0.1, 0.5, 1, 2):
        gated = normal_gating(PROBABILITIES, NAMES, "Normal", alpha)
        for (row, column), p in np.ndenumerate(before):
            expected = p if column == 1 else p * (1 - before[row, 1]) ** alpha
            assert gated[row, column] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(PROBABILITIES, before)
    certain = np.array([[0.5, 1.0], [0.5, 0.0]])
    np.testing.assert_array_equal(normal_gating(certain, ["a", "n"], "n", 0), certain)
    np.testing.assert_array_equal(normal_gating(certain, ["a", "n"], "n", 1), [[0, 1], [0.5, 0]])
    half = PROBABILITIES.astype(np.float32)
    assert normal_gating(half, NAMES, "Normal", 0.5).dtype == np.float32


def test_the_normal_class_is_found_by_name() -> None:
    assert find_normal(["No_Finding", "Mass", "No Finding"]) == "No Finding"
    assert find_normal(["No_Finding", "Normal"]) == "Normal"
    assert find_normal(["No_Finding", "Healthy"], "Healthy") == "Healthy"
    with pytest.raises(UserError, match="did you mean 'Healthy'"):
        find_normal(["Mass", "Healthy"], "helthy")
    with pytest.raises(UserError, match="--normal_class"):
        find_normal(["Mass", "Effusion"])


def test_logit_at_its_ends() -> None:
    p = np.array([1e-6, 0.3, 0.5, 1 - 1e-6])
    np.testing.assert_allclose(logit(p), true_logit(p), rtol=1e-9)
    np.testing.assert_allclose(logit(np.array([0, 1])), true_logit([1e-6, 1 - 1e-6]), rtol=1e-9)


def test_every_map_is_its_formula_and_matched_by_name() -> None:
    order = [2, 0, 3, 1]
    calibrated = CALIBRATION.apply(PROBABILITIES[:, order], [NAMES[place] for place in order])
    mass, normal, effusion, hernia = PROBABILITIES.T
    steps = [
        0 if p <= 0.1 else (p - 0.1) if p <= 0.4 else 0.9 if p >= 0.8 else 0.3 + (p - 0.4) * 1.5
        for p in effusion
    ]
    expected = [expit(true_logit(mass) / 2.5), expit(0.7 * true_logit(normal) - 1.5), steps, hernia]
    np.testing.assert_allclose(calibrated, np.stack(expected, axis=1)[:, order], rtol=1e-9)


def test_certain_probabilities_stay_within_0_and_1() -> None:
    ends = np.repeat([[0.0], [1.0]], 4, axis=1)
    extreme = Calibration(
        dict(CALIBRATION.classes) | {"Mass": Temperature(1e-308), "Normal": Platt(1e308, -1e308)},
        None,
        0,
    )
    for calibration in (CALIBRATION, extreme):
        calibrated = calibration.apply(ends, NAMES)
        assert ((calibrated >= 0) & (calibrated <= 1)).all()
        assert (calibrated[0] <= calibrated[1]).all()


def test_thresholds_by_name_and_classes_without_a_map() -> None:
    for gated, expected in ((False, [1, np.nan, 0.25]), (True, [0.75, np.nan, 0.125])):
        found = CALIBRATION.thresholds(["Effusion", "Hernia", "Mass"], gated=gated)
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(UserError, match=r"2 of the 3 classes \(Edema, Cyst\)"):
        CALIBRATION.apply(PROBABILITIES[:, :3], ["Edema", "Mass", "Cyst"])
    with pytest.raises(UserError, match=r"1 of the 1 classes \(Edema\)"):
        CALIBRATION.thresholds(["Edema"], gated=True)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "c.json"
    write_calibration(path, CALIBRATION, {"labels": "l.csv"})
    read = read_calibration(path)
    assert read == CALIBRATION
    assert list(read.classes) == NAMES
    assert json.loads(path.read_text())["classes"]["Hernia"] == {
        "method": "identity",
        "threshold": None,
        "threshold_gated": None,
    }


Change = Callable[[dict[str, Any]], object]


def entry(name: str, **values: object) -> Change:
    return lambda document: document["classes"][name].update(values)


def whole(**values: object) -> Change:
    return lambda document: document.update(values)


def without(name: str, key: str) -> Change:
    return lambda document: document["classes"][name].pop(key)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (whole(kind="ensemble"), "not a valid calibration.json"),
        (whole(format_version=2), "format version is '2'"),
        (whole(format_version=True), "format version is 'True'"),
        (whole(classes={}), "`$.classes`"),
        (whole(classes={"": {}}), "is empty or has a control character"),
        (whole(classes={"Mass": 3}), "the class 'Mass' is invalid"),
        (whole(classes={"a\nb\x1b[31m": {}}), "control character"),
        (whole(normal_class="Edema"), '"normal_class"'),
        (whole(normal_class=None), '"normal_alpha"'),
        (whole(normal_alpha=-1), "`$.normal_alpha`"),
        (entry("Mass", method="spline"), "the class 'Mass' is invalid: Invalid value 'spline'"),
        (without("Mass", "temperature"), "missing required field `temperature`"),
        (entry("Mass", temperature=0), "`$.temperature`"),
        (entry("Normal", slope=0), "`$.slope`"),
        (entry("Normal", offset=10**400), "`$.offset`"),
        (entry("Effusion", knots=[0.1, 0.4]), "knots must increase"),
        (entry("Effusion", knots=[0.1, 0.4, 0.4]), "knots must increase"),
        (entry("Effusion", values=[0.1, 0.3, 0.2]), "values must not decrease"),
        (entry("Mass", threshold=0), "`$.threshold`"),
        (
            without("Mass", "threshold"),
            "the class 'Mass' is invalid: missing required field `thr",
        ),
        (without("Mass", "threshold_gated"), "missing required field `threshold_gated`"),
    ],
)
def test_a_document_that_no_fit_writes_is_refused(
    tmp_path: Path, change: Change, expected: str
) -> None:
    path = tmp_path / "c.json"
    write_calibration(path, CALIBRATION, {})
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(UserError) as error:
        read_calibration(path)
    sentence = str(error.value)
    assert expected in sentence
    assert str(path) in sentence
    assert not {"\n", "\x1b"} & {*sentence}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[]", "not a JSON object"),
        (b'{"kind": "calibration", "normal_alpha": -Infinity}', "Infinity is not a number"),
        (b'{"kind": "calibration", "kind": "calibration"}', "a key is repeated"),
        (b'{"a":' * 200_000 + b"1" + b"}" * 200_000, "nested too deeply"),
        (b" " * 16_000_001, "more than 16,000,000 bytes"),
    ],
)
def test_an_invalid_json_document_is_refused(tmp_path: Path, text: bytes, expected: str) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(UserError, match="cannot be read"):
        read_calibration(path)
    path.write_bytes(text)
    with pytest.raises(UserError, match=expected) as error:
        read_calibration(path)
    assert "\n" not in str(error.value)
