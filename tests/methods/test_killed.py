"""A run that is killed at any moment ends, by the same command, as if nobody had killed it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_run import MODEL, ROOT, flags

from core.checkpoint import load_tensors

# one server of runs serves all
pytestmark = pytest.mark.xdist_group("killed")
# by what --save_minutes comes to: a state at each update, or one an epoch
SAVING = {"updates": "0.00001", "epochs": "1000"}


class Forks:
    """Starts runs through forks.py; see there."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forks.py"))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.started = 0
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
        self.started += 1
        output = self.folder / f"{self.started}.txt"
        options = ["--run_folds", *("1", "2")[:folds], "--save_minutes", SAVING[saving], *more]
        # few labels: the report's pictures are what takes long
        options += ["--labels", "Effusion,Normal", "--batch_size", "4"]
        arguments = flags(self.data, out, *options)
        ended = self.ask(arguments=arguments, output=str(output), moment=moment, signal=send)
        counts = output.with_suffix(".json")
        ended["moments"] = json.loads(counts.read_text()) if counts.exists() else {}
        return ended | {"printed": output.read_text()}

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def undisturbed(self, folds: int) -> tuple[Path, dict[str, float]]:
        """The folder of a run that nobody killed, and how many moments of each kind it had."""
        if folds not in self.finished:
            out = self.folder / f"undisturbed{folds}"
            ended = self.run(out, folds, "updates")
            assert ended["code"] == 0, ended["printed"]
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
def forks(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(phantom, tmp_path_factory.mktemp("forks"))
    yield forks
    assert forks.process.stdin
    forks.process.stdin.close()
    forks.process.wait(timeout=20)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_equal(ours: Path, theirs: Path, folds: int) -> None:
    """The same files, and in those of the result the same bits."""
    assert names(ours) == names(theirs)
    assert (ours / "metrics.csv").read_text() == (theirs / "metrics.csv").read_text()
    epochs = [pd.read_csv(path / "timing.csv")[["fold", "epoch"]] for path in (ours, theirs)]
    assert epochs[0].equals(epochs[1])
    for fold in range(1, folds + 1):
        predictions = f"{MODEL}_fold{fold}_val.csv"
        assert (ours / predictions).read_bytes() == (theirs / predictions).read_bytes()
        weights, expected = (
            load_tensors(folder / f"{MODEL}_fold{fold}.safetensors")[0] for folder in (ours, theirs)
        )
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def drawn_moments() -> list[Any]:
    """Moments for one fold and for two, as shares of all that a run has of their kind."""
    random = np.random.default_rng(7)
    kinds = [("updates", kind) for kind in ("update", "file", "file", "seconds")]
    kinds += [("epochs", kind) for kind in ("update", "evaluation")]
    return [
        pytest.param(folds, saving, kind, share, id=f"{folds}-{saving}-{kind}-{share:.2f}")
        for folds in (1, 2)
        for (saving, kind), share in zip(kinds, random.random(len(kinds)), strict=True)
    ]


@pytest.mark.parametrize(("folds", "saving", "kind", "share"), drawn_moments())
def test_a_killed_run_goes_on_bit_for_bit(
    folds: int, saving: str, kind: str, share: float, forks: Forks, tmp_path: Path
) -> None:
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
    assert forks.ask(resume=first["pid"])["code"] == 0
    assert_equal(out, forks.undisturbed(1)[0], 1)
