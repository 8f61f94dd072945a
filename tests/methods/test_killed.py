"""A run that is killed at any moment ends, by the same command, as if nobody had killed it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_run import METHODS, MODEL, ROOT, flags

from core.checkpoint import load_tensors

# by what --save_minutes comes to: a state at each update, or one an epoch
SAVING = {"updates": "0.00001", "epochs": "1000"}


class Server:
    """The program forks.py; see there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forks.py")), *METHODS],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.started = 0

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def output(self) -> Path:
        """A file for what the next run prints."""
        self.started += 1
        return self.folder / f"{self.started}.txt"

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=20)


class Forks:
    """Starts runs of a method through a server."""

    def __init__(self, server: Server, method: str, data: Path) -> None:
        self.server, self.method, self.data = server, method, data
        self.finished: dict[int, tuple[Path, dict[str, float]]] = {}

    def run(
        self,
        out: Path,
        folds: int,
        saving: str,
        *more: str,
        moment: tuple[str, float] | None = None,
        send: int = signal.SIGKILL,
    ) -> dict[str, Any]:
        """How a run of the first `folds` of two folds ended; `printed` and `moments` beside."""
        output = self.server.output()
        options = ["--run_folds", *("1", "2")[:folds], "--save_minutes", SAVING[saving], *more]
        # few labels: the report's pictures are what takes long
        options += ["--labels", "Effusion,Normal", "--batch_size", "4"]
        if self.method == "label_coupling":
            options += ["--test_csv", str(self.data / "test.csv"), "--out_csv", f"{out}.csv"]
        arguments = flags(self.data, out, *options)
        run = {"method": self.method, "arguments": arguments, "output": str(output)}
        ended = self.server.ask(**run, moment=moment, signal=send) | {"moments": {}, "late": []}
        counts = output.with_suffix(".json")
        ended |= json.loads(counts.read_text()) if counts.exists() else {}
        return ended | {"printed": output.read_text()}

    def undisturbed(self, folds: int) -> tuple[Path, dict[str, float]]:
        """The folder of a run that nobody killed, and how many moments of each kind it had."""
        if folds not in self.finished:
            out = self.server.folder / f"undisturbed_{self.method}{folds}"
            ended = self.run(out, folds, "updates")
            assert ended["code"] == 0, ended["printed"]
            assert not ended["late"], "to be imported by forks.py before its first fork"
            moments = ended["moments"] | {"seconds": ended["seconds"]}
            self.finished[folds] = out, moments
        return self.finished[folds]

    def kill(self, out: Path, folds: int, saving: str, *more: str, kind: str, at: float) -> None:
        """Start a run that does not live beyond a moment."""
        ended = self.run(out, folds, saving, *more, moment=(kind, at))
        assert ended["code"] == -signal.SIGKILL, ended["printed"]

    def finish(self, out: Path, folds: int, saving: str, *more: str) -> None:
        """Start a run that comes to its end, with the result of one that was not disturbed."""
        ended = self.run(out, folds, saving, *more)
        assert ended["code"] == 0, ended["printed"]
        assert_equal(out, self.undisturbed(folds)[0], folds)


@pytest.fixture(scope="module")
def forks_of(
    phantom: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Forks]]:
    server = Server(tmp_path_factory.mktemp("forks"))
    yield cache(lambda method: Forks(server, method, phantom))
    server.close()


@pytest.fixture
def forks(forks_of: Callable[[str], Forks]) -> Forks:
    return forks_of("standard_head")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_equal(ours: Path, theirs: Path, folds: int) -> None:
    """The same files, and in those of the result the same bits."""
    assert names(ours) == names(theirs)
    for path in sorted(theirs.rglob("*.csv")):
        if path.name != "timing.csv":
            assert (ours / path.relative_to(theirs)).read_bytes() == path.read_bytes(), path.name
    submissions = [Path(f"{folder}.csv") for folder in (ours, theirs)]
    assert submissions[0].exists() == submissions[1].exists()
    if submissions[1].exists():
        assert submissions[0].read_bytes() == submissions[1].read_bytes()
    epochs = [pd.read_csv(path / "timing.csv")[["fold", "epoch"]] for path in (ours, theirs)]
    assert epochs[0].equals(epochs[1])
    for fold in range(1, folds + 1):
        assert (theirs / f"{MODEL}_fold{fold}_val.csv").exists()
        weights, expected = (
            load_tensors(folder / f"{MODEL}_fold{fold}.safetensors")[0] for folder in (ours, theirs)
        )
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def drawn_moments() -> list[Any]:
    """Moments for one fold and for two, as shares of all that a run has of their kind.

    The methods share the loop: after the first of them few are enough.
    """
    kinds = [("updates", kind) for kind in ("update", "file", "file", "seconds")]
    kinds += [("epochs", kind) for kind in ("update", "evaluation")]
    few = [("updates", "update"), ("updates", "file")]
    drawn = []
    for number, method in enumerate(METHODS):
        chosen = few if number else kinds
        shares = np.random.default_rng(7 * (number + 1)).random((2, len(chosen)))
        for folds, row in enumerate(shares, start=1):
            for (saving, kind), share in zip(chosen, row, strict=True):
                name = f"{method}-{folds}-{saving}-{kind}-{share:.2f}"
                drawn.append(pytest.param(method, folds, saving, kind, share, id=name))
    return drawn


@pytest.mark.parametrize(("method", "folds", "saving", "kind", "share"), drawn_moments())
def test_a_killed_run_goes_on_bit_for_bit(
    method: str,
    folds: int,
    saving: str,
    kind: str,
    share: float,
    forks_of: Callable[[str], Forks],
    tmp_path: Path,
) -> None:
    forks = forks_of(method)
    out, total = tmp_path / "out", forks.undisturbed(folds)[1][kind]
    if kind == "seconds":
        moment = (kind, total * share)
        while forks.run(out, folds, saving, moment=moment)["code"] != -signal.SIGKILL:
            # it was faster this time
            shutil.rmtree(out)
            moment = (kind, moment[1] / 2)
    else:
        forks.kill(out, folds, saving, kind=kind, at=1 + int(total * share))
    forks.finish(out, folds, saving)


def test_a_run_that_is_killed_again_and_again_ends(forks: Forks, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for updates in np.random.default_rng(3).integers(1, 9, size=6):
        forks.kill(out, 2, "updates", kind="update", at=int(updates))
    forks.finish(out, 2, "updates")


@pytest.mark.parametrize("rows", [1, 4])
def test_an_epoch_that_was_recorded_but_not_kept_has_one_row(
    rows: int, forks: Forks, tmp_path: Path
) -> None:
    """Its rows in metrics.csv and timing.csv come before its state."""
    out = tmp_path / "out"
    forks.kill(out, 1, "epochs", kind="row", at=rows)
    forks.finish(out, 1, "epochs")


def test_a_kill_while_the_report_is_written_leaves_nothing(forks: Forks, tmp_path: Path) -> None:
    # the last seven steps are those of report.html, before them comes a picture
    total = forks.undisturbed(1)[1]["file"]
    out = tmp_path / "out"
    forks.kill(out, 1, "updates", kind="file", at=total - 10)
    assert list(out.glob("plots/.*.png"))
    forks.finish(out, 1, "updates")


def test_overwrite_that_is_killed_can_be_given_again(forks: Forks, tmp_path: Path) -> None:
    out = tmp_path / "out"
    forks.kill(out, 1, "updates", kind="update", at=10)
    forks.kill(out, 1, "updates", "--overwrite", kind="deletion", at=1)
    forks.finish(out, 1, "updates", "--overwrite")


def test_workers_of_a_killed_run_do_not_hold_its_folder(forks: Forks, tmp_path: Path) -> None:
    """They notice after seconds that they are orphans; the same command is given at once."""
    run = (tmp_path / "out", 1, "updates", "--num_workers", "2")
    forks.kill(*run, kind="update", at=12)
    forks.finish(*run)


def test_a_folder_with_a_live_run_is_refused(forks: Forks, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = forks.run(out, 1, "updates", moment=("update", 12), send=signal.SIGSTOP)
    assert first["stopped"], first["printed"]
    second = forks.run(out, 1, "updates")
    assert second["code"] == 2
    assert f"another process is training in {out}" in second["printed"]
    assert forks.server.ask(resume=first["pid"])["code"] == 0
    assert_equal(out, forks.undisturbed(1)[0], 1)
