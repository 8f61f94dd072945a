"""Loader workers that cannot start or are lost: one error line with the true cause."""

import json
import resource
from collections.abc import Iterator
from typing import Any

from core.runtime.worker_failures import allow_open_files
from tests.helpers.fault_table import Fault
from tests.helpers.faults.launch import Launch
from tests.helpers.faults.launches import Launches

MODULE = "tests.helpers.faults.loader_cases"
ROW = "too few files, processes or memory for loader workers"
FILES = "too many open files: a process may have {files} here (ulimit -n); give fewer --num_workers"
CASES: list[tuple[dict[str, Any], str]] = [
    *(({"workers": workers, "files": files}, FILES) for workers, files in ((2, 20), (8, 50))),
    ({"workers": 4, "trouble": "fork"}, "no further process or thread can be started"),
    ({"workers": 2, "trouble": "threads"}, "no further process or thread can be started"),
    ({"workers": 2, "trouble": "memory"}, "memory is used up: give fewer --num_workers"),
    ({"workers": 2, "trouble": "files", "files": 200}, FILES),
    (
        {"workers": 4, "trouble": "SIGKILL"},
        "a loader worker was ended by SIGKILL, perhaps for lack of memory",
    ),
    ({"workers": 2, "trouble": "SIGSEGV"}, "a loader worker crashed (SIGSEGV)"),
    ({"workers": 2, "trouble": "SIGABRT"}, "a loader worker crashed (SIGABRT)"),
]


def play(launches: Launches, cases: list[dict[str, Any]]) -> Iterator[tuple[dict, Launch]]:
    """Each case in a process that goes through the whole end of an interpreter."""
    for case in cases:
        launch = launches.start(MODULE, json.dumps(case), finalize=True)
        launch.wait(60)
        # none of its workers is left
        assert not launch.processes(), case
        yield case, launch


def errors(text: str) -> list[str]:
    """Errors without PyTorch's warnings on the number of workers and on a signal."""
    own = ("UserWarning", "check_worker_number", "ERROR: Unexpected")
    return [line for line in text.splitlines() if not any(word in line for word in own)]


def test_each_cause_is_reported_and_nothing_is_left(
    launches: Launches, soak: bool, fault: Fault
) -> None:
    tried = CASES if soak else CASES[1:-1]
    fault(ROW, len(tried))
    played = play(launches, [case for case, _ in tried])
    for (_, expected), (case, launch) in zip(tried, played, strict=True):
        assert launch.code == 2, (case, launch.printed)
        assert len(errors(launch.printed)) == 1, launch.printed
        (sentence,) = errors(launch.printed)
        assert sentence.removeprefix("\0").startswith(f"error: {expected.format(**case)}"), case
        assert ("/dev/shm" in sentence) == (case.get("trouble") == "SIGKILL")


def test_the_soft_limit_of_open_files_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allow_open_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft == 10_240 if hard == resource.RLIM_INFINITY else min(hard, 10_240)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
