"""What `python -m benchmarks infer` measures is what it says; its figures are no test."""

import math
from collections import Counter
from pathlib import Path

import pytest
from torch import Tensor

from benchmarks.speed.infer import compare, decode_and_pass, save_models
from ensemble.predict.ensemble import Member
from ensemble.predict.tta import VIEWS
from methods.standard_head.config import ModelConfig

TINY = ModelConfig(model="test_efficientnet", pretrained=False)


def test_both_do_the_same_work(phantom: Path, tmp_path: Path) -> None:
    checkpoints = save_models(tmp_path, TINY, (32, 48))
    answer = compare(tmp_path, checkpoints, phantom / "images", images=5, rounds=1)
    assert answer.ceiling == 1.08
    assert answer.against == "decode + 2 x 6 passes"
    assert math.isfinite(answer.ratio)
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 6


def test_the_bare_work_shows_each_image_to_each_model_as_often_as_there_are_views(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [Member.load(path) for path in save_models(tmp_path, TINY, (32, 32, 48))]
    seen: Counter[tuple[int, int]] = Counter()
    for number, member in enumerate(members):

        def counted(images: Tensor, number: int = number) -> Tensor:
            seen[number, images.shape[-1]] += len(images)
            return images

        monkeypatch.setattr(member.model, "forward", counted)
    paths = [str(path) for path in sorted((phantom / "images").iterdir())[:5]]
    decode_and_pass(members, paths)
    views = len(VIEWS["flip_scale"])
    assert seen == {(0, 32): 5 * views, (1, 32): 5 * views, (2, 48): 5 * views}
