"""Output and exit codes of `python -m benchmarks`."""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import benchmarks.speed
from benchmarks import __main__ as command
from benchmarks import runner
from benchmarks.runner import Answer, alternate, medians, seconds, start, timed
from tests.conftest import Call


@pytest.mark.parametrize(
    ("measured", "bound", "verdict"),
    [
        (4.0, {"ceiling": 2}, "ok"),
        (4.1, {"ceiling": 2}, "MISSED"),
        (3.9, {"floor": 2}, "MISSED"),
        (4.0, {"floor": 2}, "ok"),
        (4.1, {}, None),
        (float("nan"), {"ceiling": 2}, "MISSED"),
        (float("nan"), {"floor": 2}, "MISSED"),
    ],
)
def test_the_verdict_is_on_measured_over_reference(
    measured: float, bound: dict[str, float], verdict: str | None
) -> None:
    answer = Answer("speed", "s", "peer", measured, 2.0, **bound)
    assert answer.ratio == pytest.approx(measured / 2, nan_ok=True)
    assert answer.verdict == verdict
    assert str(answer).endswith(("ok", "MISSED")) == (verdict is not None)


def test_works_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []
    measured = {"one": iter([900.0, 3.0, 1.0, 2.0]), "two": iter([0.0, 5.0, 7.0, 30.0])}

    def work(name: str) -> float:
        order.append(name)
        return next(measured[name])

    works = {name: partial(work, name) for name in measured}
    assert medians(works, repeats=3) == {"one": 2, "two": 7}
    assert order == ["one", "two"] * 4


def test_seconds_are_read_off_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took = 0.0, iter([50.0, 1.0, 50.0, 1.0, 9.0, 2.0, 6.0, 5.0])

    def work() -> None:
        nonlocal now
        now += next(took)

    monkeypatch.setattr(runner.time, "perf_counter", lambda: now)
    assert timed(work, calls=2)() == 25.5
    assert seconds(work) == 5


def test_alternate_returns_the_round_of_the_median_ratio() -> None:
    # the medians of both sides alone would give 12 / 20; the first round is not counted
    ours, peer = iter([9.0, 8, 30, 12]), iter([10.0, 10, 30, 20])
    assert alternate(lambda: next(ours), lambda: next(peer), repeats=3) == (8, 10)


def fine(_: Path) -> Iterator[Answer]:
    print("measured code talks")
    yield Answer("speed", "images/s", "peer", 3.0, 2.0, floor=0.95)
    yield Answer("a part", "ms", "whole", 1.0, 4000.0)


def slow(_: Path) -> Iterator[Answer]:
    yield Answer.limited("time", "s", 3.0, 2.0)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, call: Call) -> Call:
    """Runs the command with the questions `fine` and `slow`: (exit code, stdout, stderr)."""
    questions = {"fine": fine, "slow": slow}
    for name, answers in questions.items():
        module = SimpleNamespace(answers=answers)
        monkeypatch.setitem(sys.modules, f"benchmarks.speed.{name}", module)
    main = partial(start, command.main, command.__doc__, questions, with_json=True)
    return partial(call, main)


def test_a_line_and_an_object_an_answer(ask: Call, tmp_path: Path) -> None:
    code, out, error = ask("--json", str(tmp_path / "table.json"), "fine")
    header, speed, part = out.splitlines()
    assert code == 0
    assert header.split() == ["question", "measured", "against", "ratio", "bound"]
    assert speed.split() == ["speed", "3", "images/s", "peer", "2", "1.5", ">=", "0.95", "ok"]
    assert part.split() == ["a", "part", "1", "ms", "whole", "4,000", "0.00025"]
    assert "measured code talks" in error
    first, second = json.loads((tmp_path / "table.json").read_text())
    assert first == {
        "question": "speed",
        "measured": 3.0,
        "unit": "images/s",
        "against": "peer",
        "reference": 2.0,
        "ratio": 1.5,
        "floor": 0.95,
        "ceiling": None,
        "verdict": "ok",
    }
    assert list(second) == list(first)
    assert second["verdict"] is None


@pytest.mark.parametrize("arguments", [(), ("slow",), ("fine", "--json", "F", "slow")])
def test_a_missed_bound_is_exit_code_1(
    ask: Call, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = ask(*arguments)
    assert (tmp_path / "F").exists() == ("F" in arguments)
    assert code == 1
    assert ("speed" in out) == (arguments != ("slow",))
    assert "MISSED" in out


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("slwo", "invalid choice: 'slwo'"),
        ("--jsno", "unrecognized arguments: --jsno"),
        ("--json=.", "error: . cannot be written: it is a folder, or lies below a file"),
    ],
)
def test_what_is_not_known_is_refused_before_anything_is_measured(
    ask: Call, argument: str, sentence: str
) -> None:
    code, out, error = ask("fine", argument)
    assert (code, out) == (2, "")
    assert sentence in error
    assert "measured code talks" not in error


@pytest.mark.parametrize(
    ("given", "chosen"), [((), ["fine", "slow"]), (("rare",), ["rare"]), (("slow",), ["slow"])]
)
def test_extra_questions_are_asked_only_by_name(
    call: Call, given: tuple[str, ...], chosen: list[str]
) -> None:
    asked: list[str] = []
    main = partial(start, asked.extend, None, ("fine", "slow"), extra=("rare",))
    assert call(main, *given)[0] == 0
    assert asked == chosen


def test_every_question_has_a_file_that_answers_it() -> None:
    files = {path.stem for path in Path(benchmarks.speed.__file__).parent.glob("[a-z]*")}
    assert files == {*command.QUESTIONS, *command.EXTRA}
    for name in files:
        module = importlib.import_module(f"benchmarks.speed.{name}")
        assert inspect.isgeneratorfunction(module.answers)
