"""Shows what is new only as often as painting allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication, QLabel, QWidget

# What changes in the window is painted so rarely that it takes at most this share of the main
# thread's time. Qt composes the whole window anew for each change: a few ms with a graphics card,
# 20 to 100 ms where the processor has to draw, which then is missed by what is computed.
SHARE = 0.02
AT_LEAST_S = 0.1


class Pace(QObject):
    """Has the newest of what is offered shown, and the rest left out.

    Parameters
    ----------
    show : callable
        Called with the newest offer.
    widget : QWidget
        Its window is what is painted.
    """

    def __init__(self, show: Callable[[Any], None], widget: QWidget) -> None:
        super().__init__(widget)
        self._show = show
        self._widget = widget
        self._waiting: list[Any] = []
        self._next = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.catch_up)

    def offer(self, new: Any) -> None:
        """Have something shown as soon as it is time, unless something newer comes before."""
        self._waiting = [new]
        if not self._timer.isActive():
            self._timer.start(max(0, round(1e3 * (self._next - time.perf_counter()))))

    def catch_up(self) -> None:
        """Show what waits now."""
        self._timer.stop()
        if not self._waiting:
            return
        (new,), self._waiting = self._waiting, []
        began = time.perf_counter()
        self._show(new)
        # at once, not when Qt comes to it: so that it is known what it costs
        QApplication.sendEvent(self._widget.window(), QEvent(QEvent.Type.UpdateRequest))
        now = time.perf_counter()
        self._next = now + max(AT_LEAST_S, (now - began) / SHARE)

    def forget(self) -> None:
        """Show nothing of what waits."""
        self._waiting = []
        self._timer.stop()


def hold_still(window: QWidget) -> None:
    """Stop the moving pictures of a window; each of their 30 frames a second paints it anew."""
    for label in window.findChildren(QLabel):
        movie = label.movie()
        if movie is not None:
            movie.setPaused(True)
