"""The Explore tab: the atoms in latent space, and what the decoder makes of each place there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_shiftvae.layers import LATENT_COLORMAP, latent_colours, latent_limits
from napari_shiftvae.widgets.colour_bar import ColourBar
from napari_shiftvae.widgets.form import choice, label, rows

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_shiftvae.core.runs import Run

SHADES = 64


class LatentScatter(pg.PlotWidget):
    """Dots of two columns of the atoms table, coloured by a third."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(250)
        self.setBackground(None)
        self.setMenuEnabled(False)
        self.setToolTip("Each dot is an atom. Drag pans, the wheel zooms, 'A' shows all.")
        self.dots = pg.ScatterPlotItem(size=5, pen=None, pxMode=True)
        self.addItem(self.dots)
        # The item keeps a picture of each different brush; few shades keep it fast.
        shades = (latent_colours(np.linspace(0, 1, SHADES), (0, 1)) * 255).astype(int)
        self._brushes = np.array([pg.mkBrush(*shade[:3], 200) for shade in shades])

    def set_points(
        self, x: NDArray[np.float64], y: NDArray[np.float64], colour: NDArray[np.float64]
    ) -> None:
        """Draw dots; those with a NaN in x or y are left out."""
        shown = np.isfinite(x) & np.isfinite(y)
        low, high = latent_limits(colour)
        shade = np.nan_to_num((colour[shown] - low) / (high - low)).clip(0, 1) * (SHADES - 1)
        self.dots.setData(x[shown], y[shown], brush=self._brushes[shade.astype(int)])

    def set_ink(self, colour: str) -> None:
        """Colour of axes and text, which follows napari's theme."""
        for axis in ("left", "bottom"):
            self.getAxis(axis).setPen(colour)
            self.getAxis(axis).setTextPen(colour)


class DecoderGrid(pg.PlotWidget):
    """Patterns that the decoder makes over the populated part of latent space."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(260)
        self.setBackground(None)
        self.setMenuEnabled(False)
        self.setMouseEnabled(x=False, y=False)
        self.hideButtons()
        self.setAspectLocked(True)
        self.hideAxis("left")
        self.hideAxis("bottom")
        self.setToolTip(
            "What an atom with given latents looks like: z1 grows from left to right, z2 upwards."
        )
        self.picture = pg.ImageItem(axisOrder="row-major")
        self.addItem(self.picture)

    def set_picture(self, grid: NDArray[np.float32]) -> None:
        """Show a picture, first row at the top."""
        self.picture.setImage(grid[::-1])
        self.autoRange(padding=0.01)


class ExplorePanel(QWidget):
    """Scatter with a choice of columns, decoder grid, what the run says about itself."""

    colour_changed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._atoms: pd.DataFrame | None = None
        self.empty = label("Nothing to explore yet: run an analysis first.")
        self.x = choice([], "Column along the horizontal axis.")
        self.y = choice([], "Column along the vertical axis.")
        self.colour = choice([], "Column that gives the colour, here and on the image.")
        self.scatter = LatentScatter()
        self.bar = ColourBar()
        self.grid_note = label("Decoded patterns over z1 (right) and z2 (up)")
        self.grid = DecoderGrid()
        self.findings = label("", "What the analysis says about itself.")
        self.content = QWidget()
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        form = rows()
        form.addRow("Horizontal", self.x)
        form.addRow("Vertical", self.y)
        form.addRow("Colour", self.colour)
        inner.addLayout(form)
        for one in (self.scatter, self.bar, self.grid_note, self.grid, self.findings):
            inner.addWidget(one)
        layout = QVBoxLayout(self)
        layout.addWidget(self.empty)
        layout.addWidget(self.content)
        layout.addStretch(1)
        for column in (self.x, self.y, self.colour):
            column.currentTextChanged.connect(self._draw)
        self.colour.currentTextChanged.connect(self.colour_changed)
        self.content.hide()

    def show_run(self, run: Run | None, grid: NDArray[np.float32] | None) -> None:
        """Show another run, or with None that there is none."""
        self.empty.setVisible(run is None)
        self.content.setVisible(run is not None)
        self._atoms = None if run is None else run.atoms
        if run is None:
            return
        columns = list(run.atoms.select_dtypes("number").columns)
        wanted = ("z1", "z2" if "z2" in columns else "residual", "z1")
        for field, first in zip((self.x, self.y, self.colour), wanted, strict=True):
            kept = field.currentText() if field is not self.colour else first
            field.blockSignals(True)
            field.clear()
            field.addItems(columns)
            field.setCurrentText(kept if kept in columns else first)
            field.blockSignals(False)
        self._draw()
        self.findings.setText("\n".join(run.diagnostics.sentences))
        self.grid.setVisible(grid is not None)
        self.grid_note.setVisible(grid is not None)
        if grid is not None:
            self.grid.set_picture(grid)

    def _draw(self) -> None:
        if self._atoms is None:
            return
        x, y, colour = (field.currentText() for field in (self.x, self.y, self.colour))
        values = [self._atoms[name].to_numpy(dtype=float) for name in (x, y, colour)]
        self.scatter.set_points(*values)
        self.scatter.setLabel("bottom", with_unit(x))
        self.scatter.setLabel("left", with_unit(y))
        self.scatter.autoRange()
        self.bar.set_scale(with_unit(colour), LATENT_COLORMAP, latent_limits(values[2]))

    def set_ink(self, colour: str) -> None:
        """Colour of axes and text, which follows napari's theme."""
        self.scatter.set_ink(colour)


def with_unit(column: str) -> str:
    """Name of a column of the atoms table with its unit, as a label.

    Examples
    --------
    >>> with_unit("shift_y_px")
    'shift_y (px)'
    """
    for unit in ("px", "nm"):
        if column.endswith(f"_{unit}"):
            return f"{column.removesuffix(f'_{unit}')} ({unit})"
    if column == "residual":
        return "residual (noise s.d.)"
    return column
