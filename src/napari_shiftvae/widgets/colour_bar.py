"""A colour bar: gradient, limits, what is shown and in which unit; or the colours of kinds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from napari.utils.colormaps import Colormap, ensure_colormap
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

SWATCH_PX = 10
GAP_PX = 4  # between the title and the bar, and beside the bar
NARROWEST_PX = 300  # of the bar, before it was laid out


class ColourBar(QWidget):
    """Shows a colour map between two limits, or the colours of a few kinds."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title = ""
        self._low, self._high = "", ""
        self._colours = np.zeros((0, 4))
        self._kinds: Sequence[tuple[str, str]] = ()
        self.setFixedHeight(2 * self.fontMetrics().height() + GAP_PX)
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
        self._title, self._kinds = title, ()
        self.setFixedHeight(2 * self.fontMetrics().height() + GAP_PX)
        self._low, self._high = (f"{limit:.3g}" for limit in limits)
        self._colours = np.asarray(ensure_colormap(colormap).map(np.linspace(0, 1, 33)))
        self.setToolTip(f"{title}: from {self._low} to {self._high}")
        self.update()

    def set_kinds(self, title: str, kinds: Sequence[tuple[str, str]]) -> None:
        """Show what each colour stands for.

        Parameters
        ----------
        title : str
        kinds : sequence of (name, colour)
        """
        self._title, self._kinds = title, kinds
        self.setToolTip(f"{title}: {', '.join(name for name, _ in kinds)}")
        self.setFixedHeight(len(self._lines()) * (self.fontMetrics().height() + 4))
        self.update()

    @property
    def kinds(self) -> Sequence[tuple[str, str]]:
        """The kinds shown, with their colours; none where a colour map is."""
        return self._kinds

    def _lines(self) -> list[list[tuple[str, str, int]]]:
        """Kinds in lines that fit, each with where it begins [px]; the title begins the first."""
        metrics = self.fontMetrics()
        at = metrics.horizontalAdvance(f"{self._title}:  ")
        lines: list[list[tuple[str, str, int]]] = [[]]
        for name, colour in self._kinds:
            width = metrics.horizontalAdvance(name) + SWATCH_PX + 18
            if at + width > max(self.width(), NARROWEST_PX) and lines[-1]:
                lines.append([])
                at = 0
            lines[-1].append((name, colour, at))
            at += width
        return lines

    def _paint_kinds(self, painter: QPainter) -> None:
        step = self.fontMetrics().height() + 4
        ink = self.palette().color(self.foregroundRole())
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(ink)
        painter.drawText(0, step - 6, f"{self._title}:")
        for number, line in enumerate(self._lines()):
            base = (number + 1) * step - 6
            for name, colour, at in line:
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(colour))
                painter.drawEllipse(at, base - SWATCH_PX, SWATCH_PX, SWATCH_PX)
                painter.setPen(ink)
                painter.drawText(at + SWATCH_PX + 5, base, name)

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw title, gradient and limits, or the kinds."""
        if self._kinds:
            painter = QPainter(self)
            self._paint_kinds(painter)
            painter.end()
            return
        if not len(self._colours):
            return
        painter = QPainter(self)
        line = self.fontMetrics().height()
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(
            QRectF(0, 0, self.width(), line), Qt.AlignmentFlag.AlignHCenter, self._title
        )
        below = QRectF(1, line + GAP_PX / 2, self.width() - 2, line)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, self._low)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, self._high)
        advance = self.fontMetrics().horizontalAdvance
        left, right = (advance(limit) + GAP_PX for limit in (self._low, self._high))
        bar = below.adjusted(left, 2, -right, -2)
        gradient = QLinearGradient(bar.left(), 0, bar.right(), 0)
        last = len(self._colours) - 1
        for index, colour in enumerate(self._colours.tolist()):
            gradient.setColorAt(index / last, QColor.fromRgbF(*colour[:3]))
        painter.fillRect(bar, gradient)
        painter.end()
