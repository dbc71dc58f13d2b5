"""Jobs in threads: the only module that starts any."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils.notifications import notification_manager, show_warning
from qtpy.QtCore import QObject, Signal, Slot
from qtpy.QtWidgets import QWidget

from napari_shiftvae import garbage, loading, quiet
from napari_shiftvae.core.errors import (
    OUT_OF_MEMORY,
    Cancelled,
    InputError,
    Notice,
    is_out_of_memory,
    listening,
)
from napari_shiftvae.memory import give_back_memory

LONGEST_WAIT_S = 10.0
LOADING = "loading torch"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A job's result where the input was at fault: the sentence for the user."""

    sentence: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A job's result where something else went wrong."""

    error: Exception


class _Named(functools.partial):  # type: ignore[type-arg]
    """A job whose name napari shows when it asks whether to close in spite of it."""

    title: str

    def __str__(self) -> str:
        return self.title


class _Worker(GeneratorWorker):
    """Ends its job in the job's own thread, at once, and hears there what the job tells the user.

    When napari tells a worker to quit, as it does when its window closes, the generator is left to
    the garbage collector: whatever it does on closing, such as saving, comes late or never.
    """

    job: Generator[Any, Any, Any]
    end: type[BaseException] = GeneratorExit

    def work(self) -> Any:
        """Run the job; called in the thread."""
        with quiet.in_job(), listening(lambda sentence: self.warned.emit((sentence, Notice))):
            result = super().work()
        if self.abort_requested:
            with suppress(GeneratorExit, Cancelled, StopIteration):
                self.job.throw(self.end())
        give_back_memory()
        return result


def _running(job: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    return (yield from job)


def _guarded(job: Callable[..., Any], arguments: tuple[Any, ...]) -> Generator[Any, Any, Any]:
    """Run a function or a generator to its result, whatever happens.

    No exception gets out: napari's worker takes any RuntimeError for a deleted widget and goes
    silent (torch raises RuntimeError for nearly everything), and under PySide6 its own handler of
    errors fails.
    """
    try:
        result = job(*arguments)
        if isinstance(result, Generator):
            result = yield from result
        else:
            yield None
    except InputError as error:
        return Refused(sentence=str(error))
    except Exception as error:  # noqa: BLE001 - shown to the user by who started the job
        if is_out_of_memory(error):
            return Refused(sentence=OUT_OF_MEMORY)
        return Failed(error=error)
    return result


def load_ahead() -> None:
    """Load torch in a thread, so that the first analysis need not wait for it."""
    if not loading.is_loaded():
        threading.Thread(target=loading.load_torch, name=LOADING).start()


def one_thread(title: str) -> Executor:
    """Make a thread for what is done beside a job; it starts when there is something to do."""
    return ThreadPoolExecutor(1, thread_name_prefix=title)


class Runner(QObject):
    """Runs one job at a time in a thread of napari's pool.

    A job is a function, or a generator whose values are progress and whose return value is the
    result. All signals arrive in the main thread, `ended` always and last. What fails is shown by
    napari with its traceback, as it is a defect; what is refused is not.
    """

    progressed = Signal(object)
    succeeded = Signal(object)
    refused = Signal(str)
    failed = Signal(object)
    ended = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._worker: GeneratorWorker | None = None
        self._has_yielded = False
        self._held: object = None
        self._buttons: tuple[QWidget, ...] = ()

    def disable_meanwhile(self, *buttons: QWidget) -> None:
        """Disable what starts jobs while one is at work."""
        self._buttons = buttons

    @property
    def busy(self) -> bool:
        """Whether a job is at work."""
        return self._worker is not None

    def start(self, title: str, job: Callable[..., Any], *arguments: Any) -> None:
        """Start a job.

        Parameters
        ----------
        title : str
            What napari says is at work when its window is closed meanwhile.
        job : callable
            Function or generator function, called with the arguments in the thread.
        """
        if self.busy:
            raise ValueError(f"'{title}' cannot start: a job is at work; stop it first")
        guarded = _guarded(job, arguments)
        named = _Named(_running, guarded)
        named.title = title
        worker = create_worker(
            named, _start_thread=False, _ignore_errors=True, _worker_class=_Worker
        )
        worker.job = guarded
        worker.warned.connect(self._on_warned)
        worker.yielded.connect(self._on_yielded)
        worker.returned.connect(self._on_returned)
        worker.finished.connect(self._on_finished)
        self._worker, self._has_yielded, self._held = worker, False, None
        for one in self._buttons:
            one.setEnabled(False)
        garbage.put_off()
        quiet.begin()
        worker.start()

    def send(self, value: object) -> None:
        """Give the job's generator a value, the next time it yields."""
        if self._has_yielded and self._worker is not None:
            self._worker.send(value)
        else:
            self._held = value  # a generator that has not begun takes none

    def cancel(self) -> None:
        """End the job at its next yield, without a result and without a trace."""
        if self._worker is not None:
            self._worker.end = Cancelled
            self._worker.quit()

    def close(self) -> None:
        """Cancel the job and wait for its thread; for when the dock goes."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        garbage.allow()
        worker.quit()
        give_up = time.monotonic() + LONGEST_WAIT_S
        while worker.is_running and time.monotonic() < give_up:
            time.sleep(0.005)
        quiet.end()

    @Slot(object)
    def _on_yielded(self, value: object) -> None:
        self._has_yielded = True
        if self._held is not None:
            held, self._held = self._held, None
            self.send(held)
        if value is not None and self.busy:
            self.progressed.emit(value)

    @Slot(object)
    def _on_returned(self, result: object) -> None:
        if not self.busy:
            return
        if isinstance(result, Refused):
            self.refused.emit(result.sentence)
        elif isinstance(result, Failed):
            error = result.error
            notification_manager.receive_error(type(error), error, error.__traceback__)
            self.failed.emit(error)
        else:
            self.succeeded.emit(result)

    @Slot(object)
    def _on_warned(self, warning: tuple[Any, ...]) -> None:
        show_warning(warning[0])

    @Slot()
    def _on_finished(self) -> None:
        if self.busy:
            self._worker = None
            for one in self._buttons:
                one.setEnabled(True)
            quiet.end()
            self.ended.emit()
            garbage.allow()


class Latest(QObject):
    """Runs a job with the newest arguments only: what was asked meanwhile waits, once.

    What came of older arguments is not told.
    """

    succeeded = Signal(object)
    refused = Signal(str)
    failed = Signal(object)

    def __init__(self, title: str, job: Callable[..., Any], parent: QObject) -> None:
        super().__init__(parent)
        self._title = title
        self._job = job
        self._waiting: tuple[Any, ...] | None = None
        self.runner = Runner(self)
        self.runner.succeeded.connect(self._on_success)
        self.runner.refused.connect(self._on_refused)
        self.runner.failed.connect(self._on_failed)
        self.runner.ended.connect(self._on_ended)

    def ask(self, *arguments: Any) -> None:
        """Run the job as soon as the thread is free."""
        if self.runner.busy:
            self._waiting = arguments
        else:
            self.runner.start(self._title, self._job, *arguments)

    def close(self) -> None:
        """End the thread."""
        self._waiting = None
        self.runner.close()

    def _on_success(self, result: object) -> None:
        if self._waiting is None:
            self.succeeded.emit(result)

    def _on_refused(self, sentence: str) -> None:
        if self._waiting is None:
            self.refused.emit(sentence)

    def _on_failed(self, error: object) -> None:
        if self._waiting is None:
            self.failed.emit(error)

    def _on_ended(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.ask(*waiting)
