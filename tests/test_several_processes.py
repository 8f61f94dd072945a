"""Training with two processes over gloo, equal to one process.

`rank_cases` goes through all cases once in one process, and once in two of torchrun's agent.
"""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import core.runtime.fabric
from core.data.tables import read_table
from tests.helpers.faults.launches import Place, shared
from tests.helpers.training.rank_cases import (
    GLOBAL_BATCH,
    LOSSES,
    SPOILED,
    STOP_AT,
    TRAINING_IMAGES,
    VALIDATION_SIZES,
)

CASES = "tests.helpers.training.rank_cases"
UPDATES = TRAINING_IMAGES // GLOBAL_BATCH
CLOSE = 1e-5


class Launch:
    """What the cases of one launch left, `processes` of them."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.processes = folder, processes

    def seen(self, case: str, time: str = "") -> list[dict[str, Any]]:
        """Record of each rank for `case`; `time` is "_2" for its second start."""
        paths = [self.folder / case / f"rank{rank}{time}.json" for rank in range(self.processes)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def tensors(self, case: str, rank: int = 0, time: str = "") -> dict[str, Tensor]:
        return load_file(self.folder / case / f"rank{rank}{time}.safetensors")

    def metrics(self, case: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / case / "metrics.csv")

    def predictions(self, case: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / case / "toy_fold1_val.csv", index_col="ImageID")


@pytest.fixture(scope="module")
def launches(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Launch, Launch]:
    """One process, and two, at the same time."""
    started = []
    for processes, name in ((0, "one"), (2, "two")):
        out = tmp_path_factory.mktemp(name)
        started.append((shared().start(CASES, phantom, out, place=Place(processes)), out))
    for launch, _ in started:
        assert launch.wait(280) == 0, launch.printed[-5000:]
    return Launch(started[0][1], 1), Launch(started[1][1], 2)


@pytest.fixture
def one(launches: tuple[Launch, Launch]) -> Launch:
    return launches[0]


@pytest.fixture
def two(launches: tuple[Launch, Launch]) -> Launch:
    return launches[1]


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=CLOSE, rtol=0)


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_plain_python_is_one_process(one: Launch, two: Launch) -> None:
    assert [seen["world_size"] for seen in one.seen("bce_1")] == [1]
    assert [(seen["rank"], seen["world_size"]) for seen in two.seen("bce_1")] == [(0, 2), (1, 2)]


def test_plain_python_takes_one_device_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LT_CLI_USED", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    made = Mock(return_value=Mock(device=torch.device("cpu"), world_size=1))
    monkeypatch.setattr(core.runtime.fabric, "Fabric", made)
    core.runtime.fabric.make_fabric(amp="off")
    assert made.call_args.kwargs["devices"] == 1


@pytest.mark.parametrize("case", ["bce_1", "bce_2", "csra"])
def test_ranks_see_the_parts_of_one_plan(case: str, one: Launch, two: Launch) -> None:
    whole = one.seen(case)[0]["rows"]
    first, second = (seen["rows"] for seen in two.seen(case))
    assert len(whole) == (3 if case == "csra" else 2) * UPDATES
    assert whole.keys() == first.keys() == second.keys()
    for update, rows in whole.items():
        assert len(first[update]) == len(second[update]) == GLOBAL_BATCH // 2
        assert sorted(first[update] + second[update]) == sorted(rows)
    # in an epoch class_aware takes rare images twice and leaves others out
    epoch = [row for update in range(UPDATES) for row in whole[str(update)]]
    assert (len(set(epoch)) < len(epoch)) == (case == "csra")


@pytest.mark.parametrize("case", ["bce_2", *(f"{loss}_1" for loss in LOSSES)])
def test_two_processes_learn_what_one_learns(case: str, one: Launch, two: Launch) -> None:
    loss = case.rpartition("_")[0]
    single = one.metrics(f"{loss}_1")
    pd.testing.assert_frame_equal(two.metrics(case), single, atol=CLOSE, rtol=0)
    weights = one.tensors(f"{loss}_1")
    assert_close(two.tensors(case), weights)
    start = one.tensors("start")
    for name, value in start.items():
        assert (weights[f"model.{name}"] - value).abs().max() > 100 * CLOSE, name


@pytest.mark.parametrize("case", ["head", "head_all"])
def test_ranks_hold_the_same_bits_after_each_phase(case: str, one: Launch, two: Launch) -> None:
    first, second = two.tensors(case, rank=0), two.tensors(case, rank=1)
    assert_equal(first, second)
    assert_close(first, one.tensors(case))
    start = one.tensors("start")
    for name, value in start.items():
        trained = name.startswith("head") or case == "head_all"
        for kind in ("model", "average"):
            assert torch.equal(first[f"{kind}.{name}"], value) != trained


def test_ranks_keep_the_features_of_their_own_images(one: Launch, two: Launch) -> None:
    """With a view for each epoch they learn what they learn without; with fewer, one rank's later
    batches are shuffled among the images that it has."""
    for views in (2, 4):
        first, second = (two.tensors(f"head_views_{views}", rank=rank) for rank in (0, 1))
        assert_equal(first, second)
    assert_equal(two.tensors("head_views_4"), two.tensors("head_views_0"))
    assert_close(two.tensors("head_views_4"), one.tensors("head_views_0"))
    for case, ranks in (("head_views_2", two), ("head_views_2", one)):
        for seen in ranks.seen(case):
            epochs = [
                [seen["rows"][str(update)] for update in range(UPDATES * e, UPDATES * (e + 1))]
                for e in range(4)
            ]
            images = [sorted(row for rows in epoch for row in rows) for epoch in epochs]
            assert images[2:] == images[:2]
            assert images[0] != images[1]
            assert epochs[2] != epochs[0]
            assert epochs[3] != epochs[1]


@pytest.mark.parametrize("case", ["csra", "coupling"])
def test_two_processes_learn_a_methods_head(case: str, one: Launch, two: Launch) -> None:
    """Weights, their average, the epochs' losses and scores, and the predictions."""
    weights = one.tensors(case)
    first, second = two.tensors(case, rank=0), two.tensors(case, rank=1)
    assert_equal(first, second)
    assert_close(first, weights)
    pd.testing.assert_frame_equal(two.metrics(case), one.metrics(case), atol=CLOSE, rtol=0)
    ours, theirs = two.predictions(case), one.predictions(case)
    pd.testing.assert_frame_equal(ours.loc[theirs.index], theirs, atol=CLOSE, rtol=0)
    for name, value in one.tensors(f"start_{case}").items():
        for kind in ("model", "average"):
            assert (weights[f"{kind}.{name}"] - value).abs().max() > 100 * CLOSE, name


def test_two_processes_learn_head_and_couplings_on_a_frozen_backbone(
    one: Launch, two: Launch
) -> None:
    first = two.tensors("coupling_frozen", rank=0)
    assert_equal(first, two.tensors("coupling_frozen", rank=1))
    assert_close(first, one.tensors("coupling_frozen"))
    for name, value in one.tensors("start_coupling").items():
        assert torch.equal(first[f"model.{name}"], value) != name.startswith("head"), name


@pytest.mark.parametrize("kind", ["model", "average"])
def test_couplings_of_two_processes_rest_at_the_same_zeros(
    kind: str, one: Launch, two: Launch
) -> None:
    """Where the penalty holds them: without it none does."""
    alone, first, second, free = (
        ranks.tensors(case, rank)[f"{kind}.head.coupling.A"]
        for ranks, case, rank in (
            *((one, "coupling", 0), (two, "coupling", 0), (two, "coupling", 1)),
            (two, "coupling_free", 0),
        )
    )
    off_diagonal = ~torch.eye(len(alone), dtype=torch.bool)
    zeros = alone == 0
    assert 10 <= zeros[off_diagonal].sum() <= off_diagonal.sum() - 10
    assert torch.equal(first == 0, zeros)
    assert torch.equal(second == 0, zeros)
    assert not (free == 0)[off_diagonal].any()


@pytest.mark.parametrize("size", VALIDATION_SIZES)
def test_evaluation_reads_each_image_once(size: int, one: Launch, two: Launch) -> None:
    case = f"validation{size}"
    first, second = ([row for row in seen["rows"] if row >= 0] for seen in two.seen(case))
    assert sorted(first + second) == list(range(60 - size, 60))
    assert len(first) < size
    assert_equal(two.tensors(case, rank=0), two.tensors(case, rank=1))
    assert_close(two.tensors(case), one.tensors(case))
    spread = one.tensors(case)["plain"].std(dim=0)
    assert spread.min() > 20 * CLOSE


def test_batch_statistics_are_those_of_the_weights_that_are_kept(two: Launch) -> None:
    """The two ranks' statistics differ; predictions of both must come from the saved ones."""
    first, second = two.tensors("norm", rank=0), two.tensors("norm", rank=1)
    assert not torch.equal(
        first["model.backbone.2.running_mean"], second["model.backbone.2.running_mean"]
    )
    again = two.tensors("norm_again")["predictions"].numpy()
    np.testing.assert_allclose(two.predictions("norm").to_numpy(), again, atol=1e-6)


def test_the_first_ranks_clock_saves_for_all(two: Launch) -> None:
    looks = list(range(2, 2 * UPDATES + 1, 2))
    ends = [UPDATES, 2 * UPDATES]
    for seen in two.seen("first_clock"):
        assert seen["saved_after"] == sorted(looks + ends)
    for seen in two.seen("other_clocks"):
        assert seen["saved_after"] == ends


def test_patience_ends_all_ranks_in_one_epoch(one: Launch, two: Launch) -> None:
    (alone,) = one.seen("patience")
    for seen in two.seen("patience"):
        assert seen["finished"]
        assert len(seen["rows"]) == 3 * UPDATES
        assert (
            (seen["epoch"], seen["best_epoch"]) == (alone["epoch"], alone["best_epoch"]) == (3, 1)
        )


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_one_rank_stops_all_at_one_update(
    processes: int, launches: tuple[Launch, Launch]
) -> None:
    ranks = launches[processes - 1]
    # a look comes after every second update
    stopped_at = STOP_AT + 1
    for seen in ranks.seen("stop"):
        assert seen["ended"] == str(128 + 15)
        assert seen["total_updates"] == len(seen["rows"]) == stopped_at
        assert seen["saved_after"] == [stopped_at]
    for seen, straight in zip(ranks.seen("stop", "_2"), ranks.seen("bce_1"), strict=True):
        assert seen["finished"]
        plan = straight["rows"].items()
        assert seen["rows"] == {update: rows for update, rows in plan if int(update) >= stopped_at}
    pd.testing.assert_frame_equal(ranks.metrics("stop"), ranks.metrics("bce_1"), atol=CLOSE, rtol=0)
    for rank in range(processes):
        assert_equal(ranks.tensors("stop", rank, "_2"), ranks.tensors("bce_1", rank))


def test_a_state_missing_on_one_process_is_reported(two: Launch) -> None:
    first, second = two.seen("unshared")
    assert first["ended"] == second["ended"]
    assert first["ended"].startswith("processes 1 and 2 of 2 (ranks 0 and 1) do not have the same ")
    assert first["ended"].endswith(": --out_dir must be one folder that all machines share")
    assert not first["rows"]


# two batches an update
SPOILED_UPDATE = (SPOILED - 1) // 2


def spoiled_images(phantom: Path, two: Launch, case: str) -> list[str]:
    """Images of the second rank, where the loss or gradient was spoiled."""
    names = read_table(phantom / "train.csv", phantom / "images").ids
    first, second = two.seen(case)
    assert first["ended"] == second["ended"]
    assert not (two.folder / case / "metrics.csv").exists()
    images = [names[row] for row in second["rows"][str(SPOILED_UPDATE)]]
    assert len(images) == GLOBAL_BATCH // 2
    return images


def test_a_spoiled_loss_of_one_rank_ends_all_by_its_images(phantom: Path, two: Launch) -> None:
    images = ", ".join(spoiled_images(phantom, two, "spoiled_loss"))
    where = f"at update {SPOILED_UPDATE + 1} (fold 1, epoch 1; images {images})"
    assert f"the loss was not finite {where}" in two.seen("spoiled_loss")[0]["ended"]


def test_a_spoiled_gradient_names_the_images_that_may_have_caused_it(
    phantom: Path, two: Launch
) -> None:
    """The sum over ranks is not finite on any of them, whoever caused it."""
    message = two.seen("spoiled_gradient")[0]["ended"]
    assert f"the gradient was not finite at update {SPOILED_UPDATE + 1}" in message
    for image in spoiled_images(phantom, two, "spoiled_gradient"):
        assert image in message
