"""Draws what nobody sees only once it is seen."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget


class WhenSeen(QObject):
    """Calls a function at once where a widget is visible, else when it is shown.

    Parameters
    ----------
    widget : QWidget
        What is drawn, such as a plot in a tab.
    draw : callable
        However often it was asked for meanwhile, it is called once.
    """

    def __init__(self, widget: QWidget, draw: Callable[[], None]) -> None:
        super().__init__(widget)
        self._widget = widget
        self._draw = draw
        self._waiting = False
        widget.installEventFilter(self)

    def __call__(self) -> None:
        """Draw now or later."""
        self._waiting = not self._widget.isVisible()
        if not self._waiting:
            self._draw()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Draw what has waited, before it is painted."""
        shown = event is not None and event.type() == QEvent.Type.Show
        if shown and watched is self._widget and self._waiting:
            self._waiting = False
            self._draw()
        return False
