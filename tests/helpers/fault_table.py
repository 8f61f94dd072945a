"""Summary table of the fault tests: printed at the end, written to the file of `--table`.

A test has the marker `fault(name, tried=1)` or takes the fixture of that name. One that fails
counts as one loss in each of its rows, and one that fails without a row, or does not begin, in a
row of its own. `--soak` is the long form of the same tests: more kills, more hostile inputs, and
the tests with the marker `soak`. The page keeps whole soaks alone: none of some tests (`-k`, `-x`),
nor one that Ctrl-C ended.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import pluralize

BEGIN, END = "<!-- the last `make soak` -->\n", "<!-- end -->\n"
_KEY, _OTHER = "fault", "tests without a row, or that did not begin"

Fault = Callable[[str, int], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="the long form of the tests of faults and hostile files"
    )
    parser.addoption("--table", type=Path, help="a page that is to hold the table of faults")


def read_markers(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of the long form in the short one, and record the rows of markers."""
    for item in items:
        if item.get_closest_marker("soak") and not config.getoption("--soak"):
            item.add_marker(pytest.mark.skip(reason="in the long form"))
        for marker in item.iter_markers("fault"):
            item.user_properties.append((_KEY, [marker.args[0], marker.kwargs.get("tried", 1)]))


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether the long form (`--soak`) runs."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture
def fault(record_property: Callable[[str, object], None]) -> Fault:
    """`fault(name, tried)` before trying: the row of the table, and how many tries these are."""
    return lambda name, tried: record_property(_KEY, [name, tried])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode
) -> None:
    tried: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            # what a test recorded comes again with its teardown
            recorded = report.user_properties if report.when == "call" else []
            rows = [value for key, value in recorded if key == _KEY]
            for name, number in rows:
                tried[name] += number
            if outcome != "passed":
                lost.update({name for name, _ in rows} or {_OTHER})
    if not tried:
        return
    rows = [f"| {name} | {tried[name]:,} | {lost[name]:,} |" for name in sorted(tried | lost)]
    rows.append(f"| **all** | **{tried.total():,}** | **{lost.total():,}** |")
    table = "\n".join(["| fault | tried | lost |", "| --- | --- | --- |", *rows]) + "\n"
    reasons = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    for reason, number in sorted(reasons.items()):
        left_out = pluralize(number, "test was", "tests were")
        table += f"\n{left_out} left out: {reason.removeprefix('Skipped: ')}.\n"
    terminalreporter.write_sep("-", "faults")
    terminalreporter.write(table)
    option = terminalreporter.config.getoption
    page = option("--table")
    in_part = any(option(name, None) for name in ("keyword", "deselect", "lf", "maxfail"))
    ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if page is not None and option("--soak") and ended and not in_part:
        before, rest = page.read_text(encoding="utf-8").split(BEGIN)
        page.write_text(before + BEGIN + table + END + rest.split(END)[1], encoding="utf-8")
