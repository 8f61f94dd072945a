"""Precision on a CPU: what --amp finds, measures, chooses, records and refuses."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from core.config.earlier_run import in_current_terms
from core.config.values import spell_switches, types_of
from core.runtime import precision
from core.runtime.precision import SwitchedAutocast, bf16_of_cpu, choose_precision
from methods.standard_head.config import Config
from tests.conftest import Call, Train
from tests.helpers.training.small_run import METHODS, MODEL, flags

STARTS = Path("/proc/cpuinfo")


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, plugins=[SwitchedAutocast()])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], Callable[[], None]]:
    """A step that takes so many seconds in fp32 and in bf16, by a clock of its own."""
    monkeypatch.setattr(precision, "bf16_of_cpu", lambda: "AMX")
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def of(fp32: float, bf16: float) -> Callable[[], None]:
        def step() -> None:
            nonlocal now
            now += bf16 if torch.is_autocast_enabled("cpu") else fp32

        return step

    return of


def is_on(fabric: Fabric) -> bool:
    autocast = fabric.strategy.precision
    assert isinstance(autocast, SwitchedAutocast)
    return autocast.is_on


@pytest.mark.skipif(not STARTS.exists(), reason="only Linux lists the processor's instructions")
def test_instructions_are_those_that_the_system_lists() -> None:
    words = STARTS.read_text().split()
    listed = "AMX" if "amx_bf16" in words else "AVX-512 BF16" if "avx512_bf16" in words else ""
    assert bf16_of_cpu() == listed


def test_autocast_computes_in_bf16_only_while_it_is_on(fabric: Fabric) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(64, 8), torch.randn(4, 64)
    inside: list[torch.dtype] = []
    layer.register_forward_hook(lambda *seen: inside.append(seen[2].dtype))
    module = fabric.setup_module(layer)
    exact = layer(inputs)
    assert torch.equal(module(inputs), exact)
    autocast = fabric.strategy.precision
    assert isinstance(autocast, SwitchedAutocast)
    autocast.is_on = True
    rounded = module(inputs)
    assert inside == [torch.float32, torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05


@pytest.mark.parametrize(("bf16", "chosen"), [(0.5, "bf16"), (2.0, "fp32")])
def test_the_faster_precision_is_chosen(
    fabric: Fabric,
    clock: Callable[[float, float], Callable[[], None]],
    bf16: float,
    chosen: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = clock(1.0, bf16)

    def run() -> None:
        with fabric.autocast():
            step()

    assert choose_precision(fabric, run, 8) == chosen
    assert capsys.readouterr().out == (
        f"Precision    fp32 8 images/s, bf16 {8 / bf16:.3g} images/s (steps of 8): {chosen} is "
        "used (--amp).\n"
    )
    assert is_on(fabric) == (chosen == "bf16")


def test_a_recorded_precision_is_used_without_timing(fabric: Fabric) -> None:
    assert choose_precision(fabric, pytest.fail, 8, "bf16") == "bf16"
    assert is_on(fabric)


def test_a_fabric_without_the_choice_is_left_alone() -> None:
    assert choose_precision(Fabric(accelerator="cpu", devices=1), pytest.fail, 8) is None


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("--amp", "--amp on"),
        ("--amp --seed 1", "--amp on --seed 1"),
        ("--no-amp", "--amp off"),
        ("--no_amp --seed 1", "--amp off --seed 1"),
        ("--amp auto", "--amp auto"),
        ("--amp=on --ema", "--amp=on --ema"),
        ("", ""),
    ],
)
def test_flags_of_both_signs_are_spelled_out(given: str, spelled: str) -> None:
    assert spell_switches(given.split(), types_of(Config())) == spelled.split()


def test_true_in_an_older_run_is_auto() -> None:
    assert in_current_terms({"amp": True, "ema": True}) == {"amp": "auto", "ema": True}
    assert in_current_terms({"amp": False}) == {"amp": "off"}
    assert in_current_terms({"amp": "on"}) == {"amp": "on"}


def test_another_value_is_refused(train: Train, phantom: Path, tmp_path: Path) -> None:
    code, _, error = train(*flags(phantom, tmp_path / "out"), "--amp", "onn")
    assert (code, error) == (2, "error: there is no --amp 'onn': did you mean 'on'?\n")


def test_a_processor_without_bf16_is_refused(
    train: Train, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "bf16_of_cpu", lambda: "")
    code, _, error = train(*flags(phantom, tmp_path / "out"), "--amp")
    assert code == 2
    assert error == (
        "error: --amp needs a CUDA GPU, or a processor with AMX or AVX-512 BF16, and this machine "
        "has neither: leave it out\n"
    )
    assert not (tmp_path / "out").exists()


def test_without_the_flag_one_line_says_what_it_would_gain(
    infer: Call, six_flags: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, lines in (("AMX", 1), ("", 0)):
        monkeypatch.setattr(precision, "bf16_of_cpu", lambda name=name: name)
        code, printed, error = infer(*six_flags, "--output", tmp_path / f"{name}.csv")
        assert code == 0, error
        assert printed.count("This processor computes bf16 (AMX): --amp times it") == lines


@pytest.fixture
def fake_speeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """Speeds by precision that a measurement finds; it really runs a step of each."""
    speeds: dict[str, float] = {}
    real = precision._speeds

    def measure(*given: Any) -> dict[str, float]:
        assert set(real(*given)) == {"fp32", "bf16"}
        return speeds

    monkeypatch.setattr(precision, "bf16_of_cpu", lambda: "AMX")
    monkeypatch.setattr(precision, "_speeds", measure)
    yield speeds
    sys.stdout.flush()


def test_the_choice_of_a_run_is_kept_for_its_later_folds(
    train: Train, phantom: Path, tmp_path: Path, fake_speeds: dict[str, float]
) -> None:
    runs = {}
    for name, given in {"off": ["--no-amp"], "fp32": ["--amp"], "bf16": ["--amp"]}.items():
        fake_speeds |= {"fp32": 1.0, "bf16": 2.0 if name == "bf16" else 0.5}
        command = [*flags(phantom, tmp_path / name), *given, "--epochs", 1]
        code, _, error = train(*command, "--run_folds", 1)
        assert code == 0, error
        # a measurement would now find the other one faster
        fake_speeds |= {"fp32": 2.0, "bf16": 2.0 if name == "fp32" else 0.5}
        code, printed, error = train(*command, "--run_folds", 2)
        assert code == 0, error
        recorded = json.loads((tmp_path / name / "env.json").read_text()).get("precision")
        assert recorded == (None if name == "off" else name)
        assert (f"Precision    {name}, as at the first start (--amp)." in printed) == bool(recorded)
        runs[name] = pd.read_csv(tmp_path / name / "metrics.csv")["train_loss"].to_numpy()
    assert np.array_equal(runs["off"], runs["fp32"])
    assert (runs["off"] != runs["bf16"]).all()
    np.testing.assert_allclose(runs["off"], runs["bf16"], rtol=0.1)


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_method_trains_in_bf16(
    method: str,
    train_method: Callable[[str], Train],
    phantom: Path,
    tmp_path: Path,
    fake_speeds: dict[str, float],
) -> None:
    fake_speeds |= {"fp32": 1.0, "bf16": 2.0}
    losses = []
    for given in ("off", "on"):
        words = [*flags(phantom, tmp_path / given), "--epochs", 1, "--run_folds", 1]
        assert train_method(method)(*words, "--amp", given)[0] == 0
        losses.append(pd.read_csv(tmp_path / given / "metrics.csv")["train_loss"].to_numpy())
    assert (losses[0] != losses[1]).all()
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.1)


@pytest.mark.parametrize(
    ("method", "more"), [(METHODS[0], ["--freeze_backbone"]), (METHODS[1], []), (METHODS[2], [])]
)
def test_a_dry_run_without_the_flag_measures_what_it_would_gain(
    method: str,
    more: list[str],
    train_method: Callable[[str], Train],
    phantom: Path,
    tmp_path: Path,
    fake_speeds: dict[str, float],
) -> None:
    fake_speeds |= {"fp32": 5.0, "bf16": 8.0}
    shown = "Precision    fp32 5 images/s, bf16 8 images/s (steps of 8): --amp would use bf16.\n"
    for given, lines in (("auto", 1), ("off", 0)):
        words = flags(phantom, tmp_path / given, *more)
        code, printed, error = train_method(method)(*words, "--amp", given, "--dry_run")
        assert (code, printed.count(shown)) == (0, lines), error
        assert "precision" not in json.loads(
            (tmp_path / f"{given}_dry_run" / "env.json").read_text()
        )


def test_predictions_in_bf16_are_close(
    infer: Call, six_flags: list, tmp_path: Path, fake_speeds: dict[str, float]
) -> None:
    found = []
    for faster in ("fp32", "bf16"):
        fake_speeds |= {"fp32": 1.0, "bf16": 2.0 if faster == "bf16" else 0.5}
        csv = tmp_path / f"{faster}.csv"
        code, printed, error = infer(*six_flags, "--amp", "--output", csv)
        assert code == 0, error
        assert f"{faster} is used (--amp)" in printed
        found.append(pd.read_csv(csv, index_col=0).to_numpy())
    assert 0 < np.abs(found[0] - found[1]).max() < 0.02


def test_heat_maps_have_the_precision_of_predictions(
    call: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path, fake_speeds: dict
) -> None:
    from ensemble.explain import main

    fake_speeds |= {"fp32": 1.0, "bf16": 2.0}
    given = ("--checkpoints", checkpoints[0], "--image_dir", phantom / "images", "--draw", 1)
    images = ("--images", sorted((phantom / "images").iterdir())[0].name)
    code, printed, error = call(main, *given, *images, "--amp", "--output", tmp_path / "maps")
    assert code == 0, error
    assert "bf16 is used (--amp)" in printed
    assert (tmp_path / "maps" / "sheet.png").stat().st_size


def test_couplings_alone_refuse_it(
    train_method: Callable[[str], Train], phantom: Path, tmp_path: Path
) -> None:
    given = ("--amp", "--refiner", "--couplings_only", tmp_path / f"{MODEL}_fold1.safetensors")
    code, _, error = train_method("label_coupling")(*flags(phantom, tmp_path / "out"), *given)
    assert (code, error.endswith("untrained: leave out --amp\n")) == (2, True)
