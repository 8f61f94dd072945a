"""Two processes on one device: by NCCL, or over gloo where NCCL refuses."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.gpu.plan import Figure, Known, Plan

RANKS = 2
SECONDS = 120
# exit code 0 if NCCL accepts two processes on one device
_PROBE = """
import torch, torch.distributed as ranks
torch.cuda.set_device(0)
ranks.init_process_group("nccl")
ranks.all_reduce(torch.zeros(1, device="cuda"))
torch.cuda.synchronize()
"""


def compare_processes(
    plan: Plan, method: str, data: Path, out: Path, known: Known
) -> Iterator[Figure]:
    """Images a second of both together, and the largest difference of their weights."""
    backend = "gloo"
    if plan.device == "cuda":
        with suppress(RuntimeError):
            start_ranks(["-c", _PROBE], 60)
            backend = "nccl"
    halved = {name: max(2, size // RANKS) for name, size in plan.batches.items()}
    part = json.dumps(asdict(replace(plan, batches=halved)))
    printed = start_ranks(["-m", "benchmarks.gpu.rank", part, backend, method, data, out], SECONDS)
    found = json.loads(printed.splitlines()[-1])
    what = f"{method}: {RANKS} processes on one device, {backend}"
    yield Figure(what, "images/s", "one, in memory", found["speed"], known.speed(method))
    what = f"{method}: largest difference between them"
    yield Figure(what, "", "limit", found["difference"], 1e-9, ceiling=1)


def start_ranks(words: list[object], limit: float) -> str:
    """Run Python with these arguments as `RANKS` ranks; returns the output of the first.

    Raises RuntimeError if one fails or takes more than `limit` seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    shared |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "benchmark"}
    command, end = [sys.executable, *map(str, words)], time.monotonic() + limit
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "GROUP_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        outputs = [rank.communicate(timeout=end - time.monotonic()) for rank in ranks]
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"two processes took more than {limit:.0f} s") from error
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for rank, (_, errors) in zip(ranks, outputs, strict=True):
        if rank.returncode:
            raise RuntimeError(f"a process failed: {errors.strip()[-300:]}")
    return outputs[0][0]
