"""The command of this process, to be given again."""

import shlex
import sys
from collections.abc import Collection, Sequence


def command_again(
    program: Sequence[str],
    unwanted: Collection[str] = ("--overwrite",),
    more: Sequence[str] = (),
) -> str:
    """`program`, the words after the first of this command but those unwanted, and `more`.

    For a shell. What would delete files is unwanted.
    """
    words = [word for word in sys.argv[1:] if word not in unwanted]
    return shlex.join([*program, *words, *more])
