"""--sampler_mix and --sampler_cap: shares and limits of an epoch's draws."""

from typing import Any

import numpy as np
import pytest

from core.data.loading.samplers import Sampler, build_mixture, build_sampler, fill_evenly
from core.errors import UserError

SIZES = [1, 5, 54, 140]
CLASSES = np.random.default_rng(1).permutation(np.repeat(np.arange(4), SIZES))
TARGETS = np.eye(4, dtype=np.float32)[CLASSES]


def build(name: str, **options: Any) -> Sampler:
    return build_sampler(name, TARGETS, 3, **options)


def draws_by_class(sampler: Sampler, epoch: int) -> list[int]:
    return np.bincount(CLASSES[sampler(epoch)], minlength=4).tolist()


def test_a_class_at_its_cap_leaves_its_draws_to_the_others() -> None:
    sampler = build("class_aware", cap=2)
    for epoch in range(5):
        # 200 draws: 2 x 1, 2 x 5, and the rest in equal parts
        assert draws_by_class(sampler, epoch) == [2, 10, 94, 94]
        assert np.bincount(sampler(epoch), minlength=200)[CLASSES < 2].max() == 2
    # without the limit every class has a quarter
    assert draws_by_class(build("class_aware"), 0) == [50] * 4


def test_each_image_of_a_capped_class_has_its_turn() -> None:
    sampler = build("class_aware", cap=1.5)
    drawn = np.concatenate([sampler(epoch) for epoch in range(10)])
    # 7 draws an epoch for 5 images
    assert np.bincount(drawn, minlength=200)[CLASSES == 1].tolist() == [14] * 5


@pytest.mark.parametrize("mix", [0.25, 0.5])
def test_the_share_of_uniform_draws(mix: float) -> None:
    uniform, balanced = build("uniform"), build("class_aware")
    mixed, count = build("class_aware", mix=mix), round(mix * 200)
    for epoch in range(4):
        expected = [
            uniform.draws(epoch * count, (epoch + 1) * count),
            balanced.draws(epoch * (200 - count), (epoch + 1) * (200 - count)),
        ]
        assert sorted(mixed(epoch)) == sorted(np.concatenate(expected))
        assert mixed(epoch).tolist() != np.concatenate(expected).tolist()


def test_both_together_and_all_draws_uniform() -> None:
    # 100 balanced draws: 1 x 1, 5 x 1, 47 + 47; 100 of 200 uniform draws in two epochs all images
    both = build("class_aware", mix=0.5, cap=1)
    total = np.add(draws_by_class(both, 0), draws_by_class(both, 1))
    assert total.tolist() == [2 + 1, 10 + 5, 94 + 54, 94 + 140]
    assert sorted(build("repeat_factor", mix=1, epoch_size=200)(1)) == sorted(range(200))


def test_the_factors_of_repeat_factor_are_limited() -> None:
    # 20 classes with 1 of 2,000 images: sqrt(.01 / .0005) draws an epoch
    targets = np.zeros((2000, 20), dtype=np.float32)
    targets[:20] = np.eye(20)
    for cap, expected in ((None, 20**0.5), (3, 3.0), (1, 1.0)):
        sampler = build_sampler("repeat_factor", targets, 3, cap=cap)
        drawn = np.bincount(np.concatenate([sampler(epoch) for epoch in range(50)]))
        assert drawn[:20].mean() / 50 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("options", [{"mix": 0.3}, {"cap": 2}, {"mix": 0.6, "cap": 1}])
@pytest.mark.parametrize("name", ["class_aware", "repeat_factor"])
def test_a_start_anywhere_continues_the_sequence(name: str, options: dict[str, Any]) -> None:
    sampler = build(name, **options)
    whole = sampler.draws(0, 1000)
    for start, stop in ((0, 1), (199, 201), (350, 990)):
        assert np.array_equal(sampler.draws(start, stop), whole[start:stop])


def test_parts_as_equal_as_their_limits_allow() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        most = random.integers(0, 30, random.integers(1, 8))
        total = int(random.integers(0, most.sum() + 1))
        parts = fill_evenly(most, total)
        assert parts.sum() == total
        assert (parts <= most).all()
        # a part below its limit is at most one below the largest
        assert (parts[parts < most] >= parts.max() - 1).all()


def test_the_cap_holds_over_the_epoch_of_all_sources() -> None:
    sources, shares = np.arange(200) % 2, np.array([0.9, 0.1])
    options: dict[str, Any] = {"sources": sources, "shares": shares, "source_names": ("a", "b")}
    mixed = build_mixture("class_aware", TARGETS, 3, None, **options, cap=2)
    of_a = sources == 0
    for epoch in range(3):
        drawn = np.bincount(mixed(epoch), minlength=200)
        for c in range(3):
            own = of_a & (c == CLASSES)
            # the sources are mixed within one draw of their shares
            assert drawn[own].sum() <= 2 * own.sum() + 1
    with pytest.raises(UserError, match="source 'a': --sampler_cap 1 allows 100 draws"):
        build_mixture("class_aware", TARGETS, 3, 400, **options, cap=1)


def test_more_draws_than_the_cap_allows_are_refused() -> None:
    with pytest.raises(UserError, match=r"--sampler_cap 2 allows 400 draws .* has 401: raise it"):
        build("class_aware", cap=2, epoch_size=401)
