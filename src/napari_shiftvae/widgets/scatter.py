"""Atoms as dots in the plane of two columns: pick them out, and drag through latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QWidget
from skimage.measure import points_in_poly

from napari_shiftvae.layers import latent_colours, latent_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHADES = 64
MOST_DOTS = 20_000  # more are shown as a density, so that panning stays fluid
DENSITY_BINS = 192
REACH_PX = 8  # a dot is hit from so many screen pixels away

Floats = "NDArray[np.float64]"


class LatentScatter(pg.PlotWidget):
    """Dots of two columns of the atoms table, coloured by a third.

    A drag with the left button draws a lasso, or with Ctrl a rectangle; a click picks the nearest
    dot; Shift adds to what was picked. The middle button pans, the wheel zooms.
    """

    picked = Signal(object, bool)  # rows of atoms, whether they are added to those picked before
    pointed = Signal(int)  # row of the atom under the mouse, -1 for none
    activated = Signal(int)  # row of an atom that was double-clicked
    handle_moved = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        self._area = _Area()
        super().__init__(parent, viewBox=self._area)
        self.setFixedHeight(250)
        self.setBackground(None)
        self.setMenuEnabled(False)
        self.setToolTip(
            "Each dot is an atom. Drag around dots to select their atoms (Ctrl: a rectangle, "
            "Shift: add to the selection); click one to select it, double-click to go there. "
            "The wheel zooms, the middle button pans, 'A' shows all."
        )
        self.density = pg.ImageItem(axisOrder="row-major")
        self.dots = _Dots(size=5, pen=None, pxMode=True)
        self.marks = _Dots(size=9, brush=None, pen=pg.mkPen("#ffffff", width=1.5), pxMode=True)
        self.handle = pg.TargetItem(size=14, pen=pg.mkPen("#ff4d6d", width=2))
        self.handle.setVisible(False)
        for item in (self.density, self.dots, self.marks, self.handle):
            self.addItem(item)
        self.density.setColorMap(pg.colormap.get("viridis"))
        # The item keeps a picture of each different brush; few shades keep it fast.
        shades = (latent_colours(np.linspace(0, 1, SHADES), (0, 1)) * 255).astype(int)
        self._brushes = np.array([pg.mkBrush(*shade[:3], 200) for shade in shades])
        self._rows = np.empty(0, dtype=np.int64)
        self._places = np.empty((0, 2))
        self._area.drawn.connect(self._on_drawn)
        self._area.clicked.connect(self._on_clicked)
        self.handle.sigPositionChanged.connect(self._on_handle)
        self.scene().sigMouseMoved.connect(self._on_mouse)

    # -- what is shown -------------------------------------------------------------------------

    def set_points(self, x: Floats, y: Floats, colour: Floats) -> None:
        """Draw dots; those with a NaN in x or y are left out."""
        self._rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        self._places = np.column_stack([x, y])[self._rows]
        many = len(self._rows) > MOST_DOTS
        self.density.setVisible(many)
        self.marks.clear()
        if many:
            self.dots.clear()
            self._draw_density()
            return
        low, high = latent_limits(colour)
        shade = np.nan_to_num((colour[self._rows] - low) / (high - low)).clip(0, 1) * (SHADES - 1)
        self.dots.setData(*self._places.T, brush=self._brushes[shade.astype(int)])

    def set_categories(self, colours: NDArray[np.float32]) -> None:
        """Give each atom (N rows of the table) a colour (N, 4) of its own, as classes have."""
        if len(self._rows) <= MOST_DOTS:
            shades, which = np.unique(colours[self._rows], axis=0, return_inverse=True)
            brushes = np.array(
                [pg.mkBrush(*(shade[:3] * 255).astype(int), 200) for shade in shades]
            )
            self.dots.setBrush(brushes[which.ravel()])

    def _draw_density(self) -> None:
        low, high = np.percentile(self._places, (0.1, 99.9), axis=0)
        high = np.maximum(high, low + 1e-9)
        counts, _, _ = np.histogram2d(
            *self._places.T, bins=DENSITY_BINS, range=np.stack([low, high], axis=1)
        )
        shown = np.log1p(counts.T)
        shown[shown == 0] = np.nan  # nothing is drawn where no atom is
        self.density.setImage(shown, autoLevels=False, levels=(0, float(np.nanmax(shown))))
        self.density.setRect(*low, *(high - low))

    def mark(self, rows: NDArray[np.int64]) -> None:
        """Ring the dots of some atoms."""
        shown = np.isin(self._rows, rows)
        self.marks.setData(*self._places[shown].T)

    def show_handle(self, place: tuple[float, float] | None) -> None:
        """Put the handle somewhere, or away."""
        self.handle.setVisible(place is not None)
        if place is not None:
            self.handle.blockSignals(True)
            self.handle.setPos(*place)
            self.handle.blockSignals(False)

    def set_ink(self, colour: str) -> None:
        """Colour of axes and text, which follows napari's theme."""
        for axis in ("left", "bottom"):
            self.getAxis(axis).setPen(colour)
            self.getAxis(axis).setTextPen(colour)
        self.marks.setPen(pg.mkPen(colour, width=1.5))

    # -- what the mouse does -------------------------------------------------------------------

    def nearest(self, x: float, y: float) -> int:
        """Row of the atom whose dot is nearest a place of the plot, -1 where none is near."""
        if not len(self._rows):
            return -1
        step = np.array(self._area.viewPixelSize())
        distance = np.linalg.norm((self._places - [x, y]) / step, axis=1)
        best = int(distance.argmin())
        return int(self._rows[best]) if distance[best] <= REACH_PX else -1

    def _on_drawn(self, outline: NDArray[np.float64], adds: bool) -> None:
        inside = points_in_poly(self._places, outline)
        self.picked.emit(self._rows[inside], adds)

    def _on_clicked(self, x: float, y: float, adds: bool, double: bool) -> None:
        row = self.nearest(x, y)
        if double and row >= 0:
            self.activated.emit(row)
        elif not double:
            self.picked.emit(np.array([row][: row >= 0], dtype=np.int64), adds)

    def _on_mouse(self, position: Any) -> None:
        if self._area.sceneBoundingRect().contains(position):
            place = self._area.mapSceneToView(position)
            self.pointed.emit(self.nearest(place.x(), place.y()))

    def _on_handle(self) -> None:
        place = self.handle.pos()
        self.handle_moved.emit(place.x(), place.y())


class _Dots(pg.ScatterPlotItem):
    """Dots that leave clicks to the area they are in."""

    def mouseClickEvent(self, event: Any) -> None:
        """Let the click through."""
        event.ignore()


class _Area(pg.ViewBox):
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
            self._line.clear()
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
