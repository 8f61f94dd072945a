"""A command that is killed at any moment ends, when it is given again, as if nobody had killed it.

Here commands are forks of a program that has imported everything, so that a kill costs a second;
test_killed_processes.py kills them as a user starts them.
"""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.fault_table import Fault
from tests.helpers.faults.killed_commands import (
    Command,
    Forks,
    Moment,
    Trial,
    inferring,
    members,
    packing,
    training,
    trial,
)
from tests.helpers.faults.launches import leave_to_soak
from tests.helpers.faults.same_results import assert_same
from tests.helpers.training.small_run import METHODS, MODEL

Try = Callable[[Command], AbstractContextManager[Trial]]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    # a short path: sockets of Python's own processes lie in it
    with tempfile.TemporaryDirectory() as folder:
        server = Forks(Path(folder))
        yield server
        server.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands write, and beside it what they give undisturbed."""
    return tmp_path_factory.mktemp("killed")


@pytest.fixture
def tried(forks: Forks, place: Path) -> Try:
    """Of a command, trials by forks."""
    return lambda command: trial(
        command, forks.start, command.folder.with_name(f"{command.folder.name}.undisturbed")
    )


@pytest.fixture
def commands(phantom: Path, place: Path, tried: Try) -> Callable[..., Command]:
    """The commands that are killed, by a short name."""

    def choose(name: str, *more: object) -> Command:
        folder = place / "_".join([name, *map(str, more)]).replace("-", "").replace("/", "of")
        if name == "pack":
            return packing(phantom / "images", folder, 512, *more)
        if name != "infer":
            folds, workers = (2, 0) if name == "standard_head" and not more else (1, 0)
            if name == "csra_db_cas":
                workers = 1
            return training(name, phantom, folder, "--num_workers", workers, *more, folds=folds)
        made = []
        for method in METHODS[1:]:
            with tried(choose(method)) as one:
                made.append(one.expected / "run" / f"{MODEL}_fold1.safetensors")
        images = place / "images"
        if not images.exists():
            images.mkdir()
            for path in sorted((phantom / "images").iterdir())[:40]:
                shutil.copy(path, images)
            (images / "spoiled.png").write_bytes(b"\x89PNG")
        return inferring(made, images, folder, "--on_bad_image", "skip", *more)

    return choose


@pytest.mark.parametrize("name", [*METHODS, "infer", "pack"])
def test_killed_again_and_again(
    name: str, commands: Callable[..., Command], tried: Try, fault: Fault, soak: bool
) -> None:
    """Each life at another moment, by the clock or by count; alone or with its whole tree."""
    # by count they are the same ones every time
    counts, clock = np.random.default_rng(7), np.random.default_rng()
    with tried(commands(name)) as one:
        kinds = sorted({"update", "evaluation", "file"} & one.undisturbed.moments.keys())

        def by_count(within: float) -> tuple[Moment, bool]:
            kind = kinds[counts.integers(len(kinds))]
            at = 1 + int(counts.random() * within * one.undisturbed.moments[kind])
            return (kind, at), bool(counts.integers(2))

        def by_clock(within: float) -> tuple[Moment, bool]:
            seconds = clock.random() * within * one.undisturbed.seconds
            return ("seconds", seconds), bool(clock.integers(2))

        try:
            for draw in (by_count, by_clock) * (3 if soak else 1):
                one.kill_until_it_ends(draw)
                one.clear()
        finally:
            fault(f"SIGKILL while {one.command.name}", len(one.killed))
        assert len(one.killed) >= (6 if soak else 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_does_not_start_anew(
    method: str, commands: Callable[..., Command], tried: Try, soak: bool
) -> None:
    """Which would give the same bits: it goes on at the last update that was saved."""
    leave_to_soak(soak, method != "standard_head")
    with tried(commands(method)) as one:
        every = one.undisturbed.moments["update"]
        at = 2 * int(every) // 3
        # at that moment the update is made and its state is not saved yet
        one.kill(("update", at))
        assert one.finish().moments["update"] == every - (at - 1)


@pytest.mark.parametrize("words", [("infer",), ("pack", "--part", "1/2")], ids=["infer", "pack"])
def test_killed_between_any_two_steps(
    words: tuple[str, ...], commands: Callable[..., Command], tried: Try, fault: Fault, soak: bool
) -> None:
    """Life after life at a later step with its files; what a step does is done again by the next.

    A predictor keeps its blocks in between, and the first steps of a life are then those of its
    end.
    """
    with tried(commands(*words)) as one:
        step, stride = 1, 1 if soak else 3
        try:
            while (life := one.start(one.command, ("file", step), False)).killed:
                one.killed.append(life)
                step += stride
            one.check(life)
        finally:
            fault(f"SIGKILL while {one.command.name}", len(one.killed))
        assert len(one.killed) > 6


@pytest.mark.parametrize("name", ["standard_head", "infer", "pack"])
def test_overwrite_that_is_killed_can_be_given_again(
    name: str, commands: Callable[..., Command], tried: Try, fault: Fault, soak: bool
) -> None:
    """Killed at each deletion of what was there, a whole result, and then early in the next."""
    leave_to_soak(soak, name != "standard_head")
    with tried(commands(name, "--overwrite")) as one:
        try:
            for at in range(1, 20):
                one.clear()
                shutil.copytree(one.expected, one.command.folder)
                life = one.start(one.command, ("deletion", at), False)
                if not life.killed:
                    break
                one.killed.append(life)
                one.kill(("file", 4))
            one.check(life)
        finally:
            fault(f"SIGKILL while {one.command.name}", len(one.killed))
        assert len(one.killed) > 6


@pytest.mark.parametrize("rows", [1, 4])
def test_an_epoch_that_was_recorded_but_not_kept_has_one_row(
    rows: int, commands: Callable[..., Command], tried: Try
) -> None:
    """Its rows in metrics.csv and timing.csv come before its state."""
    with tried(commands("standard_head", "--save_minutes", 1000)) as one:
        one.kill(("row", rows))
        one.finish()


def test_a_kill_while_the_report_is_written_leaves_nothing(
    commands: Callable[..., Command], tried: Try
) -> None:
    # the last seven steps are those of report.html, before them comes a picture
    with tried(commands("csra_db_cas")) as one:
        one.kill(("file", one.undisturbed.moments["file"] - 10))
        assert list(one.command.folder.glob("run/plots/.*.png"))
        one.finish()


def test_workers_of_a_killed_run_do_not_hold_its_folder(
    commands: Callable[..., Command], tried: Try
) -> None:
    """They notice after seconds that they are orphans; the same command is given at once."""
    with tried(commands("csra_db_cas")) as one:
        one.kill(("update", 12))
        assert members({one.killed[0].pid})
        one.finish()


def test_a_folder_with_a_live_run_is_refused(
    commands: Callable[..., Command], tried: Try, forks: Forks
) -> None:
    with tried(commands("label_coupling")) as one:
        first = forks.start(one.command, ("update", 12), send=signal.SIGSTOP)
        assert first.stopped, first.printed
        second = forks.start(one.command)
        assert second.code == 2
        assert f"another process is training in {one.command.folder / 'run'}" in second.printed
        assert forks.resume(first) == 0
        assert_same(one.command.folder, one.expected)


def test_tensorboard_has_each_epoch_after_a_kill(
    commands: Callable[..., Command], tried: Try
) -> None:
    """Its writer keeps values for two minutes, and an epoch that is over is not trained again."""
    with tried(commands("standard_head", "--tensorboard")) as one:
        one.kill(("update", 16))
        one.finish()
        one.finish()
        (folder,) = one.command.folder.glob("run/tensorboard/*")
        board = EventAccumulator(str(folder)).Reload()
        assert {event.step for event in board.Scalars("mAP")} == {1, 2, 3}
        # no empty ones of starts that had nothing to train
        assert len(list(folder.iterdir())) == 2
