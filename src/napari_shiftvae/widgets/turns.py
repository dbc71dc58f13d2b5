"""Does long work of the main thread in steps, between which the window lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

from napari_shiftvae import garbage

if TYPE_CHECKING:
    from collections.abc import Iterator

# From the end of a step to the next: what the first has changed is painted before the second. A
# timer that went on by itself would be due again at once after any longer step.
PAINT_MS = 10


class Turns(QObject):
    """Goes through an iterator, one step each time that Qt has nothing else to do."""

    ended = Signal()

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._steps: Iterator[None] | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAINT_MS)
        self._timer.timeout.connect(self._on_timer)

    @property
    def busy(self) -> bool:
        """Whether there are steps left."""
        return self._steps is not None

    def start(self, steps: Iterator[None]) -> None:
        """Go through the steps; `ended` comes after the last, or after one that failed."""
        self._steps = steps
        garbage.put_off()
        self._timer.start()

    def forget(self) -> None:
        """Leave the steps that are left undone."""
        if self._steps is not None:
            self._steps = None
            garbage.allow()
        self._timer.stop()

    def finish(self) -> None:
        """Go through the steps that are left at once."""
        while self._steps is not None:
            self._on_timer()

    def _on_timer(self) -> None:
        if self._steps is None:
            return
        goes_on = False
        try:
            goes_on = next(self._steps, self) is not self
        finally:
            if goes_on:
                self._timer.start()
            else:
                self.forget()
                self.ended.emit()
