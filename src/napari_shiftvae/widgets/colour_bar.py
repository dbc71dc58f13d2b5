"""A colour bar: gradient, limits, what is shown and in which unit."""

from __future__ import annotations

import numpy as np
from napari.utils.colormaps import Colormap, ensure_colormap
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget


class ColourBar(QWidget):
    """Shows a colour map between two limits."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title = ""
        self._low, self._high = "", ""
        self._colours = np.zeros((0, 4))
        self.setFixedHeight(2 * self.fontMetrics().height() + 18)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_scale(self, title: str, colormap: str | Colormap, limits: tuple[float, float]) -> None:
        """Show another scale.

        Parameters
        ----------
        title : str
            What is shown, with its unit.
        colormap : str or Colormap
            A napari colour map or its name.
        limits : tuple of float
        """
        self._title = title
        self._low, self._high = (f"{limit:.3g}" for limit in limits)
        self._colours = np.asarray(ensure_colormap(colormap).map(np.linspace(0, 1, 33)))
        self.setToolTip(f"{title}: from {self._low} to {self._high}")
        self.update()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw title, gradient and limits."""
        if not len(self._colours):
            return
        painter = QPainter(self)
        line = self.fontMetrics().height()
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(
            QRectF(0, 0, self.width(), line), Qt.AlignmentFlag.AlignHCenter, self._title
        )
        bar = QRectF(1, line + 2, self.width() - 2, 12)
        gradient = QLinearGradient(bar.left(), 0, bar.right(), 0)
        last = len(self._colours) - 1
        for index, colour in enumerate(self._colours.tolist()):
            gradient.setColorAt(index / last, QColor.fromRgbF(*colour[:3]))
        painter.fillRect(bar, gradient)
        below = QRectF(1, line + 15, self.width() - 2, line)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, self._low)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, self._high)
        painter.end()
