"""One launch: a launcher with its ranks, or a single process."""

import json
import os
import signal
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.helpers.faults.launches import Launches

# seconds from the end of one process within which all others must have ended
LIMIT = 60


class Launch:
    """One launcher and its processes, or one process."""

    def __init__(self, launches: "Launches", pid: int, output: str) -> None:
        self._launches, self.pid, self.output = launches, pid, output
        self._began = time.monotonic()
        self.code: int | None = None
        self.seconds = 0.0
        """From its start to its end."""

    @property
    def printed(self) -> str:
        """Output of all its processes."""
        return "".join(path.read_text(errors="replace") for path in self._printed())

    @property
    def error(self) -> str:
        """Standard error of its single process."""
        path = Path(f"{self.output}.error0")
        return path.read_text() if path.exists() else ""

    @property
    def errors(self) -> list[str]:
        """The sentences that begin with "error: "."""
        return [line[7:] for line in self.printed.splitlines() if line.startswith("error: ")]

    @property
    def failed_rank(self) -> int:
        """The one rank that printed an error."""
        (path,) = [path for path in self._printed() if "error: " in path.read_text()]
        return int(path.suffix.removeprefix(".error"))

    @cached_property
    def seen(self) -> dict[str, Any]:
        """Counts of its single process: `moments` by kind, and `steps`."""
        path = Path(f"{self.output}.seen0")
        return json.loads(path.read_text()) if path.exists() else {"moments": {}, "steps": []}

    @property
    def killed(self) -> bool:
        """Whether it ended by SIGKILL."""
        return self.code == -signal.SIGKILL

    def wait(self, seconds: float = 300) -> int | None:
        """Exit code, if it ends in time."""
        if self.code is None:
            self.code = self._launches.wait(self.pid, seconds)
            self.seconds = time.monotonic() - self._began
        return self.code

    def ends(self, seconds: float = LIMIT) -> int:
        """Exit code; it must end in time, and none of its processes outlive it for long."""
        code = self.wait(seconds)
        if code is None:
            self.kill()
        assert code is not None, f"no end after {seconds} s: {self.printed[-3000:]}"
        # loader workers look every 5 s whether their parent lives
        wait_until(lambda: not self.processes(), 15)
        return code

    def finishes(self) -> str:
        """Output of a launch that must succeed."""
        code = self.ends(300)
        assert code == 0, self.printed[-3000:]
        return self.printed

    def sentence(self) -> str:
        """Its error message (exactly one)."""
        assert self.ends() != 0
        assert len(self.errors) == 1, self.printed
        assert not self.has_traceback()
        return self.errors[0]

    def refusal(self) -> str:
        """Error message of a single process that ended with exit code 2 and no other output."""
        assert self.code == 2, (self.code, self.error[-3000:])
        assert self.error.startswith("error: "), self.error
        assert self.error.count("\n") == 1, self.error
        return self.error[len("error: ") : -1]

    def send(self, number: int) -> None:
        """Send a signal to the launcher, as a scheduler does."""
        os.kill(self.pid, number)

    def kill(self, rank: int | None = None) -> None:
        """SIGKILL to one process; None: to the launcher and to all that it started."""
        if rank is not None:
            os.kill(self.rank_id(rank), signal.SIGKILL)
            return
        processes = self.processes()
        # at once, as with the power of a machine: none sees another one go
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in processes:
                os.kill(pid, number)

    def rank_id(self, rank: int) -> int:
        """Process id of a rank."""
        return int(Path(f"{self.output}.rank{rank}").read_text())

    def processes(self) -> list[int]:
        """Its living processes, of one session."""
        return in_session(self.pid)

    def has_ended(self) -> bool:
        """Whether none of its processes is left."""
        # a file is there once it has a session of its own
        return bool(self._printed()) and not self.processes()

    def has_traceback(self) -> bool:
        """Whether a rank printed one."""
        return "Traceback" in self.printed

    def comes_to_its_moment(self, rank: int = 0) -> None:
        """Wait for the moment of a rank."""
        moment = Path(f"{self.output}.moment{rank}")
        wait_until(lambda: moment.exists() or self.has_ended(), 120)
        assert moment.exists(), self.printed[-3000:]

    def _printed(self) -> list[Path]:
        stem = Path(self.output)
        return sorted(
            path
            for ending in ("launcher", "out*", "error*")
            for path in stem.parent.glob(f"{stem.name}.{ending}")
        )


def wait_until(true: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the condition holds; fail after a timeout."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def in_session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(session) == leader and state not in "ZX":
            found.append(int(path.parent.name))
    return found
