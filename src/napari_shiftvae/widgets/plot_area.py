"""What the mouse does in a plot of dots: it draws outlines, and clicks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal


class Dots(pg.ScatterPlotItem):
    """Dots that leave clicks to the area they are in."""

    def mouseClickEvent(self, event: Any) -> None:
        """Let the click through."""
        event.ignore()


class PlotArea(pg.ViewBox):
    """Where the left button draws outlines instead of panning."""

    drawn = Signal(object, bool)  # corners (N, 2) in the plot, whether Shift was held
    clicked = Signal(float, float, bool, bool)  # x, y, Shift, double

    def __init__(self) -> None:
        super().__init__()
        self._outline: list[tuple[float, float]] = []
        self._line = pg.PlotCurveItem(pen=pg.mkPen("#ff9f1c", width=1.5))
        self.addItem(self._line, ignoreBounds=True)

    def mouseDragEvent(self, event: Any, axis: int | None = None) -> None:
        """Draw a lasso, or with Ctrl a rectangle."""
        if event.button() != Qt.MouseButton.LeftButton or axis is not None:
            super().mouseDragEvent(event, axis)
            return
        event.accept()
        start = self.mapSceneToView(event.buttonDownScenePos())
        here = self.mapSceneToView(event.scenePos())
        if event.isStart():
            self._outline = [(start.x(), start.y())]
        self._outline.append((here.x(), here.y()))
        corners = np.array(self._outline)
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            (x0, y0), (x1, y1) = corners[0], corners[-1]
            corners = np.array([(x0, y0), (x0, y1), (x1, y1), (x1, y0)])
        if event.isFinish():
            self._line.setData([], [])  # which repaints, unlike clear()
            adds = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            self.drawn.emit(corners, adds)
        else:
            self._line.setData(*np.vstack([corners, corners[:1]]).T)

    def mouseClickEvent(self, event: Any) -> None:
        """Pick the dot that was clicked."""
        if event.button() != Qt.MouseButton.LeftButton:
            super().mouseClickEvent(event)
            return
        event.accept()
        place = self.mapSceneToView(event.scenePos())
        adds = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        self.clicked.emit(place.x(), place.y(), adds, event.double())
