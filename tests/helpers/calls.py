"""Output or error message of a command."""

from collections.abc import Callable

Command = Callable[..., tuple[int, str, str]]


def output_of(command: Command, *arguments: object) -> str:
    """Output of a command that must succeed."""
    code, printed, error = command(*arguments)
    assert code == 0, error
    return printed


def refusal(command: Command, *arguments: object) -> str:
    """Error message (one line) of a command that must fail with exit code 2."""
    code, _, error = command(*arguments)
    assert (code, error[:7], error.count("\n")) == (2, "error: ", 1), (arguments, error)
    return error
