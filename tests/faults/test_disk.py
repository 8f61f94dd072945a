"""Full disk at any write: one error line, nothing lost, and the same command resumes."""

import errno
import os
from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path

import pytest

from tests.helpers.fault_table import Fault
from tests.helpers.faults.commands import OTHERS, data_with_predictions, disk_command, run_of_many
from tests.helpers.faults.launches import Launches, at, shared
from tests.helpers.faults.same_results import differing
from tests.helpers.faults.trials import Trial
from tests.helpers.training.small_run import METHODS, MODEL

TrialOf = Callable[[str], Trial]
# in the long form: they need more trainings
LATER = (*METHODS[1:], "methods.label_coupling.couplings")
# what label_coupling writes after its report
PREDICTED = {"test.csv", "test_training_overlap.json", ".test.csv.parts"}
# where a training may fail in the short form: what, with which file, which time
PLACES = [
    ("save", ".state.safetensors", 1),
    ("replace", "/test_efficientnet_fold1.safetensors", 1),
    ("write", "_val.csv", 1),
    ("write", ".0", 2),
]


@pytest.fixture(scope="module")
def trial_of(tmp_path_factory: pytest.TempPathFactory) -> TrialOf:
    """Trial of a method's training, or of another command, on the small disk."""
    data = data_with_predictions(tmp_path_factory.mktemp("data"))
    many = tmp_path_factory.mktemp("many") / "run"

    @cache
    def make(name: str) -> Trial:
        folder, places = shared().room / "work", {"data": data}
        if name in OTHERS:
            places["run"] = make("standard_head").undisturbed / "out"
            if "{coupled}" in OTHERS[name]:
                places["coupled"] = make("label_coupling").undisturbed / "out"
            if name == "ensemble.choose":
                places["run"] = run_of_many(places["run"], data, many)
        return Trial(disk_command(name, folder, **places), shared(), threads=True)

    return make


def numbers_of(one: Trial, share: int) -> list[int]:
    """`share` of the steps of a command, evenly spread."""
    every = range(1, len(one.steps) + 1)
    return list(every[len(every) // (share + 1) :: len(every) // share])


def test_each_write_of_a_training(trial_of: TrialOf, soak: bool, fault: Fault) -> None:
    one = trial_of("standard_head")
    numbers = [one.number(*place) for place in PLACES]
    if soak:
        numbers = [*range(1, len(one.steps) + 1)]
    fault("full disk at a write of a training", len(numbers))
    for number in numbers:
        sentence = one.try_full(number, errno="ENOSPC")
        what, name = one.steps[number - 1]
        # a tracker alone does not end a training
        if what in ("write", "save", "replace") and "tensorboard" not in name:
            cause = (
                "No space left on device; free some space there, then rerun the command to resume"
            )
            assert cause in sentence
            assert Path(name).suffix in sentence


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] if name.startswith(LATER) else [])
        for name in (*METHODS[1:], *OTHERS)
    ],
)
def test_each_write_of_another_command(
    name: str, trial_of: TrialOf, soak: bool, fault: Fault
) -> None:
    """The methods share what they write with, and a phantom's picture is like the one before."""
    one, stride = trial_of(name), 12 if name in METHODS or name == "core.data.phantom" else 1
    numbers = numbers_of(one, 2 if name in ("ensemble.infer", "core.data.pack") else 1)
    if soak:
        numbers = [*range(1, len(one.steps) + 1, stride)]
    what = "a training" if name in METHODS else "predictions, a pack or scores"
    fault(f"full disk at a write of {what}", len(numbers))
    for number in numbers:
        one.try_full(number, errno="ENOSPC")


def test_other_reasons_of_a_disk(trial_of: TrialOf, soak: bool, fault: Fault) -> None:
    """A quota, a limit on a file's size, a disk that fails, for a moment only."""
    one = trial_of("standard_head")
    numbers = [*range(2, len(one.steps), 8)] if soak else numbers_of(one, 2)
    fault("quota, file size limit or failing disk at a write", len(numbers))
    for number, reason in zip(numbers, cycle(["EDQUOT", "EFBIG", "EIO"]), strict=False):
        sentence = one.try_full(number, errno=reason, once=True)
        assert not sentence or os.strerror(getattr(errno, reason)) in sentence


@pytest.mark.parametrize(
    "name", ["standard_head", pytest.param("label_coupling", marks=pytest.mark.soak)]
)
def test_a_disk_that_fills_in_the_report_of_the_last_epoch(
    name: str, trial_of: TrialOf, soak: bool, fault: Fault
) -> None:
    """What was trained is whole, and is not trained again."""
    one = trial_of(name)
    state = f"/{MODEL}_fold1.state.safetensors"
    trained = max(n for n, step in enumerate(one.steps, 1) if step == ("replace", f"out{state}"))
    # a tracker alone does not end a training
    after = [
        number
        for number, (what, name) in enumerate(one.steps, start=1)
        if number > trained and what in ("open", "write") and "tensorboard" not in name
    ]
    for number in after[1::4] if soak else after[1:2]:
        fault("disk that fills in the report of the last epoch", 1)
        one.begin()
        sentence = one.run(at("step", number, errno="ENOSPC")).refusal()
        assert "cannot be written: No space left on device" in sentence
        assert "rerun the command to resume" in sentence
        one.check_what_is_left()
        unwritten = {
            Path(name.removeprefix("out/")).parts[0]
            for name in differing(one.folder, one.undisturbed)
        }
        assert unwritten <= {"plots", "report.html", *PREDICTED}
        again = one.finish()
        assert "finished before (best epoch" in again.printed
        assert "update" not in again.seen["moments"]


def test_a_disk_that_is_really_full(
    mounts: Launches, trial_of: TrialOf, soak: bool, fault: Fault
) -> None:
    """A file system of its own, which another program fills when a file is begun."""
    names = ["standard_head", "ensemble.infer", "core.data.phantom"]
    names += ["label_coupling", "core.data.pack", "ensemble.evaluate"] if soak else []
    tried, refused = 0, 0
    for name in names:
        one = trial_of(name)
        opened = [number for number, (what, _) in enumerate(one.steps, 1) if what == "open"]
        for number in opened[1::8] if soak else opened[len(opened) // 2 :][:1]:
            tried += 1
            fault("a disk that is really full (tmpfs)", 1)
            refused += one.try_full(number, fill=mounts.ballast) != ""
    # the others had begun nothing that needed more room
    assert refused > tried / 2
