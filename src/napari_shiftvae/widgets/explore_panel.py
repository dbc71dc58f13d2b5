"""The Explore tab: the atoms in latent space, and what the decoder makes of each place there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_shiftvae.colouring import colouring, has_kinds
from napari_shiftvae.layers import LATENT_COLORMAP
from napari_shiftvae.widgets.atom_card import AtomCard
from napari_shiftvae.widgets.classes_box import ClassesBox
from napari_shiftvae.widgets.colour_bar import ColourBar
from napari_shiftvae.widgets.form import button, choice, folded, label, rows
from napari_shiftvae.widgets.patterns_box import PatternsBox
from napari_shiftvae.widgets.scatter import LatentScatter

if TYPE_CHECKING:
    from napari_shiftvae.core.runs import Run


class ExplorePanel(QWidget):
    """Scatter with a choice of columns, one atom, classes, decoder grid, and what the run says."""

    colour_changed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._table: pd.DataFrame | None = None
        self._drawn: tuple[str, ...] = ()
        self.empty = label("Nothing to explore yet: run an analysis first.")
        self.x = choice([], "Column along the horizontal axis.")
        self.y = choice([], "Column along the vertical axis.")
        self.colour = choice([], "Column that gives the colour, here and on the image.")
        self.scatter = LatentScatter()
        self.bar = ColourBar()
        self.card = AtomCard()
        self.drag = button(
            "Drag in latents",
            "Show a handle in the plot; the decoder's pattern follows it. The other latents are "
            "the mean of the selected atoms, or of all.",
        )
        self.lasso = button(
            "Lasso in image",
            "Draw around atoms in the image to select them; Shift adds. A click on an atom selects "
            "it at any time.",
        )
        for one in (self.drag, self.lasso):
            one.setCheckable(True)
        self.previous = button("‹", "Go back to the outlier before.")
        self.outlier = button(
            "Outlier ›", "Go to the atom with the next largest residual: look for defects."
        )
        self.classes = ClassesBox()
        self.patterns = PatternsBox()
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
        buttons.addWidget(self.lasso, 3)
        buttons.addWidget(self.drag, 3)
        self.previous.setFixedWidth(28)
        buttons.addWidget(self.previous)
        buttons.addWidget(self.outlier, 2)
        inner.addLayout(buttons)
        inner.addWidget(self.card)
        for title, content, tip in (
            ("Classes", self.classes, "Sort atoms into classes, and compare."),
            ("Decoded patterns", self.patterns, "What the latents mean"),
            ("What the analysis says of itself", self.findings, "Diagnostics in words"),
        ):
            part = folded(title, content, tip)
            part.expand(animate=False)
            inner.addWidget(part)
        layout = QVBoxLayout(self)
        layout.addWidget(self.empty)
        layout.addWidget(self.content)
        layout.addStretch(1)

    def show_run(self, run: Run | None, table: pd.DataFrame | None) -> None:
        """Show another run, or with None that there is none.

        Parameters
        ----------
        run : Run or None
        table : pandas.DataFrame or None
            Columns of the run's atoms, and what else is known of them.
        """
        self.empty.setVisible(run is None)
        self.content.setVisible(run is not None)
        self._table, self._drawn = table, ()
        self.drag.setChecked(False)
        if run is None or table is None:
            self.lasso.setChecked(False)
            return
        columns = list(table.select_dtypes("number").columns)
        kinds = [name for name in table if has_kinds(table, name) and name not in columns]
        wanted = ("z1", "z2" if "z2" in columns else "residual", "z1")
        for field, first in zip((self.x, self.y, self.colour), wanted, strict=True):
            offered = columns + kinds * (field is self.colour)
            kept = field.currentText()
            field.blockSignals(True)
            field.clear()
            field.addItems(offered)
            field.setCurrentText(kept if kept in offered else first)
            field.blockSignals(False)
        self._draw()
        self.findings.setText("\n".join(run.diagnostics.sentences))

    @property
    def table(self) -> pd.DataFrame:
        """Columns that are shown; empty where there is no run."""
        return pd.DataFrame() if self._table is None else self._table

    def axes(self) -> tuple[str, str]:
        """Columns along the horizontal and the vertical axis."""
        return self.x.currentText(), self.y.currentText()

    def _draw(self) -> None:
        if self._table is None:
            return
        axes = x, y = self.axes()
        colour = self.colour.currentText()
        by = colouring(self._table, colour)
        values = [self._table[name].to_numpy(dtype=float) for name in axes]
        self.scatter.set_points(values[0], values[1], by)
        if axes != self._drawn:  # other colours leave the view as it is
            self._drawn = axes
            self.scatter.label_axes(with_unit(x), with_unit(y))
            self.scatter.show_all()
        if by.limits is None:
            self.bar.set_kinds(colour, by.kinds)
        else:
            self.bar.set_scale(with_unit(colour), LATENT_COLORMAP, by.limits)

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
    for unit in ("px", "nm", "rad"):
        if column.endswith(f"_{unit}"):
            return f"{column.removesuffix(f'_{unit}')} ({unit})"
    if column == "residual":
        return "residual (noise s.d.)"
    return column
