"""Commands that are interrupted at any moment and rerun until they finish."""

import json
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.models.checkpoint import load_tensors
from tests.helpers.fault_table import Fault
from tests.helpers.faults.launch import Launch, wait_until
from tests.helpers.faults.launches import Launches, Moment, at
from tests.helpers.faults.same_results import assert_same

# a file that is appended to may end in half a row, which the next start drops
_APPENDED = {"metrics.csv", "timing.csv", "pack.blocks.jsonl"}
# how a whole file ends
_ENDS = {".png": b"IEND\xaeB`\x82", ".html": b"</html>", ".csv": b"\n", ".json": b"}"}


# kind of a moment, its number, whether its whole group is killed
Drawn = tuple[str, float, bool]


@dataclass(frozen=True)
class Command:
    """A command that writes only below `folder`; `name` describes it: "training (...)"."""

    name: str
    module: str
    arguments: list[str]
    folder: Path


class Trial:
    """A command, its undisturbed result and counts, and its killed launches.

    `threads`: a packer decodes in threads, so that each of its steps is seen.
    """

    def __init__(self, command: Command, launches: Launches, *, threads: bool = False) -> None:
        self.command, self.launches = command, launches
        self.options: dict[str, Any] = {"folder": str(command.folder), "threads": threads}
        self.folder = launches.seen(command.folder)
        self.killed: list[Launch] = []
        self.fault: Fault = lambda name, tried: None
        self.begin()
        self.first = self.run()
        assert self.first.code == 0, self.first.printed[-3000:]
        self.undisturbed = Path(tempfile.mkdtemp(dir=launches.folder)) / "undisturbed"
        shutil.move(self.folder, self.undisturbed)
        self.begin()
        # without the process id in the name of a temporary file
        self.steps = [
            (what, re.sub(r"\.\d+(?=\.\w+$)", "", name)) for what, name in self.first.seen["steps"]
        ]
        self.moments: dict[str, int] = self.first.seen["moments"]

    def begin(self) -> None:
        """Empty the folder of the command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def run(self, moment: Moment | None = None, **more: Any) -> Launch:
        """The command until it ends."""
        launch = self.start(moment, **more)
        assert launch.wait() is not None, launch.printed[-3000:]
        return launch

    def start(self, moment: Moment | None = None, **more: Any) -> Launch:
        """The command; for `more` see fork_server.py."""
        options = self.options | more | ({"moment": moment} if moment else {})
        return self.launches.start(self.command.module, *self.command.arguments, **options)

    def number(self, what: str, name: str, time: int = 1) -> int:
        """Number (from 1) of the `time`th step `what` with a file of this ending."""
        numbers = [
            number
            for number, (done, file) in enumerate(self.steps, start=1)
            if done == what and file.endswith(name)
        ]
        return numbers[time - 1]

    def kill(self, kind: str, number: float, *, group: bool = False) -> bool:
        """Send SIGKILL at a moment or after a time; return whether it was still running."""
        if kind == "seconds":
            launch = self.start()
            if launch.wait(number) is None:
                launch.kill() if group else launch.send(signal.SIGKILL)
                launch.wait()
        else:
            launch = self.run(at(kind, int(number), signal=signal.SIGKILL, group=group))
        if launch.killed:
            self.killed.append(launch)
            self.fault(f"SIGKILL while {self.command.name}", 1)
        else:
            self.check(launch)
        return launch.killed

    def kill_until_it_ends(self, draw: Callable[[float], Drawn]) -> None:
        """Kill the command at a random moment of each start, until it finishes before that moment.

        `draw(within)` draws from so many undisturbed runs: a little more of them each time, so that
        one is long enough at last.
        """
        within = 1.0
        kind, number, group = draw(within)
        while self.kill(kind, number, group=group):
            within *= 1.15
            kind, number, group = draw(within)

    def wait_for_killed(self) -> None:
        """Wait for the processes of the killed launches to end, then clear the list."""
        # workers look every 5 s whether their parent lives
        wait_until(lambda: not any(launch.processes() for launch in self.killed), 30)
        self.killed.clear()

    def finish(self) -> Launch:
        """Run to the end and compare with the result of the undisturbed run."""
        launch = self.run()
        self.check(launch)
        return launch

    def check(self, launch: Launch) -> None:
        """Compare the result of a command that was not killed."""
        # killed when all was done: the output exists, which is an error
        exists = "exists: give another" in launch.printed or "is there already" in launch.printed
        done = self.killed and launch.code == 2 and exists
        lives = [f"{one.seconds:.2f} s" for one in self.killed]
        assert launch.code == 0 or done, f"after kills at {lives}: {launch.printed[-3000:]}"
        assert done or not launch.error, launch.error[-3000:]
        assert_same(self.folder, self.undisturbed)

    def check_what_is_left(self) -> None:
        """Check that every file is complete and none is temporary."""
        unfinished = {path.parent for path in self.folder.rglob("phantom.partial")}
        for path in self.folder.rglob("*"):
            assert not path.name.startswith(".") or path.is_dir() or path.name == ".lock", path
            if not path.is_file() or path.name in _APPENDED or unfinished & set(path.parents):
                continue
            if path.suffix == ".safetensors":
                load_tensors(path)
            elif path.suffix == ".csv":
                assert path.read_bytes().endswith(b"\n"), path
            elif path.suffix in _ENDS:
                assert path.read_bytes().rstrip(b"\n").endswith(_ENDS[path.suffix]), path
            if path.suffix == ".json":
                json.loads(path.read_text())

    def try_full(self, number: int, **action: Any) -> str:
        """Run on a disk that is full at a step, free space, rerun; return the first error."""
        self.begin()
        ended = self.run(at("step", number, **action))
        self.launches.make_room()
        assert len(ended.seen["steps"]) >= number, "the disk was never full"
        if ended.code == 0:
            # features that find no room are computed again, and what is left may need no more room
            assert not ended.error
            if "are computed in each head epoch" not in ended.printed:
                assert_same(self.folder, self.undisturbed)
            return ""
        sentence = ended.refusal()
        assert "cannot be" in sentence, sentence
        self.check_what_is_left()
        self.finish()
        return sentence
