"""One of two training processes on one device, started by `benchmarks.gpu.two_processes`.

python -m benchmarks.gpu.rank PLAN BACKEND METHOD DATA OUT
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
import torch.distributed

from benchmarks.gpu.pipeline import train_fold
from benchmarks.gpu.plan import Plan


def main() -> None:
    """Train, and print speed and largest difference of the weights between the ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("plan", "backend", "method", "data", "out"):
        parser.add_argument(name)
    given = parser.parse_args()
    plan = Plan(**json.loads(given.plan))
    if plan.device == "cuda":
        torch.cuda.set_device(0)
    # before Fabric, which would take NCCL
    torch.distributed.init_process_group(given.backend)
    with redirect_stdout(sys.stderr):
        done = train_fold(plan, given.method, Path(given.data), Path(given.out))
    weights = torch.cat([value.detach().flatten() for value in done.model.parameters()])
    low, high = weights.clone(), weights
    torch.distributed.all_reduce(low, torch.distributed.ReduceOp.MIN)
    torch.distributed.all_reduce(high, torch.distributed.ReduceOp.MAX)
    ranks = torch.distributed.get_world_size()
    print(json.dumps({"speed": ranks * done.speed, "difference": float((high - low).max())}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
