"""`python -m benchmarks infer`: what it measures and prints (no check of speed)."""

import math
from pathlib import Path

from benchmarks.speed.infer import compare, save_models
from methods.standard_head.config import ModelConfig

TINY = ModelConfig(model="test_efficientnet", pretrained=False)


def test_both_do_the_same_work(phantom: Path, tmp_path: Path) -> None:
    checkpoints = save_models(tmp_path, TINY, (32, 48))
    answer = compare(tmp_path, checkpoints, phantom / "images", images=5, rounds=1)
    assert answer.ceiling == 1.08
    assert answer.against == "decode + 2 x 6 passes"
    assert math.isfinite(answer.ratio)
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 6
