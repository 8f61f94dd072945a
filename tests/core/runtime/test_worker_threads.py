"""Errors in the threads of a loader worker."""

import sys
import threading
from multiprocessing.queues import Queue
from typing import Any

import pytest

from core.runtime.worker_failures import exit_on_shortage


@pytest.mark.parametrize(("error", "printed"), [(ConnectionResetError(), 0), (ValueError(), 1)])
def test_a_closed_connection_is_not_printed_by_a_thread(
    error: Exception, printed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training process that closed it reports why."""
    feeder: Any = Queue
    monkeypatch.setattr(feeder, "_on_queue_feeder_error", feeder._on_queue_feeder_error)
    shown: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda *given: shown.append(given[1]))
    exit_on_shortage()
    given = type(error), error, None
    thread = threading.Thread(target=sys.excepthook, args=given)
    thread.start()
    thread.join()
    assert len(shown) == printed
    sys.excepthook(*given)
    assert shown[printed:] == [error]
