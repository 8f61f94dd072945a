"""Disk-backed feature cache: reading back, and no file left."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from core.runtime.fabric import make_fabric
from core.training.feature_cache import FeatureCache, NoRoomError


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_read_back_unchanged(kind: torch.dtype, tmp_path: Path) -> None:
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(0)).to(kind)
    rows[3, 2] = torch.nan
    kept = FeatureCache(make_fabric(amp="off"), tmp_path, 20, rows)
    for start in (10, 0):
        kept.write(start, rows[start : start + 10])
    found = kept.read(np.array([3, 19, 0, 3]))
    assert found.dtype == kind
    torch.testing.assert_close(found, rows[[3, 19, 0, 3]], rtol=0, atol=0, equal_nan=True)


def test_the_file_has_no_name(tmp_path: Path) -> None:
    """So that nothing is left after a kill."""
    FeatureCache(make_fabric(amp="off"), tmp_path, 1000, torch.zeros(2, 1000))
    assert os.listdir(tmp_path) == []


def test_it_leaves_half_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabric, like = make_fabric(amp="off"), torch.zeros(1, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    FeatureCache(fabric, tmp_path, 12, like)
    with pytest.raises(NoRoomError, match=r"would need 5\.2e-07 GB in .*, where 1e-06 GB are free"):
        FeatureCache(fabric, tmp_path, 13, like)
