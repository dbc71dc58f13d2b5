"""Classes of atoms: how they are made, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_shiftvae.widgets.atom_card import Picture
from napari_shiftvae.widgets.form import button, choice, label, optional, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHODS = {
    "gaussian mixture": "Clusters of any elliptic shape; as many as are apart from each other "
    "(integrated completed likelihood).",
    "k-means": "Compact clusters of about one size; as many as the mixture finds.",
    "hdbscan": "Dense groups of any shape, as many as there are; the rest belongs to none.",
}
ICON_PX = 44
MOST_ROWS_SHOWN = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassRow:
    """One line of the comparison."""

    number: int
    colour: str
    count: int
    means: Sequence[float]
    pattern: NDArray[np.float32]


class ClassesBox(QWidget):
    """Asks for classes and shows them."""

    asked = Signal(str, object)  # method, number of classes or None
    assign_asked = Signal()
    row_chosen = Signal(int)  # number of a class

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.method = choice(list(METHODS), "\n".join(f"{k}: {v}" for k, v in METHODS.items()))
        self.count = whole(2, 20, "Number of classes; 'auto' chooses it from the data.", auto=True)
        self.find = button(
            "Find classes", "Sort the atoms into classes by the two columns of the plot."
        )
        self.assign = button(
            "Class from selection", "Put the selected atoms into a class of their own."
        )
        self.note = label()
        self.table = QTableWidget()
        self.table.setToolTip("Mean pattern and latents of each class; click to select its atoms.")
        self.table.verticalHeader().hide()
        self.table.setIconSize(QSize(ICON_PX, ICON_PX))
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.hide()
        self._numbers: list[int] = []
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.method, 2)
        first.addWidget(self.count, 1)
        second.addWidget(self.find)
        second.addWidget(self.assign)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addLayout(second)
        layout.addWidget(self.note)
        layout.addWidget(self.table)
        self.find.clicked.connect(self._on_find)
        self.assign.clicked.connect(self.assign_asked)
        self.table.cellClicked.connect(lambda row, _: self.row_chosen.emit(self._numbers[row]))

    def show_classes(self, rows: Sequence[ClassRow], latents: Sequence[str]) -> None:
        """Compare classes in a table; hide it where there are none."""
        self._numbers = [row.number for row in rows]
        self.table.setVisible(bool(rows))
        self.table.setColumnCount(3 + len(latents))
        self.table.setHorizontalHeaderLabels(["", "class", "atoms", *latents])
        self.table.setRowCount(len(rows))
        for line, row in enumerate(rows):
            picture = Picture()
            limits = float(row.pattern.min()), float(row.pattern.max())
            picture.show_pixels(row.pattern, limits, "gray")
            pattern = QTableWidgetItem(QIcon(picture.pixmap()), "")
            name = QTableWidgetItem(f"● {row.number}")
            name.setForeground(QColor(row.colour))
            cells = [pattern, name, QTableWidgetItem(str(row.count))]
            cells += [QTableWidgetItem(f"{mean:.2f}") for mean in row.means]
            for column, cell in enumerate(cells):
                cell.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(line, column, cell)
            self.table.setRowHeight(line, ICON_PX + 4)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        shown = min(len(rows), MOST_ROWS_SHOWN)
        self.table.setFixedHeight(
            (ICON_PX + 4) * shown + self.table.horizontalHeader().height() + 6
        )

    def _on_find(self) -> None:
        self.asked.emit(self.method.currentText(), optional(self.count))
