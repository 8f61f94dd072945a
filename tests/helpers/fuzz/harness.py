"""Run functions of the project on hostile files and report the outcome of each input.

One process (`confined_process.py`) imports everything once and forks a child for each list of
inputs. The child handles them in a row, under an audit hook, with its memory measured and its time
limited; where it ends early, a new child handles the rest.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[3]
LONGEST = 10.0  # seconds of the processor that an input may take; six times as long by the clock
MOST_MEMORY = 2 * 2**30  # bytes by which it may make the process grow
GOOD = ("ok", "refused")


@dataclass(frozen=True)
class Outcome:
    """Outcome of one input."""

    kind: str
    """"ok", "refused" (one clean line and exit code 2, as a user sees it), "traceback" (anything
    else that was raised or exited with), "hang", "memory", "outside" (a write that is not in the
    output folder), "code" (code, a process or a connection from a file) or "crash"."""
    text: str
    """What was printed, the sentence, or the traceback."""
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the outcome is allowed."""
        return self.kind in GOOD


class Watched:
    """Process that runs inputs, within `with Watched(folder) as watched`.

    `folder` is the sandbox: children start in its folder `work`, may write below its folder `out`
    and nowhere else. `modules` are imported at the start, so that no child waits for them.
    """

    def __init__(
        self,
        folder: Path,
        modules: Sequence[str] = ("core.models.init_from",),
        *,
        most_memory: int = MOST_MEMORY,
    ) -> None:
        self.folder, self.out, self.work = folder, folder / "out", folder / "work"
        for made in (self.out, self.work):
            made.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("confined_process.py")), *modules],
            cwd=self.work,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "OMP_NUM_THREADS": "1",
                # nothing of the user's, and what is written there shows
                "HOME": str(self.work),
                "HF_HUB_OFFLINE": "1",
                # else it keeps its list of fonts there
                "MPLCONFIGDIR": str(self.out),
                "FUZZ_OUT": str(self.out),
                "FUZZ_MEMORY": str(most_memory),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def call(
        self, target: str, batches: Sequence[Sequence[Any]], longest: float = LONGEST
    ) -> list[Outcome]:
        """How `target` ("module:function") ends with each of these lists of JSON-able arguments."""
        before = self._snapshot()
        outcomes: list[Outcome] = []
        while len(outcomes) < len(batches):
            outcomes += self._one_child(target, list(map(list, batches[len(outcomes) :])), longest)
        # what code in C writes raises no audit event
        changed = sorted(self._snapshot() ^ before)
        if changed and all(outcome.kind != "outside" for outcome in outcomes):
            text = f"one of these inputs changed {changed[0][0]}"
            outcomes[-1] = Outcome("outside", text, outcomes[-1].seconds)
        return outcomes

    def bad(self, target: str, batches: Sequence[Sequence[Any]]) -> list[str]:
        """Report of each input with a forbidden outcome."""
        pairs = zip(batches, self.call(target, batches), strict=True)
        return [
            f"{json.dumps(batch)[:200]}: {outcome.kind} after {outcome.seconds:.2f} s: "
            f"{outcome.text[-1500:]}"
            for batch, outcome in pairs
            if not outcome.good
        ]

    def _one_child(self, target: str, inputs: list[list[Any]], longest: float) -> list[Outcome]:
        """Outcomes until all inputs are handled or the child has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = json.dumps({"target": target, "inputs": inputs, "longest": longest})
        self._process.stdin.write(request.encode() + b"\n")
        self._process.stdin.flush()
        outcomes: list[Outcome] = []
        while "ended" not in (answer := json.loads(self._process.stdout.readline())):
            outcomes.append(Outcome(**answer))
        if answer["ended"] != 0:
            hung = -answer["ended"] in (signal.SIGALRM, signal.SIGPROF)
            kind = "hang" if hung else "crash"
            outcomes.append(Outcome(kind, f"exit code {answer['ended']}", 0.0))
        return outcomes

    def _snapshot(self) -> set[tuple[str, int, int, int]]:
        """Path, size, mode and modification time of each file in the sandbox but the output."""
        found = set()
        for folder, folders, files in os.walk(self.folder):
            if folder == str(self.folder):
                folders.remove(self.out.name)
            for name in folders + files:
                path = os.path.join(folder, name)
                state = os.lstat(path)
                found.add((path, state.st_size, state.st_mode, state.st_ctime_ns))
        return found
