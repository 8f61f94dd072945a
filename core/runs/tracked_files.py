"""Identity of a run for its trackers, and the files that these leave in the run folder."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

_FILES = (
    *("tensorboard/fold*/events.*", "tensorboard/all_folds/events.*"),
    *("wandb/*run-*", "wandb/latest-run", "wandb/debug*.log", "wandb/artifacts"),
    *("mlflow/mlflow.db", "mlflow/artifacts"),
)


def tracking_id(starts: list[dict[str, Any]]) -> str:
    """Name of a run for its trackers, by its first start: another one after --overwrite."""
    text = json.dumps(starts[:1], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def delete_tracked(folder: Path) -> None:
    """Delete what the trackers of the run in `folder` wrote there."""
    for pattern in _FILES:
        # a linked folder may be that of several runs
        if (folder / pattern.partition("/")[0]).is_symlink():
            continue
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
