"""Whether two folders hold the same results, bit for bit."""

import json
from pathlib import Path

import pandas as pd
import torch

from core.models.checkpoint import load_tensors


def assert_same(ours: Path, theirs: Path) -> None:
    """The same names, no other file beside them, and the same bytes in each.

    Both were written under one path. Of timing.csv the folds and epochs are compared, of env.json
    all but the starts, and of checkpoints and states the tensors and facts: their headers list
    these in any order. Event files are TensorBoard's, one for each start.
    """
    differing = sorted(_names(ours) ^ _names(theirs))
    assert not differing, f"there in one of the two only: {differing}"
    for name in sorted(_names(theirs)):
        if (theirs / name).is_file():
            _assert_same_file(ours / name, theirs / name)


def _names(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in names if "events.out" not in name}


def _assert_same_file(ours: Path, theirs: Path) -> None:
    if theirs.suffix == ".safetensors":
        (found, facts), (expected, expected_facts) = load_tensors(ours), load_tensors(theirs)
        assert facts == expected_facts, theirs.name
        assert found.keys() == expected.keys(), theirs.name
        for name, tensor in expected.items():
            assert tensor.dtype == found[name].dtype, (theirs.name, name)
            assert torch.equal(found[name], tensor), (theirs.name, name)
    elif theirs.name == "timing.csv":
        rows = [pd.read_csv(path)[["fold", "epoch"]] for path in (ours, theirs)]
        assert rows[0].equals(rows[1]), theirs.name
    elif theirs.name == "env.json":
        told = [json.loads(path.read_text()) | {"starts": ""} for path in (ours, theirs)]
        assert told[0] == told[1], theirs.name
    else:
        assert ours.read_bytes() == theirs.read_bytes(), theirs.name
