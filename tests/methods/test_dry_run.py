"""`--dry_run`: each step and file of a training in seconds, apart from the real run."""

import itertools
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np
import pandas as pd
import pytest

from core.config.data import DataConfig
from core.config.training import SplitConfig
from core.data.splits.prepare import prepare
from core.errors import UserError, format_size
from core.runtime.fabric import make_fabric
from core.training import measurement
from core.training.dry_run import reduce_to_dry_run
from core.training.resume import is_finished
from methods import load_model
from methods.standard_head.config import PRESETS
from tests.conftest import Train
from tests.helpers.training.small_run import METHODS, MODEL, flags, settings


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", METHODS)
def test_a_dry_run_writes_all_that_a_run_does_and_prints_what_it_measured(
    method: str,
    phantom: Path,
    tmp_path: Path,
    train_method: Callable[[str], Train],
    finished_method: Callable[[str], tuple[Path, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # a second from each look at the clock to the next
    monkeypatch.setattr(measurement, "monotonic", itertools.count(math.ceil(monotonic())).__next__)
    out, submission = tmp_path / "out", tmp_path / "submission.csv"
    words = flags(phantom, out, "--run_folds", 2, "--batch_size", 4, "--accumulate", 2)
    phases = ["head", "all"] if "warmup_head_epochs" in settings(method=method) else ["all"]
    if method == "label_coupling":
        words += ["--test_csv", str(phantom / "test.csv"), "--out_csv", str(submission)]
    code, printed, error = train_method(method)(*words, "--dry_run")
    assert code == 0, error
    assert not out.exists()
    assert not submission.exists()
    dry = tmp_path / "out_dry_run"
    metrics = pd.read_csv(dry / "metrics.csv")
    assert metrics["phase"].tolist() == phases
    assert metrics["fold"].tolist() == [2] * len(phases)
    assert is_finished(dry / f"{MODEL}_fold2.state.safetensors")
    load_model(dry / f"{MODEL}_fold2.safetensors")
    expected = {name for name in names(finished_method(method)[0]) if "fold1" not in name}
    if method == "label_coupling":
        assert len(pd.read_csv(dry / submission.name)) == 8
        expected |= {submission.name, "submission_training_overlap.json"}
    assert names(dry) == expected

    data = DataConfig(train_csv=(phantom / "train.csv",), train_dir=(phantom / "images",))
    split = SplitConfig(folds=2, run_folds=(2,))
    _, training, validation = next(prepare(data, split, lambda _: None).rows())
    few = len(pd.read_csv(dry / f"{MODEL}_fold2_val.csv"))
    assert few < len(validation)
    updates, evaluation = len(training) // 8, len(validation) / few
    lines = printed.splitlines()
    last = lines.index("dry run      everything works; its scores mean nothing. Next:")
    assert "--dry_run" not in lines[last + 1]
    assert lines[last - 3 - len(phases) : last - 3] == [
        f"time         an epoch of phase {phase} takes about {updates + evaluation:.1f} s: "
        f"{updates} updates of 1 s, {evaluation:.1f} s to evaluate {len(validation)} images"
        for phase in phases
    ]
    assert re.fullmatch(
        r"in all       about [\d.]+ (s|min|hours) for 1 fold of \d epochs?", lines[last - 3]
    )
    weights = (dry / f"{MODEL}_fold2.safetensors").stat().st_size
    assert lines[last - 2].startswith(f"disk         {format_size(weights)} of checkpoints; during")
    assert re.fullmatch(
        r"memory       at most [\d.]+ [GM]B in one process, without its loader workers",
        lines[last - 1],
    )


def test_a_dry_run_restarts_and_leaves_the_real_run_alone(
    phantom: Path, finished_copy: Path, train: Train
) -> None:
    before = {path: path.read_bytes() for path in finished_copy.rglob("*") if path.is_file()}
    for _ in range(2):
        code, _, error = train(*flags(phantom, finished_copy, "--overwrite", "--dry-run"))
        assert code == 0, error
    assert {path: path.read_bytes() for path in before} == before
    assert set(before) == {path for path in finished_copy.rglob("*") if path.is_file()}


def test_few_images_hold_a_positive_of_each_class(phantom: Path) -> None:
    """Of those that have one; and all of them where there are few."""
    config = PRESETS["small"]()
    config.loader.batch_size, config.optim.warmup_head_epochs = 6, 3
    config.run.out_dir = Path("somewhere")
    data = DataConfig(train_csv=(phantom / "train.csv",), train_dir=(phantom / "images",))
    prepared = prepare(data, SplitConfig(folds=2), lambda _: None)
    said: list[str] = []
    fabric = make_fabric(amp="off")
    short, few, _ = reduce_to_dry_run(config, prepared, fabric, said.append)
    assert (short.optim.epochs, short.optim.warmup_head_epochs) == (1, 1)
    assert config.optim.epochs > 1
    assert (config.run.out_dir, short.run.out_dir) == (
        Path("somewhere"),
        Path("somewhere_dry_run"),
    )
    (parts,) = few.rows()
    (fold, *whole) = next(prepared.rows())
    assert parts[0] == fold == 1
    for rows, of_all in zip(parts[1:], whole, strict=True):
        chosen, every = few.table.targets[rows] == 1, prepared.table.targets[of_all] == 1
        assert (chosen.any(axis=0) == every.any(axis=0)).all()
        assert 12 <= len(rows) < 20
        assert set(np.array(few.table.ids)[rows]) <= set(np.array(prepared.table.ids)[of_all])
    expected = f"{len(few.table)} of {len(prepared.table)} images, all into somewhere_dry_run"
    assert expected in said[0]
    config.loader.batch_size = len(whole[0])
    assert len(reduce_to_dry_run(config, prepared, fabric, said.append)[1].table) == len(
        prepared.table
    )
    # as the run itself would
    config.loader.batch_size += 1
    with pytest.raises(UserError, match="one update takes"):
        reduce_to_dry_run(config, prepared, fabric, said.append)


def test_where_a_dry_run_may_write(
    phantom: Path, finished_copy: Path, tmp_path: Path, train: Train
) -> None:
    """Beside the folder that is meant, whatever it is called; never over a real run."""
    words = flags(phantom, tmp_path / "out" / "..", "--dry_run", "--run_folds", 1)
    assert train(*words)[0] == 0
    dry = tmp_path.with_name(f"{tmp_path.name}_dry_run")
    assert "metrics.csv" in names(dry)
    shutil.rmtree(dry)
    finished_copy.rename(dry)
    before = (dry / "metrics.csv").read_bytes()
    code, _, error = train(*words)
    assert code == 2
    assert f"{dry}, the folder of --dry_run, holds a run that is not a dry run" in error
    assert (dry / "metrics.csv").read_bytes() == before
    code, _, error = train(*flags(phantom, Path("/"), "--dry_run"))
    assert code == 2
    assert "--dry_run writes to a folder beside --out_dir, and / has none: " in error


def test_a_dry_run_with_a_settings_file_prints_how_to_run_it(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    (tmp_path / "c.json").write_text('{"dry_run": true, "run_folds": [1]}')
    words = flags(phantom, tmp_path / "out", "--config", tmp_path / "c.json")
    code, printed, error = train(*words)
    assert code == 0, error
    assert printed.rstrip().endswith("--no-dry_run")
