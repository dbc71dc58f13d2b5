"""What a test of the dock has left behind: windows, threads, workers, timers."""

import gc
import sys
import threading
import weakref

import pytest
from napari.qt.threading import WorkerBase
from qtpy.QtCore import QCoreApplication, QEvent, QThreadPool, QTimer
from qtpy.QtWidgets import QApplication, QWidget

from napari_shiftvae import garbage
from napari_shiftvae.widgets.worker import LOADING

LONGEST_MS = 10_000
STAY = ("zarr_io", "asyncio_")  # threads of zarr, one pool for the whole process
MOST_ROUNDS = 4  # what holds another thing goes first


class LeftBehind:
    """Takes note of what is there; `check` fails where more is there afterwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._windows = _windows()
        self._threads = set(threading.enumerate())
        self._thresholds = gc.get_threshold()
        self._timers: list[tuple[weakref.ref[QTimer], str]] = []
        start = QTimer.start

        def noted_start(timer: QTimer, *arguments: int) -> None:
            module = sys._getframe(1).f_globals.get("__name__", "")
            if module.startswith("napari_shiftvae"):
                self._timers.append((weakref.ref(timer), module))
            start(timer, *arguments)

        monkeypatch.setattr(QTimer, "start", noted_start)

    def check(self) -> None:
        """Fail with the names of all that is left, once threads have had the time to end."""
        for thread in set(threading.enumerate()) - self._threads:
            if thread.name == LOADING:
                thread.join()  # which those of the pool may wait for
        assert QThreadPool.globalInstance().waitForDone(LONGEST_MS), "a thread of the pool is left"
        left: list[str] = []
        for _ in range(MOST_ROUNDS):
            QCoreApplication.processEvents()
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            left = self._left()
            if not left:
                break
            gc.collect()
        assert not left, "left behind: " + "; ".join(left)
        assert gc.get_threshold() == self._thresholds
        assert garbage._holders == 0

    def _left(self) -> list[str]:
        return [
            *(f"window {_describe(window)}" for window in _windows() - self._windows),
            *(f"thread {thread.name}" for thread in self._new_threads()),
            *(f"worker {worker}" for worker in WorkerBase._worker_set),
            *(f"timer of {module}" for timer, module in self._timers if _is_active(timer())),
        ]

    def _new_threads(self) -> set[threading.Thread]:
        # Qt's own threads look like dummies to Python, also after their end; those that count are
        # in the pool
        return {
            thread
            for thread in set(threading.enumerate()) - self._threads
            if not isinstance(thread, threading._DummyThread) and not thread.name.startswith(STAY)
        }


def _windows() -> set[QWidget]:
    return set(QApplication.topLevelWidgets())


def _describe(widget: QWidget) -> str:
    return f"{type(widget).__name__} {widget.objectName()!r} {widget.windowTitle()!r}"


def _is_active(timer: QTimer | None) -> bool:
    try:
        return timer is not None and timer.isActive()
    except RuntimeError:  # deleted
        return False
