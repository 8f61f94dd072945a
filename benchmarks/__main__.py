"""`python -m benchmarks [name ...]`: every question, or those of the named files, in one table."""

import sys

from benchmarks import help, memory, table
from benchmarks.runner import HEADER, real_data
from core.cli import run
from core.errors import UserError, nearest

QUESTIONS = {"help": help.answers, "table": table.answers, "memory": memory.answers}


def main() -> None:
    """Print the table; exit code 1 where a limit is missed."""
    names = sys.argv[1:] or list(QUESTIONS)
    for name in names:
        if name not in QUESTIONS:
            raise UserError(f"there is no benchmark '{name}'{nearest(name, QUESTIONS)}")
    if real_data() is None:
        print("no real data (set CXR_REAL_DATA): what needs it is left out")
    print(HEADER)
    missed = False
    for name in names:
        for answer in QUESTIONS[name]():
            print(answer, flush=True)
            missed |= answer.measured > answer.reference
    sys.exit(int(missed))


if __name__ == "__main__":
    run(main)
