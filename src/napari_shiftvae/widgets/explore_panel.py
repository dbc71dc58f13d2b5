"""The Explore tab: the atoms in latent space, and what the decoder makes of each place there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyqtgraph as pg
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_shiftvae.layers import (
    CLASS,
    LATENT_COLORMAP,
    class_colours,
    latent_limits,
)
from napari_shiftvae.widgets.atom_card import AtomCard
from napari_shiftvae.widgets.classes_box import ClassesBox
from napari_shiftvae.widgets.colour_bar import ColourBar
from napari_shiftvae.widgets.form import button, choice, folded, label, rows
from napari_shiftvae.widgets.scatter import LatentScatter

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from napari_shiftvae.core.runs import Run


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
    """Scatter with a choice of columns, one atom, classes, decoder grid, and what the run says."""

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
        self.card = AtomCard()
        self.drag = button(
            "Drag through latent space",
            "Show a handle in the plot; the decoder's pattern follows it. The other latents are "
            "those of the selected atoms, or zero.",
        )
        self.drag.setCheckable(True)
        self.outlier = button(
            "Next outlier", "Go to the atom with the next largest residual: look for defects."
        )
        self.classes = ClassesBox()
        self.grid_note = label("Decoded patterns over z1 (right) and z2 (up)")
        self.grid = DecoderGrid()
        self.save_strip = button(
            "Save traverse …",
            "Save the patterns along one latent, the one on the horizontal axis, as PNG or GIF.",
        )
        self.findings = label("", "What the analysis says about itself.")
        self.content = QWidget()
        self._lay_out()
        for column in (self.x, self.y, self.colour):
            column.currentTextChanged.connect(self._draw)
        self.colour.currentTextChanged.connect(self.colour_changed)
        self.content.hide()

    def _lay_out(self) -> None:
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        form = rows()
        axes = QHBoxLayout()
        axes.addWidget(self.x)
        axes.addWidget(self.y)
        form.addRow("Axes", axes)
        form.addRow("Colour", self.colour)
        inner.addLayout(form)
        inner.addWidget(self.scatter)
        inner.addWidget(self.bar)
        buttons = QHBoxLayout()
        buttons.addWidget(self.drag)
        buttons.addWidget(self.outlier)
        inner.addLayout(buttons)
        inner.addWidget(self.card)
        inner.addWidget(folded("Classes", self.classes, "Sort atoms into classes, and compare."))
        pictures = QWidget()
        column = QVBoxLayout(pictures)
        column.setContentsMargins(0, 0, 0, 0)
        for one in (self.grid_note, self.grid, self.save_strip):
            column.addWidget(one)
        self.patterns = folded("Decoded patterns", pictures, "What the latents mean")
        self.patterns.expand(animate=False)
        inner.addWidget(self.patterns)
        inner.addWidget(self.findings)
        layout = QVBoxLayout(self)
        layout.addWidget(self.empty)
        layout.addWidget(self.content)
        layout.addStretch(1)

    def show_run(self, run: Run | None, grid: NDArray[np.float32] | None) -> None:
        """Show another run, or with None that there is none."""
        self.empty.setVisible(run is None)
        self.content.setVisible(run is not None)
        self._atoms = None if run is None else run.atoms
        self.drag.setChecked(False)
        if run is None:
            return
        columns = list(run.atoms.select_dtypes("number").columns)
        wanted = ("z1", "z2" if "z2" in columns else "residual", "z1")
        for field, first in zip((self.x, self.y, self.colour), wanted, strict=True):
            kept = field.currentText()
            field.blockSignals(True)
            field.clear()
            field.addItems(columns)
            field.setCurrentText(kept if kept in columns else first)
            field.blockSignals(False)
        self._draw()
        self.findings.setText("\n".join(run.diagnostics.sentences))
        self.patterns.setVisible(grid is not None)
        if grid is not None:
            self.grid.set_picture(grid)

    def axes(self) -> tuple[str, str]:
        """Columns along the horizontal and the vertical axis."""
        return self.x.currentText(), self.y.currentText()

    def _draw(self) -> None:
        if self._atoms is None:
            return
        x, y = self.axes()
        colour = self.colour.currentText()
        values = [self._atoms[name].to_numpy(dtype=float) for name in (x, y, colour)]
        self.scatter.set_points(*values)
        self.scatter.setLabel("bottom", with_unit(x))
        self.scatter.setLabel("left", with_unit(y))
        self.scatter.autoRange()
        self.bar.setVisible(colour != CLASS)
        if colour == CLASS:
            self.scatter.set_categories(class_colours(values[2].astype(int)))
        else:
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
