"""Detection of each kind of forbidden action by the fuzzing harness."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fuzz.harness import Watched


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("harness"), ["forbidden_calls"], most_memory=2**28) as one:
        yield one


def kinds(watched: Watched, function: str, *inputs: list[Any], longest: float = 5) -> list[str]:
    outcomes = watched.call(f"forbidden_calls:{function}", inputs, longest=longest)
    return [outcome.kind for outcome in outcomes]


# function of forbidden_calls.py: arguments of each call, and how it ends
CALLS: list[tuple[str, list[list[Any]], list[str]]] = [
    ("exit_with", [[2, "fine"], [2, ""]], ["refused", "traceback"]),
    ("exit_with", [[2, "fine"], [2, "two\nlines"]], ["refused", "traceback"]),
    ("exit_with", [[2, "fine"], [2, "long " * 300]], ["refused", "traceback"]),
    ("exit_with", [[2, "a\x1b[2Jb"], [2, "\u202egnp"]], ["traceback"] * 2),
    ("exit_with", [[1, "fine"]], ["traceback"]),
    ("crash", [[], []], ["crash"] * 2),
    ("fill", [[0.1], [0.3], [0.1]], ["ok", "memory", "ok"]),
    ("fill", [[2]], ["memory"]),
    ("spawn", [[], []], ["code"] * 2),
    ("unpack_objects", [[], []], ["code"] * 2),
    ("connect", [[], []], ["code"] * 2),
    ("evaluate", [["1 + 1"]], ["code"]),
]


@pytest.mark.parametrize(("function", "inputs", "ends"), CALLS)
def test_how_calls_end(
    watched: Watched, function: str, inputs: list[list[Any]], ends: list[str]
) -> None:
    assert kinds(watched, function, *inputs) == ends


def test_printed_text_is_reported(watched: Watched) -> None:
    for function, argument, kind, text in (
        ("well", [str(watched.out)], "ok", "done\n"),
        ("refuse", ["a.csv has no header"], "refused", "error: a.csv has no header\n"),
        ("fail", [], "traceback", "KeyError: 'not caught'\n"),
    ):
        (outcome,) = watched.call(f"forbidden_calls:{function}", [argument])
        assert (outcome.kind, outcome.text[-len(text) :]) == (kind, text)


def test_the_rest_runs_after_a_hang(watched: Watched) -> None:
    assert kinds(watched, "hang", [], longest=0.5) == ["hang"]
    assert kinds(watched, "exit_with", [2, "one"], [2, "two"]) == ["refused", "refused"]


@pytest.mark.parametrize("name", ["work/a.txt", "out/../b.txt", "out.txt", "out/link/c.txt"])
def test_a_write_outside_is_noticed_and_does_not_happen(watched: Watched, name: str) -> None:
    (watched.out / "link").symlink_to(watched.work)
    before = set(watched.folder.rglob("*"))
    assert kinds(watched, "write", [str(watched.folder / name)]) == ["outside"]
    assert set(watched.folder.rglob("*")) == before
    (watched.out / "link").unlink()


def test_a_move_out_of_the_folder(watched: Watched) -> None:
    ours, others = watched.out / "a", watched.work / "b"
    assert kinds(watched, "move", [str(ours), str(others)]) == ["outside"]
    assert not others.exists()


def test_a_write_without_an_audit_event_is_seen_afterwards(watched: Watched) -> None:
    path = watched.work / "made in C"
    (outcome,) = watched.call("forbidden_calls:write_in_c", [[str(path)]])
    assert outcome.kind == "outside"
    assert str(path) in outcome.text or str(watched.work) in outcome.text
    path.unlink()


def test_a_module_beside_the_data(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text("x = 1\n")
    assert kinds(watched, "import_from", [str(tmp_path)]) == ["code"]
