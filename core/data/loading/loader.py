"""DataLoader that reports lost workers as UserError, and ends all its workers."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.util import get_temp_dir
from traceback import clear_frames
from typing import Any, Self

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from core.errors import UserError, doctor_hint
from core.runtime.worker_failures import explain_failed_start, explain_lost_worker

# seconds for a process to exit after it has closed its files
_EXIT_TIMEOUT = 5.0
_check_workers = signal_handling._error_if_any_worker_fails


def _raise_once() -> None:
    """Raise RuntimeError for the first worker that ended; ignore those that end after it."""
    try:
        _check_workers()
    except RuntimeError:
        _reset_handler()
        before = sys.unraisablehook

        def hide_loss(error: Any) -> None:
            # raised in a destructor: the next batch reports the lost worker
            if error.exc_value is None or explain_lost_worker(error.exc_value) is None:
                before(error)

        sys.unraisablehook = hide_loss
        raise


def _reset_handler() -> None:
    if not hasattr(signal, "SIGCHLD"):
        return
    # signal handlers can only be set in the main thread
    with suppress(ValueError):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # the next loader sets it again
        signal_handling._SIGCHLD_handler_set = False


# called by PyTorch's SIGCHLD handler
signal_handling._error_if_any_worker_fails = _raise_once


class DecodingLoader(DataLoader):
    """DataLoader. Raises UserError for unreadable images, and if workers cannot start or crash."""

    constant: np.ndarray | None = None
    """(N,) bool, by row of the table: blank images read so far"""
    digests: np.ndarray | None = None
    """(N,) int64, by row of the table: digests of the images read so far"""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                does = "with the same data flags, or --config, names all such images"
                raise UserError(doctor_hint(does, " --full", after=str(batch))) from batch
            if self.constant is not None:
                self.constant[batch.rows[batch.constant].numpy()] = True
            if self.digests is not None:
                rows = batch.rows.numpy()
                self.digests[rows[rows >= 0]] = batch.digests.numpy()[rows >= 0]
            yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers that are kept between iterations; `at_once`: also in a batch.

        The garbage collector closes their queues first, and then waits five seconds for each.
        """
        iterator, self._iterator = self._iterator, None
        if not isinstance(iterator, _Batches):
            return
        iterator._unregister()
        if at_once and not iterator._shutdown:
            iterator._kill_workers()
        else:
            iterator._shutdown_workers()

    def _get_iterator(self) -> _BaseDataLoaderIter:
        if not self.num_workers:
            return super()._get_iterator()
        # for files passed by workers; this process deletes it even if they crash
        get_temp_dir()
        return _Batches(self)


class _Batches(_MultiProcessingDataLoaderIter):
    """Batch iterator of a loader with workers."""

    # values until PyTorch has started workers
    _shutdown, _worker_pids_set = True, False
    _workers: list[Any] = []  # noqa: RUF012, never changed

    def __init__(self, loader: DataLoader) -> None:
        try:
            super().__init__(loader)
        except (OSError, RuntimeError, MemoryError, ImportError) as error:
            explained = explain_lost_worker(error, self._exit_codes()) or explain_failed_start(
                error
            )
            self._kill_workers()
            clear_frames(error.__traceback__)
            if explained is None:
                raise
            raise explained from error

    def _next_data(self) -> Any:
        with self._raise_worker_errors():
            return super()._next_data()

    def _reset(self, loader: DataLoader, first_iter: bool = False) -> None:
        with self._raise_worker_errors():
            super()._reset(loader, first_iter)

    @contextmanager
    def _raise_worker_errors(self) -> Iterator[None]:
        """Raise UserError if a worker crashed."""
        try:
            yield
        except (OSError, RuntimeError, MemoryError, EOFError) as error:
            if isinstance(error, (EOFError, ConnectionError)):
                # its connection closes before it exits
                self._unregister()
                ended = wait([worker.sentinel for worker in self._workers], _EXIT_TIMEOUT)
                for worker in self._workers:
                    if worker.sentinel in ended:
                        # the exit code is available a moment after its files are closed
                        worker.join()
            explained = explain_lost_worker(error, self._exit_codes())
            if explained is None:
                raise
            self._kill_workers()
            clear_frames(error.__traceback__)
            raise explained from error

    def _exit_codes(self) -> tuple[int, ...]:
        return tuple(worker.exitcode for worker in self._workers if worker.exitcode)

    def _unregister(self) -> None:
        """Stop PyTorch from raising errors for these workers."""
        if self._worker_pids_set:
            signal_handling._remove_worker_pids(id(self))
            self._worker_pids_set = False

    def _kill_workers(self) -> None:
        """Kill the workers: a regular shutdown may wait for a lock held by a crashed one."""
        self._shutdown = True
        _reset_handler()
        self._unregister()
        if hasattr(self, "_pin_memory_thread"):
            self._pin_memory_thread_done_event.set()
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()
        # frees their open files, which the exit of the program may need
        vars(self).pop("_worker_result_queue", None)
        self._workers, self._index_queues = [], []

    def _shutdown_workers(self) -> None:
        # after an error in another place
        if not self._shutdown and not sys.is_finalizing() and self._exit_codes():
            self._kill_workers()
        else:
            super()._shutdown_workers()
