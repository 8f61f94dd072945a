"""What trackers have of a run, read by the tools' own packages."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run
from wandb.proto import wandb_internal_pb2

# of W&B's files: records in parts, in blocks, after a header
_HEADER, _BLOCK, _PART = 7, 32768, 7


class WandbRun(NamedTuple):
    """One start of an offline run."""

    id: str
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    text: str
    """Everything that would be sent."""


def wandb_runs(folder: Path) -> list[WandbRun]:
    """Offline runs in a run folder, by name of their folders: in the order of their starts."""
    return [_wandb_run(path) for path in sorted(folder.glob("wandb/offline-run-*"))]


def _wandb_run(folder: Path) -> WandbRun:
    (path,) = folder.glob("*.wandb")
    records = [
        wandb_internal_pb2.Record.FromString(data)  # type: ignore[attr-defined]
        for data in _records(path.read_bytes())
    ]
    run = next(one.run for one in records if one.HasField("run"))
    config: dict[str, Any] = {}
    for update in (run.config, *(one.config for one in records if one.HasField("config"))):
        config |= {item.key: json.loads(item.value_json) for item in update.update}
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in (one.history for one in records if one.HasField("history"))
    ]
    sent = [*map(str, records), *(one.read_text() for one in folder.glob("files/**/*.json"))]
    # names of the files to send, which are not sent
    text = re.sub(r'(local_path|staging_dir): ".*"', "", "\n".join(sent))
    return WandbRun(run.run_id, config, rows, text)


def _records(data: bytes) -> list[bytes]:
    """Records of a file of W&B."""
    assert data[:4] == b":W&B"
    found, parts, place = [], b"", _HEADER
    while place < len(data):
        left = _BLOCK - place % _BLOCK
        if left < _PART:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part = data[place + _PART : place + _PART + size]
        # whole, first, middle, last
        parts = part if kind in (1, 2) else parts + part
        if kind in (1, 4):
            found.append(parts)
        place += _PART + size
    return found


def mlflow_runs(folder: Path) -> tuple[MlflowClient, dict[str, Run]]:
    """Client of a run folder's SQLite file, and its runs by "fold1", "fold2", "all_folds"."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "longtail-cxr"]
    runs = client.search_runs([experiment.experiment_id])
    assert len({run.data.tags["part"] for run in runs}) == len(runs)
    return client, {run.data.tags["part"]: run for run in runs}
