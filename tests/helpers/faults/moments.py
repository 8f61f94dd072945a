"""Countable moments of a command, and the action at a chosen one.

`moment` of a request is {"kind", "at", "rank"} and one of {"signal": number}, with `group` to all
its processes, {"errno": name}: this step with a file fails and, without `once`, all later ones that
write, {"fill": file}: the disk is full, or {"calls": [[name, argument, ...], ...]}: functions of
CALLS. Kinds are the keys of PLACES, "batch" (of an evaluation) and "step" (with a file below
`folder`, see disk_steps.py).
"""

import errno
import json
import os
import pkgutil
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import core.models.predict
from tests.helpers.faults.disk_steps import Step, Steps
from tests.helpers.faults.system_faults import kill_worker, set_clock_back

# functions with calls that are counted on return
PLACES = {
    "update": [("core.runs.log:FoldLog", "advance")],
    "fold": [("core.training.loop:FoldTrainer", "fit")],
    "row": [("core.runs.log", "append_row")],
    "report": [("core.training.finish", "draw_pictures")],
    "block": [
        ("ensemble.predict.blocks:PredictionBlocks", "write"),
        ("core.data.pack.writer", "format_done"),
    ],
    "deletion": [("pathlib:Path", "unlink")],
}
# what a full disk refuses; it can still rename and delete
_WRITING = ("open", "write", "save", "mkdir", "posix_fallocate", "pwrite")


class Moments:
    """Counts of one process."""

    def __init__(self, request: dict[str, Any], rank: int) -> None:
        self.counts: Counter[str] = Counter()
        self.chosen: dict[str, Any] = request.get("moment") or {}
        if self.chosen.get("rank", 0) != rank:
            self.chosen = {}
        self.output, self.rank = request["output"], rank
        self.batch_seconds = request.get("batch_seconds", 0)
        folder = request.get("folder")
        self.steps = Steps(Path(folder), self.strike) if folder else None

    def install(self) -> None:
        """Count from here on."""
        for kind, places in PLACES.items():
            for owner, name in places:
                self._count_calls(pkgutil.resolve_name(owner), name, kind)
        read = core.models.predict.ProgressBar

        def batches(loader: Any, **options: Any) -> Iterator[Any]:
            for batch in read(loader, **options):
                yield batch
                self.count("batch")
                time.sleep(self.batch_seconds)

        setattr(core.models.predict, "ProgressBar", batches)  # noqa: B010
        if self.steps:
            self.steps.install()

    def _count_calls(self, owner: Any, name: str, kind: str) -> None:
        function = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.count(kind)
            return result

        setattr(owner, name, call)

    def count(self, kind: str) -> None:
        """One more of a kind."""
        self.counts[kind] += 1
        if (kind, self.counts[kind]) != (self.chosen.get("kind"), self.chosen.get("at")):
            return
        os.close(os.open(f"{self.output}.moment{self.rank}", os.O_CREAT | os.O_WRONLY))
        if "fill" in self.chosen:
            fill(Path(self.chosen["fill"]))
        for name, *arguments in self.chosen.get("calls", ()):
            CALLS[name](*arguments)
        if "signal" in self.chosen:
            kill = os.killpg if self.chosen.get("group") else os.kill
            kill(os.getpid(), self.chosen["signal"])

    def strike(self, number: int, step: Step) -> None:
        """Fail at a step with a file, if that is chosen."""
        self.count("step")
        if self.chosen.get("kind") != "step" or "errno" not in self.chosen:
            return
        at, later = self.chosen["at"], not self.chosen.get("once") and step[0] in _WRITING
        if number == at or (number > at and later):
            # as the system reports it: a name where one was given
            named = (step[1],) if step[0] in ("open", "replace", "mkdir", "chmod") else ()
            code = getattr(errno, self.chosen["errno"])
            raise OSError(code, os.strerror(code), *named)

    def write(self) -> None:
        """Write what was counted to `output` with the ending .seenN."""
        seen = {"moments": self.counts, "steps": self.steps.seen if self.steps else []}
        file = os.open(f"{self.output}.seen{self.rank}", os.O_CREAT | os.O_WRONLY)
        os.write(file, json.dumps(seen).encode())
        os.close(file)


def fill(ballast: Path) -> None:
    """Fill the disk with this file."""
    with ballast.open("ab") as file:
        for size in (2**20, 2**12):
            while True:
                try:
                    os.posix_fallocate(file.fileno(), file.tell(), size)
                except OSError:
                    break
                file.seek(size, os.SEEK_CUR)


def cover(folder: str) -> None:
    """Mount a folder read-only over itself."""
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


CALLS: dict[str, Callable[..., object]] = {
    "remove": shutil.rmtree,
    "move": os.rename,
    "mkdir": os.mkdir,
    "mknod": os.mknod,
    "cover": cover,
    "kill_worker": kill_worker,
    "set_clock_back": set_clock_back,
}
