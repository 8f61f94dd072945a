"""Run benchmarks, and print each measurement against a limit or a peer.

python -m benchmarks [name ...] [--json FILE]

Without names: all but gpu, which needs one, dry_run and peers, which take long.
"""

import importlib
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks.runner import HEADER, Answer, real_data, start
from core.io.atomic import check_writable, write_atomically

# files of `benchmarks/speed`, each with a function `answers(folder)`
QUESTIONS = (
    *("loader", "step", "infer", "metrics", "split", "startup"),
    *("pack", "wait", "sampler", "memory", "precision"),
)
# only by name; without real data
EXTRA = ("gpu", "dry_run", "peers")


def main(names: list[str], json_file: Path | None) -> None:
    """Print the table, and write it as JSON with --json; exit code 1 where a bound is missed.

    Raises UserError for a question that this machine cannot answer.
    """
    if json_file is not None:
        check_writable(json_file, (), "--json")
    modules = [importlib.import_module(f"benchmarks.speed.{name}") for name in names]
    for module in modules:
        if check := getattr(module, "check", None):
            check()
    if real_data() is None and {*names} - {*EXTRA}:
        print("no real data (set CXR_REAL_DATA): questions on it are skipped", file=sys.stderr)
    out = sys.stdout
    print(HEADER, file=out)
    answers: list[Answer] = []
    for name, module in zip(names, modules, strict=True):
        began = time.perf_counter()
        # the measured code prints to stderr, the table to stdout
        with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
            for answer in module.answers(Path(folder)):
                answers.append(answer)
                print(answer, file=out, flush=True)
                _write(answers, json_file)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    _write(answers, json_file)
    sys.exit(int(any(answer.verdict == "MISSED" for answer in answers)))


def _write(answers: list[Answer], path: Path | None) -> None:
    """Write the answers so far as JSON, unless `path` is None."""
    if path is not None:
        text = json.dumps([answer.record() for answer in answers], indent=2, allow_nan=False)
        write_atomically(path, lambda draft: draft.write_text(text + "\n", encoding="utf-8"))


if __name__ == "__main__":
    start(main, __doc__, QUESTIONS, with_json=True, extra=EXTRA)
