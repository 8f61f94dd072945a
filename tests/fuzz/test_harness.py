"""Each kind of breach is noticed; else the fuzzing would show nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.fuzz.harness import Watched


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("harness"), ["forbidden_calls"], most_memory=2**28) as one:
        yield one


def kinds(watched: Watched, function: str, *inputs: list) -> list[str]:
    outcomes = watched.call(f"forbidden_calls:{function}", inputs, longest=5)
    return [outcome.kind for outcome in outcomes]


def test_what_ends_well(watched: Watched) -> None:
    (outcome,) = watched.call("forbidden_calls:well", [[str(watched.out)]])
    assert (outcome.kind, outcome.text) == ("ok", "done\n")
    (outcome,) = watched.call("forbidden_calls:refuse", [["a.csv has no header"]])
    assert (outcome.kind, outcome.text) == ("refused", "error: a.csv has no header\n")


@pytest.mark.parametrize("sentence", ["", "two\nlines", "long " * 300])
def test_what_is_no_sentence(watched: Watched, sentence: str) -> None:
    assert kinds(watched, "exit_with", [2, "fine"], [2, sentence]) == ["refused", "traceback"]


def test_a_sentence_that_would_steer_the_terminal(watched: Watched) -> None:
    assert kinds(watched, "exit_with", [2, "a\x1b[2Jb"], [2, "\u202egnp"]) == ["traceback"] * 2


def test_what_is_raised_or_exits_otherwise(watched: Watched) -> None:
    (outcome,) = watched.call("forbidden_calls:fail", [[]])
    assert outcome.kind == "traceback"
    assert "KeyError: 'nobody catches this'" in outcome.text
    assert kinds(watched, "exit_with", [1, "fine"]) == ["traceback"]


def test_the_rest_goes_on_after_a_hang_and_a_crash(watched: Watched) -> None:
    outcomes = watched.call("forbidden_calls:hang", [[]], longest=0.5)
    assert [outcome.kind for outcome in outcomes] == ["hang"]
    assert kinds(watched, "crash", [], []) == ["crash", "crash"]
    assert kinds(watched, "exit_with", [2, "one"], [2, "two"]) == ["refused", "refused"]


def test_memory(watched: Watched) -> None:
    assert kinds(watched, "fill", [0.1], [0.3], [0.1]) == ["ok", "memory", "ok"]
    assert kinds(watched, "fill", [2]) == ["memory"]


@pytest.mark.parametrize("name", ["work/a.txt", "out/../b.txt", "out.txt", "out/link/c.txt"])
def test_a_write_outside_is_noticed_and_does_not_happen(watched: Watched, name: str) -> None:
    link = watched.out / "link"
    if not link.is_symlink():
        link.symlink_to(watched.work)
    before = set(watched.folder.rglob("*"))
    assert kinds(watched, "write", [str(watched.folder / name)]) == ["outside"]
    assert set(watched.folder.rglob("*")) == before
    link.unlink()


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


@pytest.mark.parametrize("function", ["spawn", "unpack_objects", "connect"])
def test_code_processes_and_connections(watched: Watched, function: str) -> None:
    assert kinds(watched, function, [], []) == ["code", "code"]


def test_text_that_is_run(watched: Watched, tmp_path: Path) -> None:
    assert kinds(watched, "evaluate", ["1 + 1"]) == ["code"]
    (tmp_path / "stranger.py").write_text("x = 1\n")
    assert kinds(watched, "import_from", [str(tmp_path)]) == ["code"]
