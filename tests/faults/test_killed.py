"""Commands killed at any moment, rerun to the result of an undisturbed run.

Commands are forks of a program that has imported everything, so that a kill costs a second.
"""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.fault_table import Fault
from tests.helpers.faults.commands import packing, predicting_of, training_of
from tests.helpers.faults.launches import at, shared
from tests.helpers.faults.same_results import assert_same
from tests.helpers.faults.trials import Command, Drawn, Trial
from tests.helpers.training.small_run import METHODS, MODEL

TrialOf = Callable[..., Trial]
SOAK = pytest.mark.soak
# states of whole epochs alone
TRACKED = ("--tensorboard", "--save_minutes", 1000)


@pytest.fixture(scope="module")
def trials() -> dict[str, Trial]:
    """Trials of this file: the undisturbed result of a command is made once."""
    return {}


@pytest.fixture
def trial_of(
    phantom: Path,
    tmp_path_factory: pytest.TempPathFactory,
    trials: dict[str, Trial],
    fault: Fault,
) -> Iterator[TrialOf]:
    """Trial of a command by its short name and more flags."""

    def command(name: str, folder: Path, *more: object) -> Command:
        if name == "pack":
            return packing(phantom / "images", folder, 512, *more)
        if name != "infer":
            folds = ["--run_folds", 1, 2] if name == "standard_head" and not more else []
            workers = int(name == "csra_db_cas")
            return training_of(name, phantom, folder, "--num_workers", workers, *folds, *more)
        made = [
            find(method).undisturbed / "out" / f"{MODEL}_fold1.safetensors"
            for method in METHODS[:2]
        ]
        images = folder.parent / "images"
        images.mkdir()
        for path in sorted((phantom / "images").iterdir())[:40]:
            shutil.copy(path, images)
        (images / "spoiled.png").write_bytes(b"\x89PNG")
        return predicting_of(made, folder.parent, folder, "--on_bad_image", "skip", *more)

    def find(name: str, *more: object) -> Trial:
        key = " ".join(map(str, (name, *more)))
        if key not in trials:
            folder = tmp_path_factory.mktemp("killed") / "work"
            trials[key] = Trial(command(name, folder, *more), shared())
        trials[key].begin()
        trials[key].fault = fault
        return trials[key]

    yield find
    for trial in trials.values():
        trial.wait_for_killed()


@pytest.mark.parametrize(
    "name", [*METHODS[:2], pytest.param(METHODS[2], marks=SOAK), "infer", "pack"]
)
def test_killed_repeatedly(name: str, trial_of: TrialOf, soak: bool) -> None:
    """At another moment each time, by the clock or by count; alone or with its whole tree."""
    # by count they are the same ones every time
    counts, clock = np.random.default_rng(7), np.random.default_rng()
    one = trial_of(name)
    kinds = sorted({"update", "batch", "step"} & one.moments.keys())

    def by_count(within: float) -> Drawn:
        kind = kinds[counts.integers(len(kinds))]
        number = 1 + int(counts.random() * within * one.moments[kind])
        return kind, number, bool(counts.integers(2))

    def by_clock(within: float) -> Drawn:
        return "seconds", clock.random() * within * one.first.seconds, bool(clock.integers(2))

    both = (by_count, by_clock)
    for draw in both * 3 if soak else both if name == METHODS[0] else both[:1]:
        one.kill_until_it_ends(draw)
        one.begin()
    assert len(one.killed) >= (6 if soak else 1)


@pytest.mark.parametrize(
    "method", [METHODS[0], *(pytest.param(other, marks=SOAK) for other in METHODS[1:])]
)
def test_a_killed_training_does_not_restart(method: str, trial_of: TrialOf) -> None:
    """Which would give the same bits: it resumes at the last update that was saved."""
    one = trial_of(method)
    updates = one.moments["update"]
    killed_at = 2 * updates // 3
    # at that moment the update is made and its state is not saved yet
    assert one.kill("update", killed_at)
    assert one.finish().seen["moments"]["update"] == updates - (killed_at - 1)


@pytest.mark.parametrize("words", [("infer",), ("pack", "--part", "1/2")], ids=["infer", "pack"])
def test_killed_between_any_two_steps(
    words: tuple[str, ...], trial_of: TrialOf, soak: bool
) -> None:
    """Each start is killed at a later step with its files.

    A predictor keeps its blocks in between, and the first steps of a start are then those of its
    end.
    """
    one, step = trial_of(*words), 1
    while one.kill("step", step):
        step += 1 if soak else 6
    assert len(one.killed) > (6 if soak else 2)


@pytest.mark.parametrize(
    "name", ["standard_head", *(pytest.param(other, marks=SOAK) for other in ("infer", "pack"))]
)
def test_overwrite_that_is_killed_can_be_given_again(
    name: str, trial_of: TrialOf, soak: bool
) -> None:
    """Killed at each deletion of what was there, a whole result, and then early in the next.

    In the short form at every fourth one.
    """
    one = trial_of(name, "--overwrite")
    for number in range(1, 20, 1 if soak else 4):
        shutil.copytree(one.undisturbed, one.folder, dirs_exist_ok=True)
        if not one.kill("deletion", number):
            break
        assert one.kill("step", 8)
        one.begin()
    assert len(one.killed) > (6 if soak else 3)


def test_an_epoch_that_was_recorded_but_not_kept_has_one_row(trial_of: TrialOf) -> None:
    """Its rows in metrics.csv and timing.csv come before its state."""
    one = trial_of("standard_head", *TRACKED)
    assert one.kill("row", 4)
    one.finish()


def test_a_kill_while_the_report_is_written_leaves_nothing(trial_of: TrialOf) -> None:
    one = trial_of("csra_db_cas")
    assert one.kill("step", one.number("replace", ".png", 2))
    assert list(one.folder.glob("out/plots/.*.png"))
    one.finish()


def test_a_folder_with_a_live_run_is_refused(trial_of: TrialOf) -> None:
    one = trial_of("csra_db_cas")
    first = one.start(at("update", 12, signal=signal.SIGSTOP))
    first.comes_to_its_moment()
    folder = one.folder / "out"
    assert f"another process is training in {folder}" in one.run().refusal()
    first.send(signal.SIGCONT)
    first.finishes()
    assert_same(one.folder, one.undisturbed)


def test_tensorboard_has_each_epoch_after_a_kill(trial_of: TrialOf) -> None:
    """Its writer keeps values for two minutes, and an epoch that is over is not trained again."""
    one = trial_of("standard_head", *TRACKED)
    assert one.kill("update", 16)
    one.finish()
    one.finish()
    (folder,) = one.folder.glob("out/tensorboard/fold*")
    board = EventAccumulator(str(folder)).Reload()
    assert {event.step for event in board.Scalars("mAP")} == {1, 2, 3}
    # no empty ones of starts that had nothing to train
    assert len(list(folder.iterdir())) == 2
