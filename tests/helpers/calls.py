"""What a command answers to some arguments: its output, or the sentence by which it refuses."""

from collections.abc import Callable

Command = Callable[..., tuple[int, str, str]]


def done(command: Command, *arguments: object) -> str:
    """What it prints, where it ends well."""
    code, printed, error = command(*arguments)
    assert code == 0, error
    return printed


def refusal(command: Command, *arguments: object) -> str:
    """The one sentence."""
    code, _, error = command(*arguments)
    assert (code, error[:7], error.count("\n")) == (2, "error: ", 1), (arguments, error)
    return error
