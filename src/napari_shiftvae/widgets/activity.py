"""A bar in napari's activity dock, with Cancel."""

from __future__ import annotations

from contextlib import suppress

from napari.utils import cancelable_progress
from qtpy.QtCore import QObject, QTimer, Signal

LOOK_EVERY_MS = 200


class ActivityBar(QObject):
    """Shows how far a job is in napari's activity dock; `cancelled` is for its Cancel."""

    cancelled = Signal()
    made = Signal()  # the bar, with which napari's sign of activity begins to move

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._bar: cancelable_progress | None = None
        self._title: str | None = None  # of the job that is at work
        self._percent = 0
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self._look)

    def start(self, title: str) -> None:
        """Show a new bar, soon: napari paints the whole window before it has one."""
        self._percent, self._title = 0, title
        self._timer.start()

    def show(self, fraction: float) -> None:
        """Say how much is done, from 0 to 1."""
        self._percent = int(100 * fraction)

    def end(self) -> None:
        """Take the bar away; also after Qt has deleted this object."""
        self._title = None
        with suppress(RuntimeError):
            self._timer.stop()
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _look(self) -> None:
        """Look at the bar: its Cancel button tells nobody."""
        bar = self._bar
        if bar is None:
            self._make()
            return
        if self._percent != bar.n:
            bar.update(self._percent - bar.n)
        if bar.is_canceled:
            self.cancelled.emit()

    def _make(self) -> None:
        """Make the bar, which the job may not live to see: napari handles events meanwhile."""
        title = self._title
        self._timer.stop()
        bar = cancelable_progress(total=100, desc=f"Shift-VAE: {title}")
        if self._title is None:
            bar.close()
            return
        self._bar = bar
        self._timer.start()
        self.made.emit()
