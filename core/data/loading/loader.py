"""A DataLoader that raises a sentence where its workers are lost, and leaves none behind."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.util import get_temp_dir
from traceback import clear_frames
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from core.errors import UserError, doctor_hint
from core.runtime.worker_failures import cannot_start, lost_worker

# seconds in which a process that has closed its files is gone
_SOON = 5.0
_look = signal_handling._error_if_any_worker_fails


def _raise_once() -> None:
    """Raise RuntimeError for a worker that ended, and none for those that end after it."""
    try:
        _look()
    except RuntimeError:
        _look_no_more()
        before = sys.unraisablehook

        def hide_loss(error: Any) -> None:
            # where nothing can be raised: the next batch that is awaited will tell
            if error.exc_value is None or lost_worker(error.exc_value) is None:
                before(error)

        sys.unraisablehook = hide_loss
        raise


def _look_no_more() -> None:
    if not hasattr(signal, "SIGCHLD"):
        return
    # elsewhere than in the main thread nothing would be raised
    with suppress(ValueError):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # the next loader sets it again
        signal_handling._SIGCHLD_handler_set = False


# what PyTorch's handler of SIGCHLD calls
signal_handling._error_if_any_worker_fails = _raise_once


class DecodingLoader(DataLoader):
    """Raises UserError for an image's, and where workers cannot be started, or are lost."""

    constant: np.ndarray | None = None
    """(N,) bool, by row of the table: images of one grey level, as they are read"""
    digests: np.ndarray | None = None
    """(N,) int64, by row of the table: digests of the images, as they are read"""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                others = doctor_hint(
                    "with the same data flags, or --config, names all such images", " --full"
                )
                raise UserError(f"{str(batch).rstrip('.')}{others}") from batch
            if self.constant is not None:
                self.constant[batch.rows[batch.constant].numpy()] = True
            if self.digests is not None:
                rows = batch.rows.numpy()
                self.digests[rows[rows >= 0]] = batch.digests.numpy()[rows >= 0]
            yield batch

    def _get_iterator(self) -> _BaseDataLoaderIter:
        if not self.num_workers:
            return super()._get_iterator()
        # in it workers hand over files; it goes with this process, however they end
        get_temp_dir()
        return _Batches(self)


class _Batches(_MultiProcessingDataLoaderIter):
    """The batches of a loader with workers."""

    # as long as PyTorch has started nothing
    _shutdown, _worker_pids_set = True, False
    _workers: list[Any] = []  # noqa: RUF012, never changed

    def __init__(self, loader: DataLoader) -> None:
        try:
            super().__init__(loader)
        except (OSError, RuntimeError, MemoryError, ImportError) as error:
            told = lost_worker(error, self._exit_codes()) or cannot_start(error)
            self._abandon()
            clear_frames(error.__traceback__)
            if told is None:
                raise
            raise told from error

    def _next_data(self) -> Any:
        with self._explained():
            return super()._next_data()

    def _reset(self, loader: DataLoader, first_iter: bool = False) -> None:
        with self._explained():
            super()._reset(loader, first_iter)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise UserError where a worker is lost."""
        try:
            yield
        except (OSError, RuntimeError, MemoryError, EOFError) as error:
            if isinstance(error, (EOFError, ConnectionError)):
                # its end of a connection is closed before it is gone
                self._forget()
                ended = wait([worker.sentinel for worker in self._workers], _SOON)
                for worker in self._workers:
                    if worker.sentinel in ended:
                        # its exit code comes a moment after its files are closed
                        worker.join()
            told = lost_worker(error, self._exit_codes())
            if told is None:
                raise
            self._abandon()
            clear_frames(error.__traceback__)
            raise told from error

    def _exit_codes(self) -> tuple[int, ...]:
        return tuple(worker.exitcode for worker in self._workers if worker.exitcode)

    def _forget(self) -> None:
        """Let PyTorch raise nothing more for these workers."""
        if self._worker_pids_set:
            signal_handling._remove_worker_pids(id(self))
            self._worker_pids_set = False

    def _abandon(self) -> None:
        """Kill the workers: to end them in order waits for a lock that a lost one may hold."""
        self._shutdown = True
        _look_no_more()
        self._forget()
        if hasattr(self, "_pin_memory_thread"):
            self._pin_memory_thread_done_event.set()
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()
        # their files may be what the end of the program needs
        vars(self).pop("_worker_result_queue", None)
        self._workers, self._index_queues = [], []

    def _shutdown_workers(self) -> None:
        # of an error that came elsewhere
        if not self._shutdown and not sys.is_finalizing() and self._exit_codes():
            self._abandon()
        else:
            super()._shutdown_workers()
