"""Does `--help` answer at once?"""

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.runner import Answer, seconds


def answers() -> Iterator[Answer]:
    """Seconds of the whole process against 0.6 s."""
    command = [sys.executable, "methods/standard_head/train.py", "--help"]
    took = seconds(lambda: subprocess.run(command, capture_output=True, check=True))
    yield Answer("train.py --help", took, "limit", 0.6, "s", ceiling=1)
