"""Launches of commands on one or several nodes: start, signal and wait."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

from core.data.phantom.dataset import make_phantom
from tests.helpers.faults.launch import Launch, wait_until
from tests.helpers.training.small_run import ROOT

Moment = dict[str, Any]
TRAIN, INFER, PACK = "methods.standard_head.train", "ensemble.infer", "core.data.pack"


@dataclass(frozen=True)
class Place:
    """Place of a launcher: how many processes here, and which node of how many."""

    processes: int = 0
    nodes: int = 1
    node: int = 0


def at(kind: str, number: int, *, rank: int = 0, **action: Any) -> Moment:
    """Moment of a forked command, and the action at it; see moments.py."""
    return {"kind": kind, "at": number, "rank": rank} | action


class Launches:
    """The program fork_server.py; below its folder `room` is a small disk.

    That disk is a tmpfs where the system lets anybody mount one (`mounted`); its mount is seen by
    the commands alone.
    """

    def __init__(self, folder: Path, ports: range, size: str = "64m") -> None:
        self.folder, self._ports, self._count = folder, cycle(ports), 0
        self.room, self.ballast = folder / "room", str(folder / "room" / "ballast")
        self.room.mkdir()
        mount = ["unshare", "-Urm", "mount", "-t", "tmpfs", "room", str(self.room)]
        self.mounted = (
            shutil.which("unshare") is not None
            and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        )
        inside = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        if self.mounted:
            script = f'mount -t tmpfs -o size={size} room "$1" && shift && exec "$@"'
            inside = ["unshare", "-Urm", "sh", "-c", script, "sh", str(self.room), *inside]
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
        self._server = subprocess.Popen(
            inside,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        if self.mounted:
            wait_until(self.seen(self.room).is_mount)

    def start(
        self,
        module: str,
        *arguments: object,
        place: Place = Place(),
        port: int | None = None,
        fabric: bool = True,
        environment: dict[str, str] | None = None,
        **more: Any,
    ) -> Launch:
        """Start a command; launchers of one job share a `port`. For `more` see
        fork_server.py."""
        self._count += 1
        request: dict[str, Any] = {
            "module": module,
            "arguments": [*map(str, arguments)],
            "output": str(self.folder / str(self._count)),
            "place": asdict(place),
            "port": port or self.port(),
            "fabric": fabric,
            "environment": environment,
        }
        return Launch(self, self._ask(**request, **more)["pid"], request["output"])

    def nodes(self, module: str, *arguments: object, processes: int, **more: Any) -> list[Launch]:
        """Two launchers of one job, each a node of `processes`."""
        port = self.port()
        return [
            self.start(module, *arguments, place=Place(processes, 2, node), port=port, **more)
            for node in (0, 1)
        ]

    def port(self) -> int:
        """A port for one launch."""
        return next(self._ports)

    def seen(self, path: Path) -> Path:
        """A path of the commands as this process sees it."""
        if not (self.mounted and path.is_relative_to(self.room)):
            return path
        return Path(f"/proc/{self._server.pid}/root") / path.relative_to("/")

    def make_room(self) -> None:
        """Delete what filled the small disk."""
        self.seen(Path(self.ballast)).unlink(missing_ok=True)

    def system(self, *words: object) -> None:
        """Run a program where the small disk is mounted."""
        done = self._ask(run=list(map(str, words)))
        assert done["code"] == 0, done["error"]

    def wait(self, pid: int, seconds: float) -> int | None:
        """Exit code of a launcher that ends in time."""
        return self._ask(wait=pid, seconds=seconds)["code"]

    def close(self) -> None:
        """End the program, and with it the mount."""
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(timeout=20)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


@cache
def shared() -> Launches:
    """One fork server for all tests of this process."""
    # a short path: sockets of Python's own processes lie in it
    folder = Path(tempfile.mkdtemp())
    # workers of pytest-xdist may be here together
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    launches = Launches(folder, range(29700 + 20 * worker, 29720 + 20 * worker))

    def end() -> None:
        launches.close()
        shutil.rmtree(folder)

    atexit.register(end)
    return launches


@cache
def small_data() -> Path:
    """61 images, which divide neither by 2 nor by 4; nor do the folds."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    make_phantom(folder, images=61, size=32, seed=3)
    return folder
