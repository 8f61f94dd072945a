"""Fixtures and hooks shared by several tests."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# before torch: two test processes share the cores, and threads that wait for each other spin
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock

from core.config.command_line import run
from core.data.phantom.dataset import make_phantom
from core.runtime.log import Console, logger, start_logging
from core.runtime.signals import STOPS, restore_handlers
from ensemble.infer import main as infer_main
from tests.helpers.fault_table import (
    fault,
    pytest_addoption,
    pytest_terminal_summary,
    read_markers,
    soak,
)
from tests.helpers.training.small_run import (
    MODEL,
    PARTS,
    ROOT,
    draw_nothing,
    flags,
    module,
    script,
)

__all__ = ["fault", "pytest_addoption", "pytest_terminal_summary", "soak"]

# they look into /proc, and mount and forbid things as Linux does
collect_ignore_glob = [] if sys.platform == "linux" else ["faults/*", "fuzz/*", "test_several_*"]

Call = Callable[..., tuple[int, str, str]]
Train = Call
Once = Callable[[str, Callable[[Path], object]], Path]
# runs the script given as first argument
BLANK = """
import runpy, sys
from tests.helpers.training.small_run import draw_nothing
draw_nothing()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run long files first: at the end, one of them would keep a core idle."""
    read_markers(config, items)
    tests = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] in ("core", "ensemble"))
    items.sort(key=lambda item: item.path.parent.name not in ("tests", "faults"))


@pytest.fixture(autouse=True)
def console_log() -> None:
    """The log on the console, as a command prints it; pytest adds other handlers."""
    logger.handlers[:] = [Console()]
    start_logging(is_main=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real radiographs and label tables; tests of it are skipped without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CXR_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set CXR_REAL_DATA to its folder)")
    return folder


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Restore the signal handlers that a command in this process has replaced."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    restore_handlers(before)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Shared read-only folder by name, filled by the first test process that needs it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = base / f"shared_{name}", base / f"shared_{name}.made"
        with FileLock(base / f"shared_{name}.lock"):
            if not made.exists():
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return fill


@pytest.fixture(scope="session")
def phantom(once: Once) -> Path:
    """A small phantom dataset."""
    return once("phantom", lambda folder: make_phantom(folder, images=60, size=40, seed=3))


@pytest.fixture(scope="session")
def finished_method(phantom: Path, once: Once) -> Callable[[str], tuple[Path, str]]:
    """Of a method, a finished run in a process of its own, and what it printed; each is made once.

    That of standard_head is started as a user does; reports of the others have blank pictures.
    """

    def train(method: str, folder: Path) -> None:
        start = [script(method)] if method == "standard_head" else ["-c", BLANK, script(method)]
        command = [sys.executable, *start, *flags(phantom, folder / "out"), *PARTS[method]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    def finish(method: str) -> tuple[Path, str]:
        folder = once(method, partial(train, method))
        return folder / "out", (folder / "printed.txt").read_text()

    return finish


@pytest.fixture(scope="session")
def finished(finished_method: Callable[[str], tuple[Path, str]]) -> tuple[Path, str]:
    """Finished run of standard_head."""
    return finished_method("standard_head")


@pytest.fixture
def finished_copy(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """Copy of the finished run in `tmp_path`/out, for a test to change or resume."""
    return Path(shutil.copytree(finished[0], tmp_path / "out"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs a command's `main` with some arguments in this process: (exit code, stdout, stderr)."""

    def answer(main: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command.py", *map(str, arguments)])
        code = 0
        try:
            run(main)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return answer


@pytest.fixture
def train_plain(call: Call, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Train]:
    """Of a method, what runs its train.py in this process: (exit code, stdout, stderr)."""
    draw_nothing(monkeypatch.setattr)

    def choose(method: str) -> Train:
        def train(*arguments: object) -> tuple[int, str, str]:
            ended = call(module(method, "train").main, *arguments)
            # as at the end of a process: a run that was refused lets go of its folder
            gc.collect()
            return ended

        return train

    return choose


@pytest.fixture
def train_method(train_plain: Callable[[str], Train]) -> Callable[[str], Train]:
    """`train_plain` with the `PARTS` of each method, over which a test's own flags go."""

    def choose(method: str) -> Train:
        return lambda *arguments: train_plain(method)(*PARTS[method], *arguments)

    return choose


@pytest.fixture
def infer(call: Call) -> Call:
    """Runs ensemble.infer in this process: (exit code, stdout, stderr)."""

    def answer(*arguments: object) -> tuple[int, str, str]:
        return call(infer_main, *arguments, "--num_workers", "0")

    return answer


@pytest.fixture
def checkpoints(finished: tuple[Path, str]) -> list[Path]:
    """The two folds of a small run of standard_head."""
    return [finished[0] / f"{MODEL}_fold{fold}.safetensors" for fold in (1, 2)]


@pytest.fixture
def train(train_method: Callable[[str], Train]) -> Train:
    """Runs standard_head's train.py in this process: (exit code, stdout, stderr)."""
    return train_method("standard_head")


@pytest.fixture
def six_images(phantom: Path) -> list[Path]:
    """Six of the phantom's images."""
    return sorted((phantom / "images").iterdir())[:6]


@pytest.fixture
def six_flags(
    checkpoints: list[Path], phantom: Path, six_images: list[Path], tmp_path: Path
) -> list:
    """Flags of ensemble.infer: two checkpoints and these images, without views."""
    csv = tmp_path / "six.csv"
    csv.write_text("\n".join(["ImageID", *(path.name for path in six_images)]))
    return [
        *("--checkpoints", *checkpoints, "--image_dir", phantom / "images", "--no-use_tta"),
        *("--test_csv", csv),
    ]
