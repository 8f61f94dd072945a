"""Does `ensemble.serve` answer fifty clients at once, wrong files among them? About two minutes.

    python -m benchmarks.studies.serve_load

A real process, its temporary folder and its working folder empty. First each file is sent alone,
then fifty clients send ten each at once, every other file a wrong one: cut short, empty, a text, a
bomb, too large, of 100 megapixels, a DICOM of several frames. Of every third right file the heat
map of a class is asked for. All must be answered, each as it was when it came alone; the process
must live on, write no file, stay in its memory, and end at Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.runner import parse_names
from methods.standard_head.config import small

if TYPE_CHECKING:
    from benchmarks.studies.serve_clients import Reply

CLIENTS, EACH = 50, 10
# for /health, whatever else it does
ALLOWED_SECONDS = 2


def main() -> None:
    """Print what was measured; exit code 1 where something was not as it must be."""
    parse_names(__doc__)
    # late, so that --help and a mistyped flag are answered at once
    from benchmarks.speed.infer import save_models
    from benchmarks.studies import serve_clients as clients

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoints = save_models(folder, small().model, (96, 128))
        files = clients.right_files(folder) | clients.wrong_files(clients.MEGABYTES * 1_000_000)
        empty = folder / "empty"
        (empty / "tmp").mkdir(parents=True)
        with clients.served(checkpoints, empty) as (process, port):
            alone = {name: clients.ask(port, name, data) for name, data in files.items()}
            before = clients.megabytes(process.pid)
            with clients.watched(process.pid, port) as looks:
                began = time.perf_counter()
                replies = clients.load(port, files, CLIENTS, EACH)
                seconds = time.perf_counter() - began
            healthy = clients.ask(port, "predict 0", files["predict 0"]).status == 200
            process.send_signal(signal.SIGINT)
            ended = process.wait(timeout=60)
        left = [path.name for path in empty.rglob("*") if path.is_file()]
    print_replies(replies, seconds)
    slowest, peak = map(max, zip(*looks, strict=True))
    print(f"/health      {len(looks)} answers meanwhile, slowest {slowest:.2f} s")
    print(f"memory       {before:,.0f} MB before, {peak:,.0f} MB at most (0 without /proc)")
    wrong = [reply for reply in replies if not clients.same(reply, alone[reply.name])]
    refused = [one for one in replies if one.name.startswith(clients.RIGHT) != (one.status == 200)]
    faults = {
        f"{len(wrong)} answers are not those of one client ({wrong[:1]})": wrong,
        "a right file was refused, or a wrong one taken": refused,
        "the process is not well after it": not healthy,
        f"it ended with {ended}": ended != 130,
        f"it wrote {left}": left,
        # eight files of the largest size, one of which is being decoded
        "it took too much memory": peak - before > 8 * clients.MEGABYTES + 300,
        "/health had to wait": slowest > ALLOWED_SECONDS,
    }
    found = "; ".join(fault for fault, there in faults.items() if there)
    print(f"MISSED       {found}" if found else "ok           all as alone, no file written")
    sys.exit(bool(found))


def print_replies(replies: Sequence[Reply], seconds: float) -> None:
    """Print statuses, throughput and latency."""
    import numpy as np

    statuses = Counter(reply.status for reply in replies)
    counts = ", ".join(f"{count} with {status}" for status, count in sorted(statuses.items()))
    print(f"answers      {len(replies)} of {CLIENTS} clients in {seconds:.1f} s: {counts}")
    kinds: dict[str, list[float]] = {"/predict": [], "/map": [], "wrong files": []}
    for reply in replies:
        right = "/map" if reply.name.startswith("map") else "/predict"
        kinds[right if reply.status == 200 else "wrong files"].append(reply.seconds)
    for kind, taken in kinds.items():
        if taken:
            p50, p95, last = (f"{one:.2f} s" for one in np.percentile(taken, [50, 95, 100]))
            print(f"{kind:<12} {len(taken)}: p50 {p50}, p95 {p95}, slowest {last}")


if __name__ == "__main__":
    main()
