"""A line of text that leaves the rest of the window alone."""

from __future__ import annotations

from qtpy.QtCore import QEvent
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLabel, QWidget


class MessageLine(QWidget):
    """Gives a label the width there is and the height it needs.

    In a layout, every new text of a label has the whole window laid out and painted anew, several
    times; here only one that needs another height has.

    Parameters
    ----------
    label : QLabel
        Its minimum height is kept.
    """

    def __init__(self, label: QLabel) -> None:
        super().__init__()
        self._label = label
        label.setParent(self)
        self._fit()

    def event(self, event: QEvent) -> bool:
        """Look at a new text."""
        handled = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest:
            self._fit()
        return bool(handled)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Wrap the text anew."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        least, needed = self._label.minimumHeight(), self._label.heightForWidth(self.width())
        height = max(least, needed)
        self._label.setGeometry(0, 0, self.width(), height)
        if height != self.height():
            self.setFixedHeight(height)
