"""A small disk of the tests' own, and commands that run on it; see disk_fork_server.py."""

import atexit
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.training.small_run import ROOT


class Ended(NamedTuple):
    """How a command ended, what it printed, and the steps (what, file) that it took."""

    code: int
    out: str
    error: str
    steps: list[list[str]]

    def sentence(self) -> str:
        """What it told as its error: one sentence, and exit code 2."""
        assert self.code == 2, (self.code, self.error[-3000:])
        assert self.error.startswith("error: "), self.error
        assert self.error.count("\n") == 1, self.error
        return self.error[len("error: ") : -1]


class Room:
    """A folder, on a tmpfs of `size` where the system lets anybody mount one (`mounted`).

    That mount is seen by commands that run here alone; `seen` is the folder as this process sees
    it. The test's own files (`notes`) lie elsewhere.
    """

    def __init__(self, folder: Path, size: str = "64m") -> None:
        self.path, self.notes = folder / "room", folder / "notes"
        self.path.mkdir()
        self.notes.mkdir()
        mount = ["unshare", "-Urm", "mount", "-t", "tmpfs", "room", str(self.path)]
        self.mounted = (
            shutil.which("unshare") is not None
            and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        )
        inside = [sys.executable, str(Path(__file__).with_name("disk_fork_server.py"))]
        if self.mounted:
            script = f'mount -t tmpfs -o size={size} room "$1" && shift && exec "$@"'
            inside = ["unshare", "-Urm", "sh", "-c", script, "sh", str(self.path), *inside]
        self._process = subprocess.Popen(
            inside,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        atexit.register(self.close)
        assert self._answer() == "ready"
        root = Path(f"/proc/{self._process.pid}/root")
        self.seen = root / self.path.relative_to("/") if self.mounted else self.path

    def _answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def call(
        self,
        module: str,
        *arguments: object,
        blow: dict[str, Any] | None = None,
        out: str = "out.txt",
        error: str = "error.txt",
    ) -> Ended:
        """Run the command `module`; `out` and `error` are the files for what it prints."""
        ended = self._ask(
            module=module,
            arguments=list(map(str, arguments)),
            folder=str(self.path),
            stdout=str(self.notes / out),
            stderr=str(self.notes / error),
            blow=blow,
        )
        # a device that takes nothing has nothing to give
        said, told = (
            path.read_text() if path.is_file() else ""
            for path in (self.notes / out, self.notes / error)
        )
        return Ended(ended["code"], said, told, ended["steps"])

    def system(self, *words: object) -> None:
        """Run a program where the room is mounted."""
        done = self._ask(run=list(map(str, words)))
        assert done["code"] == 0, done["told"]

    def close(self) -> None:
        """End the process, and with it the mount."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait(timeout=20)


@cache
def shared_room(base: Path) -> Room:
    """One below `base` for all tests of this process: to import everything takes seconds."""
    (base / "disk").mkdir()
    return Room(base / "disk")
