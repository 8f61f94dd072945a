"""The project's log: streams, ranks, and use from an application."""

import subprocess
import sys

import pytest

from core.runtime.log import logger, start_logging
from tests.helpers.training.small_run import ROOT


def test_results_go_to_stdout_and_errors_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    # a process may run several commands
    start_logging(is_main=True)
    logger.info("100 % of a line")
    logger.warning("Warning: open")
    logger.error("error: wrong")
    assert capsys.readouterr() == ("100 % of a line\n", "Warning: open\nerror: wrong\n")


def test_other_ranks_print_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    start_logging(is_main=False)
    logger.info("line of each rank")
    logger.error("error: a rank was lost")
    assert capsys.readouterr() == ("", "error: a rank was lost\n")


def test_an_application_gets_the_lines_by_its_own_logging(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.handlers.clear()
    start_logging(is_main=True)
    logger.info("one \udcff line")
    assert caplog.messages == ["one \\udcff line"]
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_raises() -> None:
    code = "from core.runtime.log import *; start_logging(is_main=True); logger.info('x')"
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ended.returncode == 1
    assert b"No space left" in ended.stderr
