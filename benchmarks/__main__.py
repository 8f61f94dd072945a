"""Run benchmarks, and print each measurement against a limit or a peer.

python -m benchmarks [name ...] [--json FILE]
"""

import importlib
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks.runner import HEADER, Answer, real_data, start
from core.io.atomic import check_writable, write_atomically

# files of `benchmarks/speed`, each with a function `answers(folder)`
QUESTIONS = (
    *("loader", "step", "infer", "metrics", "split", "startup"),
    *("pack", "wait", "sampler", "memory", "precision"),
)


def main(names: list[str], json_file: Path | None) -> None:
    """Print the table, and write it as JSON with --json; exit code 1 where a bound is missed."""
    if json_file is not None:
        check_writable(json_file, (), "--json")
    if real_data() is None:
        print("no real data (set CXR_REAL_DATA): questions on it are skipped", file=sys.stderr)
    out = sys.stdout
    print(HEADER, file=out)
    answers: list[Answer] = []
    for name in names:
        module = importlib.import_module(f"benchmarks.speed.{name}")
        # the measured code prints to stderr, the table to stdout
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
            for answer in module.answers(Path(folder)):
                answers.append(answer)
                print(answer, file=out, flush=True)
    if json_file is not None:
        text = json.dumps([answer.record() for answer in answers], indent=2, allow_nan=False)
        write_atomically(json_file, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    sys.exit(int(any(answer.verdict == "MISSED" for answer in answers)))


if __name__ == "__main__":
    start(main, __doc__, QUESTIONS, with_json=True)
