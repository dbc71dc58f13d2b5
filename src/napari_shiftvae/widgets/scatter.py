"""Atoms as dots in the plane of two columns: pick them out, and drag through latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QWidget
from skimage.measure import points_in_poly

from napari_shiftvae.widgets.plot_area import Dots, PlotArea
from napari_shiftvae.widgets.when_seen import WhenSeen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.colouring import Colouring

MOST_DOTS = 20_000  # more are shown as a density, so that panning stays fluid
DENSITY_BINS = 192
FAINTEST = 0.25  # opacity of a cell with one atom
DRAW_AFTER_MS = 120  # of the last motion, the density is drawn anew
HEIGHT_PX = 196  # leaves room for the atom's pictures below it on a small screen
REACH_PX = 8  # a dot is hit from so many screen pixels away
OPAQUE = 200
INK, HANDLE = "#ffffff", "#ff4d6d"

Floats = "NDArray[np.float64]"


class LatentScatter(pg.PlotWidget):
    """Dots of two columns of the atoms table, coloured by a third.

    A drag with the left button draws a lasso, or with Ctrl a rectangle; a click picks the nearest
    dot; Shift adds to what was picked. The middle button pans, the wheel zooms. Where more than
    20,000 atoms are in view a density is drawn: each cell has the mean colour of its atoms, and
    is the fainter the fewer they are.
    """

    picked = Signal(object, bool)  # rows of atoms, whether they are added to those picked before
    pointed = Signal(int)  # row of the atom under the mouse, -1 for none
    activated = Signal(int)  # row of an atom that was double-clicked
    handle_moved = Signal(float, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        self._area = PlotArea()
        super().__init__(parent, viewBox=self._area)
        self.setFixedHeight(HEIGHT_PX)
        self.setBackground(None)
        self.setMenuEnabled(False)
        self.setToolTip(
            "Each dot is an atom. Drag around dots to select their atoms (Ctrl: a rectangle, "
            "Shift: add to the selection); click one to select it, double-click to go there. "
            "The wheel zooms, the middle button pans, 'A' in the corner shows all."
        )
        self.plotItem.layout.setContentsMargins(1, 6, 1, 6)  # or the labels at its ends are cut
        for side in ("left", "bottom"):
            self.getAxis(side).enableAutoSIPrefix(False)  # which writes 0.2 px as 200 (x0.001)
        # what 'A' shows: the dots drawn may be those in view only
        self._extent = pg.PlotCurveItem(pen=None)
        self.density = pg.ImageItem(axisOrder="row-major")
        self.dots = Dots(size=5, pen=None, pxMode=True)
        self.marks = Dots(size=8, pen=pg.mkPen(INK, width=1.5), pxMode=True)
        self.handle = pg.TargetItem(size=16, pen=pg.mkPen(HANDLE, width=2))
        self.handle.setVisible(False)
        self.addItem(self._extent)
        for item in (self.density, self.dots, self.marks, self.handle):
            self.addItem(item, ignoreBounds=True)
        self._rows = np.empty(0, dtype=np.int64)
        self._places = np.empty((0, 2))
        self._shade = np.empty(0, dtype=np.int64)
        self._palette = np.empty((0, 4))
        self._marked = np.empty(0, dtype=np.int64)
        self._draw_seen = WhenSeen(self, self._draw)
        self._drawing = QTimer(self)
        self._drawing.setSingleShot(True)
        self._drawing.setInterval(DRAW_AFTER_MS)
        self._drawing.timeout.connect(self._draw)
        self._area.sigRangeChanged.connect(self._on_range)
        self._area.drawn.connect(self._on_drawn)
        self._area.clicked.connect(self._on_clicked)
        self.handle.sigPositionChanged.connect(self._on_handle)
        self.scene().sigMouseMoved.connect(self._on_mouse)

    # -- what is shown -------------------------------------------------------------------------

    def set_points(self, x: Floats, y: Floats, by: Colouring) -> None:
        """Draw dots; those with a NaN in x or y are left out.

        Parameters
        ----------
        x, y : (N,) arrays
        by : Colouring
            Of the N atoms.
        """
        self._rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        self._places = np.column_stack([x, y])[self._rows]
        self._shade, self._palette = by.shade[self._rows], by.palette
        if len(self._rows):
            self._extent.setData(*np.stack([self._places.min(axis=0), self._places.max(axis=0)]).T)
        self._draw_seen()
        self.mark(self._marked)

    def label_axes(self, x: str, y: str) -> None:
        """Say what is along the axes."""
        for side, text in (("bottom", x), ("left", y)):
            axis = self.getAxis(side)
            axis.setLabel(text)
            axis.resizeEvent()  # puts another text into the middle

    def show_all(self) -> None:
        """Bring all dots into view."""
        self.autoRange(padding=0.04)
        if self._many:
            self._draw_seen()

    @property
    def _many(self) -> bool:
        return len(self._rows) > MOST_DOTS

    def _on_range(self, *_: object) -> None:
        if self._many:
            self._drawing.start()

    def _draw(self) -> None:
        """Draw dots, or a density where too many are in view."""
        places, shade = self._places, self._shade
        (x0, x1), (y0, y1) = self._area.viewRange()
        if self._many:
            x, y = places.T
            inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
            places, shade = places[inside], shade[inside]
        dense = len(places) > MOST_DOTS
        self.density.setVisible(dense)
        self.dots.setVisible(not dense)
        if dense:
            picture = density_picture(places, self._palette[shade], ((x0, x1), (y0, y1)))
            self.density.setImage(picture, autoLevels=False, levels=(0, 255))
            self.density.setRect(x0, y0, x1 - x0, y1 - y0)
            return
        self.dots.setData(*places.T, brush=self._brushes(OPAQUE)[shade])

    def _brushes(self, opacity: int) -> NDArray[np.object_]:
        """Brush of each shade: the items keep a picture of each, so that few keep them fast."""
        colours = (self._palette[:, :3] * 255).astype(int)
        return np.array([pg.mkBrush(*colour, opacity) for colour in colours])

    def mark(self, rows: NDArray[np.int64]) -> None:
        """Ring the dots of some atoms, which keep their colours, before all others."""
        self._marked = rows
        these = np.isin(self._rows, rows)
        brushes = self._brushes(255)[self._shade[these]] if these.any() else []
        self.marks.setData(*self._places[these].T, brush=brushes)

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

    def nearest(self, x: float, y: float, reach_px: float = REACH_PX) -> int:
        """Row of the atom whose dot is nearest a place of the plot, -1 where none is near."""
        if not len(self._rows):
            return -1
        step = np.array(self._area.viewPixelSize())
        distance = np.linalg.norm((self._places - [x, y]) / step, axis=1)
        best = int(distance.argmin())
        return int(self._rows[best]) if distance[best] <= reach_px else -1

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
        if self._handle_held() or not self._area.sceneBoundingRect().contains(position):
            return
        place = self._area.mapSceneToView(position)
        self.pointed.emit(self.nearest(place.x(), place.y()))

    def _handle_held(self) -> bool:
        return bool(self.handle.isVisible() and self.handle.moving)

    def _on_handle(self) -> None:
        place = self.handle.pos()
        self.handle_moved.emit(place.x(), place.y())


def density_picture(
    places: Floats, colours: Floats, view: tuple[tuple[float, float], tuple[float, float]]
) -> NDArray[np.uint8]:
    """Draw many dots as a picture: the mean colour in each cell, fainter where they are few.

    Parameters
    ----------
    places : (N, 2) array
        x and y, all within the view.
    colours : (N, 4) array
        From 0 to 1.
    view : pairs of float
        Ends of x and of y.

    Returns
    -------
    (192, 192, 4) uint8 array
        The first row has the lowest y.
    """
    low = np.array([ends[0] for ends in view])
    width = np.array([ends[1] for ends in view]) - low
    cell = ((places - low) / width * DENSITY_BINS).astype(np.int64).clip(0, DENSITY_BINS - 1)
    where, cells = cell[:, 1] * DENSITY_BINS + cell[:, 0], DENSITY_BINS**2
    count = np.bincount(where, minlength=cells)
    picture = np.zeros((cells, 4))
    for channel in range(3):
        total = np.bincount(where, weights=colours[:, channel], minlength=cells)
        picture[:, channel] = total / np.maximum(count, 1)
    strength = np.log1p(count) / np.log1p(count.max())
    picture[:, 3] = np.where(count > 0, FAINTEST + (1 - FAINTEST) * strength, 0.0)
    return (picture * 255).astype(np.uint8).reshape(DENSITY_BINS, DENSITY_BINS, 4)
