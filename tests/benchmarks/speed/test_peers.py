"""The peers that a reader would write: they train, and predict what `ensemble.infer` does."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.speed import peers
from benchmarks.speed.peers import cost, plain_infer, timm_train
from benchmarks.speed.peers.cost import Cost
from core.errors import UserError
from tests.conftest import Call


@pytest.fixture
def films(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the peers read, of a few small images."""
    monkeypatch.setattr(peers, "image_set", lambda *_, **__: phantom)
    monkeypatch.setattr(peers, "IMAGES", 16)
    monkeypatch.setattr(peers, "HELD_OUT", 8)
    return peers.draw(tmp_path / "data")


def test_images_are_divided_once(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [pd.read_csv(films / f"{name}.csv", index_col=0) for name in ("train", "val", "all")]
    assert [len(part) for part in parts] == [16, 8, 24]
    # more than there are, so that some repeat
    monkeypatch.setattr(peers, "IMAGES", 48)
    monkeypatch.setattr(peers, "HELD_OUT", 24)
    films = peers.draw(tmp_path / "repeated")
    parts = [pd.read_csv(films / f"{name}.csv", index_col=0) for name in ("train", "val", "all")]
    assert sorted(parts[2].index) == sorted(path.name for path in (films / "images").iterdir())
    assert set(np.unique(parts[2])) == {0, 1}
    seen, held_out = (
        {(films / "images" / str(name)).read_bytes() for name in part.index} for part in parts[:2]
    )
    assert seen.isdisjoint(held_out)


def test_timm_trains(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in {"MODEL": "test_efficientnet", "SIZE": 32, "BATCH": 8}.items():
        monkeypatch.setattr(timm_train, name, value)
    timm_train.main(films, tmp_path / "out")
    printed = capsys.readouterr().out
    assert printed.startswith("first step\n")
    losses = [float(line.split()[3].rstrip(",")) for line in printed.splitlines()[1:]]
    assert len(losses) == 3
    assert losses[2] < losses[0]
    assert len(cost._SPEED.findall(printed)) == 3


def test_lightning_trains(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("pytorch_lightning", reason="the extra 'peers' is not installed")
    from benchmarks.speed.peers import lightning_trainer

    for name, value in {"MODEL": "test_efficientnet", "BATCH": 8, "WORKERS": 0}.items():
        monkeypatch.setattr(lightning_trainer, name, value)
    lightning_trainer.main(films, tmp_path / "out")
    assert "first step" in capsys.readouterr().out
    assert [path.suffix for path in (tmp_path / "out").glob("*.ckpt")] == [".ckpt"]


def test_the_plain_loop_predicts_the_same(
    infer: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((phantom / "images").iterdir())[:6]:
        (images / path.name).symlink_to(path)
    plain_infer.main(images, tmp_path / "plain.csv", checkpoints)
    given = ("--image_dir", images, "--follow_links", "--output", tmp_path / "ours.csv")
    code, _, error = infer("--checkpoints", *checkpoints, *given)
    assert code == 0, error
    ours, plain = (pd.read_csv(tmp_path / f"{name}.csv", index_col=0) for name in ("ours", "plain"))
    # another interpolation
    np.testing.assert_allclose(ours, plain.loc[ours.index, ours.columns], atol=0.05)


def test_a_process_is_measured_with_its_children() -> None:
    burn = "import time\\nwhile time.process_time() < .5: pass"
    program = f"""
import subprocess, sys, time
print("first step", flush=True)
held = bytearray(200_000_000)
subprocess.run([sys.executable, "-c", "{burn}"], check=True)
time.sleep(0.5)
print("epoch 1: 12.5 images/s")
print("epoch 2: 20 images/s")
"""
    found = cost.cost_of(["-c", program])
    assert 0.5 <= found.processor < 5
    assert 0 < found.first_step < found.wall - 1
    assert found.images_per_second == 20
    assert not sys.platform.startswith("linux") or 190 < found.megabytes < 1000
    quiet = cost.cost_of(["-c", "pass"])
    assert math.isnan(quiet.first_step)
    assert math.isnan(quiet.images_per_second)
    with pytest.raises(RuntimeError, match="ended with 3: why"):
        cost.cost_of(["-c", "print('why'); raise SystemExit(3)"])


def test_medians_are_compared_and_processor_time_has_the_bound() -> None:
    def costs(*processor: float) -> list[Cost]:
        return [Cost(seconds, 2 * seconds, 1, 100, 10) for seconds in processor]

    measured = {"ours": costs(9, 11, 10), "peer": costs(12, 1, 8)}
    first, second = peers.compare(measured, "ours", "peer", 1.0, ["processor", "wall"])
    assert (first.measured, first.reference, first.verdict) == (10, 8, "MISSED")
    assert (second.measured, second.reference, second.verdict) == (20, 16, None)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        peers, "find_spec", lambda name: None if name == "pytorch_lightning" else real(name)
    )
    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[peers\]'"):
        peers.check()
