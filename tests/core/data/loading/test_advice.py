"""Advice before training: hand-made tables against numbers computed by hand."""

from typing import Any

import numpy as np
import pytest

from core.config.loss import LossConfig
from core.config.training import LoaderConfig
from core.data.loading.advice import ENOUGH_POSITIVES, TAIL, advise, draws_per_image
from core.data.loading.samplers import build_sampler

NAMES = ("Effusion", "Mass", "Hernia", "Fibrosis", "Edema")
BCE = LossConfig(loss="bce", logit_adjust=0.0)


def table(*positives: int, images: int = 4000) -> np.ndarray:
    """Targets of disjoint positives, the first class first."""
    targets = np.zeros((images, len(positives)))
    start = 0
    for c, count in enumerate(positives):
        targets[start : start + count, c] = 1
        start += count
    return targets


def lines(targets: np.ndarray, loss: LossConfig = BCE, **loader: Any) -> list[str]:
    return advise(targets, NAMES[: targets.shape[1]], LoaderConfig(img_size=32, **loader), loss)


def test_a_balanced_table_and_plain_bce_need_no_advice() -> None:
    # 4,000 draws over two classes and the rest: 1,333 each
    assert lines(table(1000, 500)) == []


def test_images_that_class_aware_sampling_draws_often_are_named() -> None:
    # 4,000 draws over four groups: 1,000 each, so 1, 5 and 25 a positive image
    targets = table(1000, 200, 40)
    assert draws_per_image(targets, LoaderConfig(img_size=32)).tolist() == [1, 5, 25]
    assert lines(targets)[0] == (
        "Advice: --sampler class_aware would draw each image of these classes many times an epoch: "
        "Hernia 25, Mass 5; --sampler_cap 4 is a limit."
    )
    assert "class_aware draws each" in lines(targets, sampler="class_aware")[0]


def test_the_draws_are_those_of_the_sampler() -> None:
    targets = table(1000, 200, 40, 0)
    targets[3000:] = np.nan  # unknown images are not drawn
    expected = np.array([1.0, 5.0, 25.0, 0.0])
    limits: list[tuple[dict[str, Any], np.ndarray]] = [
        ({}, expected),
        ({"mix": 0.5}, expected / 2),
        # 240 turns of Hernia and 1,200 of Mass leave 2,560 to Effusion and the rest
        ({"cap": 6.0}, np.array([1.28, 6, 6, 0])),
    ]
    for limit, draws in limits:
        given = {f"sampler_{name}": value for name, value in limit.items()}
        loader = LoaderConfig(img_size=32, sampler="class_aware", **given)
        found = draws_per_image(targets, loader)
        assert found == pytest.approx(draws)
        if "mix" not in limit:
            plan = build_sampler("class_aware", targets, 0, **limit)(0)
            drawn = (targets[plan] == 1).sum(axis=0) / np.maximum((targets == 1).sum(axis=0), 1)
            assert drawn == pytest.approx(found, rel=1e-3)


def test_limits_of_another_sampler_do_not_count_and_long_lists_are_cut() -> None:
    targets = table(40, 40, 40, 40, 40, images=24_000)
    # 24,000 over six groups: 4,000 each
    line = lines(targets, sampler="repeat_factor", sampler_cap=2.0)[0]
    assert line.endswith(
        "Effusion 100, Mass 100, Hernia 100, Fibrosis 100 and 1 more; --sampler_cap 4 is a limit."
    )
    capped = lines(targets, sampler="class_aware", sampler_cap=4.0)
    assert not any("many times" in line for line in capped)


def test_the_positives_of_the_tail_are_compared_with_the_study() -> None:
    few = ENOUGH_POSITIVES - 1
    enough, fewer = lines(table(1000, few + 1))[-1], lines(table(1000, few, 3))[-1]
    assert "1 class below 1%" in enough
    assert enough.endswith("each here has 20 or more.")
    assert f"in 27 of 29 such classes with {ENOUGH_POSITIVES} positives or more" in fewer
    assert "2 classes below 1%" in fewer
    assert fewer.endswith(f"here with fewer: Hernia (3), Mass ({few}).")


def test_prevalence_is_that_of_the_known_labels() -> None:
    targets = table(1000, 39)
    assert TAIL == 0.01
    assert "below 1%" in lines(targets)[-1]  # 39 of 4,000
    targets[1100:, 1] = np.nan  # 39 of 1,100
    assert not any("below 1%" in line for line in lines(targets))
    # a class without positives is reported elsewhere
    assert not any("below 1%" in line for line in lines(table(1000, 0)))


@pytest.mark.parametrize(
    ("loss", "shift", "instead"),
    [
        (LossConfig(), "--loss asl, --logit_adjust 1 shift", "--loss bce --logit_adjust 0 or"),
        (
            LossConfig(loss="distribution_balanced", logit_adjust=0.0),
            "--loss distribution_balanced shifts",
            "--loss bce or",
        ),
        (
            LossConfig(loss="bce", pos_weight=True, logit_adjust=0.5),
            "--pos_weight, --logit_adjust 0.5 shift",
            "--loss bce --no-pos_weight --logit_adjust 0 or",
        ),
    ],
)
def test_a_loss_that_shifts_probabilities_is_named(
    loss: LossConfig, shift: str, instead: str
) -> None:
    (line,) = lines(table(1000, 500), loss)
    assert shift in line
    assert instead in line


def test_a_sampler_that_shifts_probabilities_is_named() -> None:
    line = lines(table(1000, 500), sampler="repeat_factor")[-1]
    assert "--sampler repeat_factor shifts probabilities" in line
    assert "train with --sampler uniform or run ensemble.calibrate" in line
