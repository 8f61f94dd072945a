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

from benchmarks.runner import no_flags
from methods.standard_head.config import small

if TYPE_CHECKING:
    from benchmarks.studies.serve_clients import Reply

CLIENTS, EACH = 50, 10
# for /health, whatever else it does
ALLOWED_SECONDS = 2


def main() -> None:
    """Print what was measured; exit code 1 where something was not as it must be."""
    no_flags(__doc__)
    # late, so that --help and a mistyped flag are answered at once
    from benchmarks.speed.infer import save_models
    from benchmarks.speed.memory import can_measure
    from benchmarks.studies import serve_clients as clients

    # eight files of the largest size, one of which is being decoded
    allowed = 8 * clients.MEGABYTES + 300
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoints = save_models(folder, small().model, (96, 128))
        files = clients.right_files(folder) | clients.wrong_files(clients.MEGABYTES * 1_000_000)
        empty = folder / "empty"
        (empty / "tmp").mkdir(parents=True)
        with clients.served(checkpoints, empty) as (process, port):
            alone = {name: clients.ask(port, name, data) for name, data in files.items()}
            before = clients.megabytes(process.pid)
            with clients.peak_of(process.pid) as peak, clients.pulse_of(port) as pulse:
                began = time.perf_counter()
                replies = clients.load(port, files, CLIENTS, EACH)
                seconds = time.perf_counter() - began
            healthy = clients.ask(port, "predict 0", files["predict 0"]).status == 200
            process.send_signal(signal.SIGINT)
            ended = process.wait(timeout=60)
        left = [path.name for path in empty.rglob("*") if path.is_file()]
    tell(replies, seconds)
    print(f"/health      {len(pulse)} answers meanwhile, slowest {max(pulse):.2f} s")
    if can_measure():
        print(f"memory       {before:,.0f} MB before, {peak[0]:,.0f} MB at most")
    wrong = [reply for reply in replies if not clients.same(reply, alone[reply.name])]
    faults = {
        f"{len(wrong)} answers are not those of one client ({wrong[:1]})": bool(wrong),
        "a right file was refused": any(
            reply.name.startswith(clients.RIGHT) != (reply.status == 200) for reply in replies
        ),
        "the process is not well after it": not healthy,
        f"it ended with {ended}": ended != 130,
        f"it wrote {left}": bool(left),
        "it took too much memory": peak[0] - before > allowed,
        "/health had to wait": max(pulse) > ALLOWED_SECONDS,
    }
    told = [fault for fault, there in faults.items() if there]
    print(
        "MISSED       " + "; ".join(told) if told else "ok           all as alone, no file written"
    )
    sys.exit(bool(told))


def tell(replies: Sequence[Reply], seconds: float) -> None:
    """Print statuses, throughput and latency."""
    import numpy as np

    statuses = Counter(reply.status for reply in replies)
    told = ", ".join(f"{count} with {status}" for status, count in sorted(statuses.items()))
    print(f"answers      {len(replies)} of {CLIENTS} clients in {seconds:.1f} s: {told}")
    kinds: dict[str, list[float]] = {"/predict": [], "/map": [], "wrong files": []}
    for reply in replies:
        right = "/map" if reply.name.startswith("map") else "/predict"
        kinds[right if reply.status == 200 else "wrong files"].append(reply.seconds)
    for kind, taken in kinds.items():
        if not taken:
            continue
        middle, late = np.percentile(taken, [50, 95])
        print(
            f"{kind:<12} {len(taken)}: p50 {middle:.2f} s, p95 {late:.2f} s, "
            f"slowest {max(taken):.2f} s"
        )


if __name__ == "__main__":
    main()
