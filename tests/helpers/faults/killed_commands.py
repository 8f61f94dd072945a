"""Commands that are killed at any moment and given again, until they come to their end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.faults.same_results import assert_same
from tests.helpers.training.small_run import METHODS, ROOT, flags

Moment = tuple[str, float]


@dataclass(frozen=True)
class Command:
    """A command that writes below `folder` alone; `name` says what it does: "training (...)"."""

    name: str
    module: str
    arguments: list[str]
    folder: Path

    @property
    def words(self) -> list[str]:
        """As a user gives it."""
        if self.module.startswith("methods."):
            return [sys.executable, f"{self.module.replace('.', '/')}.py", *self.arguments]
        return [sys.executable, "-m", self.module, *self.arguments]


@dataclass(frozen=True, kw_only=True)
class Life:
    """One start of a command, and how it ended."""

    pid: int
    code: int | None
    seconds: float
    printed: str
    stopped: bool = False
    moments: dict[str, int] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


# starts a command; where it is still alive at the moment, it is killed: alone, or with its tree
Start = Callable[[Command, Moment | None, bool], Life]


class Forks:
    """The program fork_server.py; see there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(folder),
        )

    def start(
        self,
        command: Command,
        moment: Moment | None = None,
        tree: bool = False,
        send: int = signal.SIGKILL,
    ) -> Life:
        """A life of `command` that gets a signal at the moment, unless it has ended before."""
        self.started += 1
        output = self.folder / f"{self.started}.txt"
        # it may be killed before it prints anything
        output.touch()
        ended = self._ask(
            module=command.module,
            arguments=command.arguments,
            folder=str(command.folder),
            output=str(output),
            moment=moment,
            signal=send,
            tree=tree,
        )
        counts = output.with_suffix(".json")
        more = json.loads(counts.read_text()) if counts.exists() else {}
        return Life(**ended, **more, printed=output.read_text())

    def resume(self, life: Life) -> int:
        """Let a life go on that was stopped; its exit code."""
        return self._ask(resume=life.pid)["code"]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=20)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def start_process(command: Command, moment: Moment | None, tree: bool, *, temporary: Path) -> Life:
    """A life of `command` as a user starts it, with a folder for temporary files of its own."""
    began = time.monotonic()
    # a file, because a pipe that orphans hold would never end
    with tempfile.TemporaryFile(dir=temporary) as output:
        process = subprocess.Popen(
            command.words,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(temporary),
        )
        try:
            process.wait(None if moment is None else moment[1])
        except subprocess.TimeoutExpired:
            (os.killpg if tree else os.kill)(process.pid, signal.SIGKILL)
        code = process.wait()
        seconds = time.monotonic() - began
        output.seek(0)
        printed = output.read().decode(errors="replace")
    return Life(pid=process.pid, code=code, seconds=seconds, printed=printed)


def _environment(temporary: Path) -> dict[str, str]:
    here = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return os.environ | here | {"TMPDIR": str(temporary)}


@dataclass
class Trial:
    """A command, what it gives undisturbed, and what it is killed by."""

    command: Command
    start: Start
    expected: Path
    undisturbed: Life
    killed: list[Life] = field(default_factory=list)

    def kill(self, moment: Moment, *, tree: bool = False) -> None:
        """A life that does not go beyond a moment."""
        life = self.start(self.command, moment, tree)
        self.killed.append(life)
        assert life.killed, life.printed

    def finish(self) -> Life:
        """A life that comes to its end, with the result of the one that was not disturbed."""
        life = self.start(self.command, None, False)
        self.check(life)
        return life

    def kill_until_it_ends(self, draw: Callable[[float], tuple[Moment, bool]]) -> None:
        """Lives that end at moments drawn anew for each, until one comes to its end before its
        moment; then its result is looked at. `draw(within)` draws from so many undisturbed lives:
        a little more of them each time, so that one is long enough at last."""
        within = 1.0
        while (life := self.start(self.command, *draw(within))).killed:
            self.killed.append(life)
            within *= 1.15
        self.check(life)

    def check(self, life: Life) -> None:
        """Look at the result of a life that was not killed."""
        told = [f"{one.seconds:.2f} s" for one in self.killed]
        # killed when all was done: the file is there, and is said to be
        done = self.killed and life.code == 2 and "is there already" in life.printed
        assert life.code == 0 or done, f"after kills at {told}: {life.printed}"
        assert_same(self.command.folder, self.expected)

    def clear(self) -> None:
        """Let the next life begin anew."""
        shutil.rmtree(self.command.folder, ignore_errors=True)


@contextmanager
def trial(command: Command, start: Start, expected: Path) -> Iterator[Trial]:
    """A trial of `command` whose undisturbed result is kept at `expected`, made if missing.

    In the end its folder is deleted, and none of its processes may be alive for long.
    """
    record = expected.with_suffix(".life.json")
    if not expected.exists():
        life = start(command, None, False)
        assert life.code == 0, life.printed
        assert not life.late, f"to be imported by fork_server.py before its first fork: {life.late}"
        command.folder.rename(expected)
        record.write_text(json.dumps(vars(life)))
    one = Trial(command, start, expected, Life(**json.loads(record.read_text())))
    try:
        yield one
    finally:
        one.clear()
    # workers look every 5 s whether their parent lives
    wait_until(lambda: not members({life.pid for life in one.killed}), 30)


def members(groups: set[int]) -> list[str]:
    """Processes of these groups that are alive, as the system describes them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = path.read_text()
            state, _, group, *_ = text.rpartition(")")[2].split()
            if int(group) in groups and state not in "ZX":
                found.append(text)
    return found


def wait_until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def training(method: str, data: Path, folder: Path, *more: object, folds: int = 1) -> Command:
    """A training of the first `folds` of two folds that keeps its state at each update."""
    assert method in METHODS
    options = ["--run_folds", *("1", "2")[:folds], "--save_minutes", "0.00001"]
    # few labels: the report's pictures are what takes long
    options += ["--labels", "Effusion,Normal", "--batch_size", "4", *map(str, more)]
    if method == "label_coupling":
        options += ["--test_csv", str(data / "test.csv"), "--out_csv", str(folder / "test.csv")]
    arguments = flags(data, folder / "run", *options)
    return Command(f"training ({method})", f"methods.{method}.train", arguments, folder)


def inferring(checkpoints: list[Path], images: Path, folder: Path, *more: object) -> Command:
    """The predictions of some models for the images of a folder, in blocks of 8."""
    arguments = ["--checkpoints", *map(str, checkpoints), "--image_dir", str(images)]
    arguments += ["--no-use_tta", "--batch_size", "2", "--num_workers", "0", *map(str, more)]
    arguments += ["--output", str(folder / "p.csv")]
    return Command("predicting (ensemble.infer)", "ensemble.infer", arguments, folder)


def packing(images: Path, folder: Path, size: int, *more: object) -> Command:
    """A pack of all images of a folder."""
    arguments = ["--train_dir", str(images), "--size", str(size), "--num_workers", "1"]
    arguments += ["--out", str(folder / "pack"), *map(str, more)]
    return Command("packing (core.data.pack)", "core.data.pack", arguments, folder)
