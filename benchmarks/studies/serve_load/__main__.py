"""Load test of `ensemble.serve` with fifty clients and invalid files. About two minutes.

    python -m benchmarks.studies.serve_load

A real process with an empty working folder and temporary folder. First each file is sent alone,
then fifty clients send ten each, every other file invalid: truncated, empty, a text, a
decompression bomb, too large, of 100 megapixels. Every third valid file is sent to /map. Each
answer must equal that of the file sent alone; the process must stay alive, write no file, limit its
memory, and end at Ctrl-C.
"""

import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.runner import start

CLIENTS, EACH = 50, 10
# for /health under load
ALLOWED_SECONDS = 2


def main() -> None:
    import pandas as pd

    from benchmarks.speed.infer import save_models
    from benchmarks.studies.serve_load import clients
    from methods.standard_head.config import small

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoints = save_models(folder, small().model, (96, 128))
        files = clients.right_files(folder) | clients.wrong_files(clients.MEGABYTES * 1_000_000)
        empty = folder / "empty"
        (empty / "tmp").mkdir(parents=True)
        with clients.served(checkpoints, empty) as (process, port):
            alone = {name: clients.ask(port, name, data) for name, data in files.items()}
            over = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                watching = pool.submit(clients.watch, process.pid, port, over)
                began = time.perf_counter()
                try:
                    replies = clients.load(port, files, CLIENTS, EACH)
                finally:
                    over.set()
                seconds, looks = time.perf_counter() - began, watching.result()
            healthy = clients.ask(port, "predict 0", files["predict 0"]).status == 200
            process.send_signal(signal.SIGINT)
            ended = process.wait(timeout=60)
        left = [path.name for path in empty.rglob("*") if path.is_file()]
    counts = Counter(reply.status for reply in replies)
    print(f"answers      {len(replies)} of {CLIENTS} clients in {seconds:.1f} s: {dict(counts)}")
    kinds = [one.name.split()[0] if one.status == 200 else "wrong file" for one in replies]
    latency = pd.Series([reply.seconds for reply in replies]).groupby(kinds)
    print(f"seconds\n{latency.describe(percentiles=[0.5, 0.95]).round(2).to_string()}")
    slowest, peak = map(max, zip(*looks, strict=True))
    before = looks[0][1]
    print(f"/health      {len(looks)} answers meanwhile, slowest {slowest:.2f} s")
    print(f"memory       {before:,.0f} MB before, {peak:,.0f} MB at most (0 without /proc)")
    wrong = [reply for reply in replies if not clients.same(reply, alone[reply.name])]
    refused = [one for one in replies if one.name.startswith(clients.RIGHT) != (one.status == 200)]
    faults = {
        f"{len(wrong)} answers differ from those to one client ({wrong[:1]})": wrong,
        "a valid file was refused, or an invalid one accepted": refused,
        "the process failed afterwards": not healthy,
        f"it ended with {ended}": ended != 130,
        f"it wrote {left}": left,
        # eight files of the largest size, and the decoding of one
        "it used too much memory": peak - before > 8 * clients.MEGABYTES + 300,
        "/health was too slow": slowest > ALLOWED_SECONDS,
    }
    found = "; ".join(fault for fault, there in faults.items() if there)
    print(f"MISSED       {found}" if found else "ok           all equal, no file written")
    sys.exit(bool(found))


if __name__ == "__main__":
    start(main, __doc__)
