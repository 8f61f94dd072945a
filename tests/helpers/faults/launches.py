"""Trainings of several processes and nodes on this machine: started, signalled, waited for."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from core.data.phantom.dataset import make_phantom
from tests.helpers.training.small_run import ROOT

Moment = tuple[int, str, int, Any]
TRAIN, INFER = "methods.standard_head.train", "ensemble.infer"
# seconds from the end of one process within which all others must have ended
LIMIT = 60
# in the environment of a launcher, and so of all that it starts
_MARK = "LAUNCH_OUTPUT"


@dataclass(frozen=True)
class Place:
    """What a launcher is told of its place: how many processes here, and which node of how many."""

    processes: int = 0
    nodes: int = 1
    node: int = 0


class Launches:
    """The program launch_server.py; see there. `real`: fabric run and torchrun in its place, which
    knows no moments."""

    def __init__(self, folder: Path, ports: range, *, real: bool = False) -> None:
        self.folder, self.real, self.ports, self._count = folder, real, cycle(ports), 0
        self._started: dict[int, subprocess.Popen] = {}
        if real:
            return
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("launch_server.py"))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment({}),
        )

    def start(
        self,
        module: str,
        *arguments: object,
        place: Place = Place(),
        port: int | None = None,
        fabric: bool = True,
        moment: Moment | None = None,
        batch_seconds: float = 0.0,
        environment: dict[str, str] | None = None,
    ) -> "Launch":
        """One launcher. Those of several nodes are given one `port`."""
        self._count += 1
        output = self.folder / f"{self._count}.txt"
        words = [*map(str, arguments)]
        if port is None:
            port = next(self.ports)
        if self.real:
            assert not moment
            with output.open("wb") as file:
                process = subprocess.Popen(
                    [*_launcher(module, place, port, fabric), *words],
                    cwd=ROOT,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    env=_environment({_MARK: str(output)} | (environment or {})),
                )
            self._started[process.pid] = process
            return Launch(self, process.pid, output)
        pid = self._ask(
            module=module,
            arguments=words,
            output=str(output),
            processes=place.processes,
            nodes=place.nodes,
            node=place.node,
            port=port,
            fabric=fabric,
            moment=moment,
            batch_seconds=batch_seconds,
            environment=environment or {},
        )["pid"]
        return Launch(self, pid, output)

    def nodes(self, module: str, *arguments: object, processes: int, **more: Any) -> "list[Launch]":
        """Two launchers, each a node of `processes`, that make one launch."""
        port = next(self.ports)
        return [
            self.start(module, *arguments, place=Place(processes, 2, node), port=port, **more)
            for node in (0, 1)
        ]

    def wait(self, pid: int, seconds: float) -> int | None:
        """The exit code of a launcher, or None where it did not end in time."""
        if not self.real:
            return self._ask(wait=pid, seconds=seconds)["code"]
        try:
            return self._started[pid].wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        if not self.real:
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
    """One such program for all tests of this process."""
    folder = Path(tempfile.mkdtemp())
    # workers of pytest-xdist may be here together
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3
    launches = Launches(folder, range(29601 + 20 * worker, 29616 + 20 * worker))

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


class Launch:
    """One launcher and its processes."""

    def __init__(self, launches: Launches, pid: int, output: Path) -> None:
        self._launches, self.pid, self.output = launches, pid, output

    @property
    def printed(self) -> str:
        """What all of its processes printed, the launcher first."""
        paths = [self.output, *sorted(self.output.parent.glob(f"{self.output.stem}.told*"))]
        there = [path for path in paths if path.exists()]
        return "".join(path.read_text(errors="replace") for path in there)

    @property
    def errors(self) -> list[str]:
        """The sentences that begin with "error: "."""
        return [line[7:] for line in self.printed.splitlines() if line.startswith("error: ")]

    @property
    def failed_rank(self) -> int:
        """The one rank that told an error."""
        (path,) = [
            path
            for path in self.output.parent.glob(f"{self.output.stem}.told*")
            if "error: " in path.read_text()
        ]
        return int(path.suffix.removeprefix(".told"))

    def ends(self, seconds: float = 60) -> int:
        """Its exit code; it must end in time, and none of its processes outlive it for long."""
        code = self._launches.wait(self.pid, seconds)
        if code is None:
            self.kill()
        assert code is not None, f"no end after {seconds} s: {self.printed[-3000:]}"
        # loader workers look every 5 s whether their parent lives
        wait_until(lambda: not self.processes(), 15)
        return code

    def finishes(self) -> str:
        """What it printed until it came to a good end."""
        code = self.ends(300)
        assert code == 0, self.printed[-3000:]
        return self.printed

    def send(self, number: int) -> None:
        """A signal to the launcher, as a scheduler sends it."""
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
        """The process id of a rank."""
        if self._launches.real:
            for pid in self.processes():
                if _variable(pid, "RANK") == str(rank) and _parent(pid) == self.pid:
                    return pid
        return int(self.output.with_suffix(f".rank{rank}").read_text())

    def processes(self) -> list[int]:
        """All that are alive: the launcher and what it started, directly or not."""
        found = set(in_session(self.pid))
        if self._launches.real:
            # torchrun gives each rank a session of its own
            pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
            found |= {pid for pid in pids if _variable(pid, _MARK) == str(self.output)}
        return sorted(found)

    def has_ended(self) -> bool:
        """Whether nothing of it is there any more."""
        # the file is made when it has a session of its own
        return self.output.exists() and not self.processes()

    def has_traceback(self) -> bool:
        """Whether a rank printed one; torchrun has its own, for what it ended by."""
        return ("]: Traceback" if self._launches.real else "Traceback") in self.printed

    def comes_to_its_moment(self, rank: int = 0) -> None:
        """Wait for the moment of a rank."""
        moment = self.output.with_suffix(f".moment{rank}")
        wait_until(lambda: moment.exists() or self.has_ended(), 120)
        assert moment.exists(), self.printed[-3000:]


def sentence_of(launch: Launch) -> str:
    """The one sentence that a launch ended by."""
    assert launch.ends(LIMIT) != 0
    assert len(launch.errors) == 1, launch.printed
    assert not launch.has_traceback()
    return launch.errors[0]


def leave_to_soak(soak: bool, case: bool = True) -> None:
    """Skip the test in the short form, where it is one of the cases that need not be there."""
    if case and not soak:
        pytest.skip("in the long form")


def wait_until(true: Callable[[], object], seconds: float = 30) -> None:
    """Wait for what must happen."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def in_session(leader: int) -> list[int]:
    """Processes that are alive in a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(session) == leader and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def _variable(pid: int, name: str) -> str | None:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    found = [word for word in words if word.startswith(f"{name}=".encode())]
    return found[0].partition(b"=")[2].decode() if found else None


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _launcher(module: str, place: Place, port: int, fabric: bool) -> list[str]:
    script = f"{module.replace('.', '/')}.py"
    if not place.processes:
        return [sys.executable, script]
    if fabric:
        return [
            *(str(Path(sys.executable).with_name("fabric")), "run", "--accelerator", "cpu"),
            *("--devices", str(place.processes), "--num-nodes", str(place.nodes)),
            *("--node-rank", str(place.node), "--main-address", "127.0.0.1"),
            *("--main-port", str(port), script, "--"),
        ]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", str(place.nodes)),
        *("--node-rank", str(place.node), "--nproc-per-node", str(place.processes)),
        *("--master-addr", "127.0.0.1", "--master-port", str(port), script),
    ]


def _environment(more: dict[str, str]) -> dict[str, str]:
    here = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return os.environ | here | more
