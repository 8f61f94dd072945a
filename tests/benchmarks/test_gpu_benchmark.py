"""`python -m benchmarks gpu` on a CPU with a tiny network: what it measures (no speeds)."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import __main__ as command
from benchmarks.gpu.loops import TimmLoop, in_memory
from benchmarks.gpu.plan import FITTING, Figure, Plan
from benchmarks.runner import start
from benchmarks.speed import gpu
from benchmarks.speed.step import BareLoop
from tests.conftest import Call
from tests.helpers.training.small_run import METHODS

# one of them, as each takes long; a GPU runs all
METHOD = "csra_db_cas"
TINY = Plan(
    device="cpu",
    model="resnet10t",
    img_size=32,
    batches={METHOD: 4},
    rounds=2,
    updates=2,
    epoch=5,
    images=20,
    workers=0,
)
# rows of each method, in their order, and of all together
OF_EACH = (
    *("training", "training"),
    *("waiting for data from a pack", "training from a pack", "peak memory"),
    *("resume, largest difference", "training, fp16", "fp16, skipped", "training, --compile"),
)
TOGETHER = ("prediction, batches in memory", "prediction of a pack, CSV included")
PROCESSES = ("2 processes on one device, gloo", "largest difference between them")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Figure]]:
    """Rows of a tiny plan by question, without the compiler."""
    found: dict[str, list[Figure]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "compile", lambda _: None)
        for row in gpu.measure(TINY, tmp_path_factory.mktemp("gpu")):
            found.setdefault(row.question, []).append(row)
    return found


def test_every_measurement_runs(rows: dict[str, list[Figure]]) -> None:
    assert [row.note for part in rows.values() for row in part if row.note] == []
    wanted = [f"{METHOD}: {what}" for what in OF_EACH]
    wanted += [*TOGETHER, *(f"{METHOD}: {what}" for what in PROCESSES)]
    assert sorted(row.question for part in rows.values() for row in part) == sorted(wanted)
    for part in rows.values():
        for row in part:
            assert math.isfinite(row.measured)
            assert json.loads(json.dumps(row.record(), allow_nan=False))["environment"]["torch"]


def test_peers_and_equal_results(rows: dict[str, list[Figure]]) -> None:
    pair = rows[f"{METHOD}: training"]
    assert [row.against for row in pair] == ["bare loop", "timm's loop"]
    assert {row.floor for row in pair} == {0.95}
    # a CPU gives equal bits after a resume
    (resume,) = rows[f"{METHOD}: resume, largest difference"]
    assert (resume.measured, resume.reference) == (0, 0)
    (memory,) = rows[f"{METHOD}: peak memory"]
    assert memory.against == "--dry_run"
    assert memory.measured >= memory.reference > 0
    (waiting,) = rows[f"{METHOD}: waiting for data from a pack"]
    assert 0 < waiting.measured < 100
    assert rows[TOGETHER[0]][0].against == "1 x 6 passes"
    assert rows[f"{METHOD}: {PROCESSES[1]}"][0].measured == 0


def test_timms_parts_train_as_the_bare_loop() -> None:
    task = in_memory(replace(TINY, batches={"label_coupling": 4}), "label_coupling")
    bare, timm = BareLoop(task, TINY.autocast), TimmLoop(TINY, task)
    start = torch.cat(
        [value.flatten() for value in task.model().get_submodule("backbone").parameters()]
    )
    for loop in (bare, timm):
        # the same dropout
        torch.manual_seed(0)
        loop.update(0, task.batches[0])
    ours, theirs = (
        torch.cat(
            [
                value.detach().flatten()
                for value in loop.model.get_submodule("backbone").parameters()
            ]
        )
        for loop in (bare, timm)
    )
    assert torch.dist(ours, theirs) < 0.1 * torch.dist(ours, start)


def test_what_fails_or_is_not_reached_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> Iterator[Figure]:
        yield Figure("one", "s", "peer", 1.0, 2.0)
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    def fine(_: Path) -> Iterator[Figure]:
        yield Figure("two", "s", "peer", 1.0, math.nan)

    monkeypatch.setattr(gpu, "make_data", lambda plan, folder: folder)
    monkeypatch.setattr(gpu, "steps", lambda plan, data: [("a", broken), ("b", fine)])
    one, failed, two = gpu.measure(TINY, tmp_path)
    assert one.ratio == 0.5
    assert failed.verdict == "MISSED"
    assert str(failed).split(None, 1)[1].strip() == (
        "not measured (RuntimeError: CUDA out of memory.)"
    )
    assert two.record()["reference"] is two.record()["ratio"] is None
    late = list(gpu.measure(replace(TINY, budget=-1), tmp_path / "late"))
    assert [(row.question, row.verdict, row.note) for row in late] == [
        ("a", None, "not reached in -1 s"),
        ("b", None, "not reached in -1 s"),
    ]
    assert late[0].record()["measured"] is None


def test_the_default_plan_is_the_preset_paper() -> None:
    for method, batch in FITTING.items():
        config = Plan().config(method)
        assert (config.loader.batch_size, config.model.pretrained) == (batch, False)
        assert config.loader.img_size == (380 if method == "label_coupling" else 512)
        assert config.model.model in ("convnextv2_base", "seresnext101_32x4d")
    assert FITTING.keys() == {*METHODS}


@pytest.mark.parametrize("names", [("gpu",), ("loader", "gpu")])
def test_without_a_gpu_it_is_one_sentence(
    names: tuple[str, ...], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main = partial(
        start, command.main, command.__doc__, command.QUESTIONS, True, extra=command.EXTRA
    )
    code, out, error = call(main, *names)
    assert (code, out) == (2, "")
    assert error.count("\n") == 1
    assert "the question gpu needs a GPU" in error
