"""Equal bits on a CPU by the same command and seed, for any number of loader workers, any folder,
and after a stop."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch

from core.models.checkpoint import load_tensors
from tests.conftest import Train
from tests.helpers.fault_table import Fault
from tests.helpers.training.small_run import flags
from tests.helpers.training.stopped_training import stopped_at

FAULT = "the same command again, with other workers and stops"
TrainMethod = Callable[[str], Train]
# settings of a checkpoint that describe how it was made
FREE = {"num_workers", "out_dir"}


def assert_same_numbers(ours: Path, theirs: Path) -> None:
    for name in ("metrics.csv", "folds.csv"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    files = [*theirs.glob("*_val.csv"), *theirs.glob("*.safetensors")]
    assert len(files) == 6
    for path in files:
        if path.suffix == ".csv":
            assert (ours / path.name).read_bytes() == path.read_bytes(), path.name
            continue
        (found, facts), (expected, expected_facts) = (
            load_tensors(ours / path.name),
            load_tensors(path),
        )
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (path.name, name)
        # a state of a finished fold is without tensors
        assert len(expected) > 10 or path.name.endswith(".state.safetensors")
        for one in (facts, expected_facts):
            for setting in FREE & set(one.get("settings", {})):
                del one["settings"][setting]
        assert facts == expected_facts


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("standard_head", marks=pytest.mark.soak),
        "csra_db_cas",
        pytest.param("label_coupling", marks=pytest.mark.soak),
    ],
)
def test_workers_processes_folders_and_a_stop_change_no_bit(
    method: str,
    finished_method: Callable[[str], tuple[Path, str]],
    phantom: Path,
    tmp_path: Path,
    train_method: TrainMethod,
    soak: bool,
    fault: Fault,
) -> None:
    """Against a run without workers, in another process and folder."""
    expected, train = finished_method(method)[0], train_method(method)
    # undisturbed, at the end of the head's epoch, and later
    for stop, workers in product((0, 3, 6), (0, 1, 3)) if soak else [(5, 2)]:
        fault(FAULT, 1)
        out = tmp_path / f"{stop}_{workers}"
        if stop:
            stopped_at(train, stop, *flags(phantom, out, "--num_workers", 1))
        code, _, error = train(*flags(phantom, out, "--num_workers", workers))
        assert code == 0, error
        assert_same_numbers(out, expected)
