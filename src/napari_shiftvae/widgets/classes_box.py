"""Classes of atoms: how they are made, and how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_shiftvae.explore_jobs import ClassOrder
from napari_shiftvae.widgets.atom_card import Picture
from napari_shiftvae.widgets.form import button, choice, label, optional, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.classify import Criterion, Method

METHODS: dict[str, tuple[Method, Criterion, str]] = {
    "gaussian mixture": (
        "gaussian mixture",
        "icl",
        "Clusters of any elliptic shape; as many as are apart from each other (ICL).",
    ),
    "gaussian mixture, BIC": (
        "gaussian mixture",
        "bic",
        "As many normal distributions as describe the atoms best: more and finer classes.",
    ),
    "k-means": ("k-means", "icl", "Compact clusters of about one size; as many as the mixture."),
    "hdbscan": (
        "hdbscan",
        "icl",
        "Dense groups of any shape, as many as there are; the rest belongs to none.",
    ),
}
BY_AXES, BY_LATENTS = "by the axes", "by all latents"
ICON_PX = 44
MOST_ROWS_SHOWN = 5
PICTURE, NAME, COUNT = range(3)  # columns of the table


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassRow:
    """One line of the comparison."""

    number: int
    name: str
    colour: str
    count: int
    means: Sequence[float]  # of each latent
    errors: Sequence[float]  # standard errors of the means
    spreads: Sequence[float]  # standard deviations among the atoms
    pattern: NDArray[np.float32]


class ClassesBox(QWidget):
    """Asks for classes and shows them."""

    asked = Signal(object)  # ClassOrder
    assign_asked = Signal(str)  # name of the class, empty for its number
    clear_asked = Signal()
    use_asked = Signal()
    row_chosen = Signal(int)  # number of a class
    renamed = Signal(int, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.method = choice(list(METHODS), "\n".join(f"{k}: {v[2]}" for k, v in METHODS.items()))
        self.count = whole(2, 20, "Number of classes; 'auto' chooses it from the data.", auto=True)
        self.by = choice(
            [BY_AXES, BY_LATENTS], "What is compared: the two columns of the plot, or z1, z2, ..."
        )
        self.split = QCheckBox("split by brightness")
        self.split.setChecked(True)
        self.split.setToolTip(
            "Then split off the atoms of each class that are clearly brighter or darker than the "
            "rest of it, such as substituted atoms."
        )
        self.find = button("Find classes", "Sort the atoms into classes.")
        self.name = QLineEdit()
        self.name.setPlaceholderText("name (optional)")
        self.name.setToolTip("Name of the class that the selected atoms become.")
        self.assign = button(
            "Class from selection", "Put the selected atoms into a class of their own."
        )
        self.clear = button("Clear", "Forget the classes.")
        self.use = button(
            "Use as sublattices",
            "Make the classes the sublattices of the Atoms tab: some can then be analysed alone, "
            "or a model trained that has patterns of its own for each, or learns them as examples "
            "(Train, Advanced, Sublattices).",
        )
        self.note = label()
        self.note.hide()
        self.table = QTableWidget()
        self.table.setToolTip(
            "Mean pattern of each class, and its mean latents with their standard errors. Click a "
            "class to select its atoms, double-click its name to change it."
        )
        self.table.verticalHeader().hide()
        self.table.setIconSize(QSize(ICON_PX, ICON_PX))
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.hide()
        self.use.hide()
        self._numbers: list[int] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        lines = (
            ((self.method, 2), (self.count, 1)),
            ((self.by, 2), (self.split, 2)),
            ((self.find, 2), (self.clear, 1)),
            ((self.name, 1), (self.assign, 1)),
        )
        for line in lines:
            row = QHBoxLayout()
            for widget, share in line:
                row.addWidget(widget, share)
            layout.addLayout(row)
        layout.addWidget(self.note)
        layout.addWidget(self.table)
        layout.addWidget(self.use)
        self.method.currentTextChanged.connect(self._on_method)
        self.find.clicked.connect(self._on_find)
        self.assign.clicked.connect(self._on_assign)
        self.name.returnPressed.connect(self._on_assign)
        self.use.clicked.connect(self.use_asked)
        self.clear.clicked.connect(self.clear_asked)
        self.table.cellClicked.connect(lambda row, _: self.row_chosen.emit(self._numbers[row]))
        self.table.itemChanged.connect(self._on_item)

    def show_classes(self, rows: Sequence[ClassRow], latents: Sequence[str]) -> None:
        """Compare classes in a table; hide it where there are none."""
        self._numbers = [row.number for row in rows]
        self.table.blockSignals(True)
        for one in (self.table, self.use, self.clear):
            one.setVisible(bool(rows))
        self.table.setColumnCount(3 + len(latents))
        self.table.setHorizontalHeaderLabels(["", "class", "atoms", *latents])
        self.table.setRowCount(len(rows))
        shown = [row.pattern for row in rows if np.isfinite(row.pattern).all()]
        # one grey scale for all: a class may differ by being brighter
        limits = (float(np.min(shown)), float(np.max(shown))) if shown else (0.0, 1.0)
        for line, row in enumerate(rows):
            picture = Picture()
            picture.show_pixels(np.nan_to_num(row.pattern, nan=limits[0]), limits, "gray")
            name = QTableWidgetItem(_dot(row.colour), row.name)
            cells = [QTableWidgetItem(QIcon(picture.pixmap()), ""), name]
            cells += [QTableWidgetItem(str(row.count))]
            cells += [_mean(*each) for each in zip(row.means, row.errors, row.spreads, strict=True)]
            for column, cell in enumerate(cells):
                cell.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                if column != NAME:
                    cell.setFlags(cell.flags() & ~Qt.ItemFlag.ItemIsEditable)
                self.table.setItem(line, column, cell)
            self.table.setRowHeight(line, ICON_PX + 4)
        self.table.blockSignals(False)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        seen = min(len(rows), MOST_ROWS_SHOWN)
        self.table.setFixedHeight((ICON_PX + 4) * seen + header.height() + 6)

    def say(self, sentence: str) -> None:
        """Tell how the classes were made; nothing takes no room."""
        self.note.setText(sentence)
        self.note.setVisible(bool(sentence))

    def _on_method(self, method: str) -> None:
        self.count.setEnabled(method != "hdbscan")  # it finds the number itself

    def _on_find(self) -> None:
        method, criterion, _ = METHODS[self.method.currentText()]
        order = ClassOrder(
            method=method,
            criterion=criterion,
            count=optional(self.count) if self.count.isEnabled() else None,
            by_axes=self.by.currentText() == BY_AXES,
            split=self.split.isChecked(),
        )
        self.asked.emit(order)

    def _on_assign(self) -> None:
        self.assign_asked.emit(self.name.text().strip())
        self.name.clear()

    def _on_item(self, item: QTableWidgetItem) -> None:
        if item.column() == NAME:
            self.renamed.emit(self._numbers[item.row()], item.text().strip())


def _mean(mean: float, error: float, spread: float) -> QTableWidgetItem:
    """Make a cell with a mean and, below it, its error, which is not known of a single atom."""
    digits = 3 if error < 0.005 else 2
    text = f"{mean:.{digits}f}" + (f"\n± {error:.{digits}f}" if np.isfinite(error) else "")
    cell = QTableWidgetItem(text)
    cell.setToolTip(f"Standard deviation among the atoms: {spread:.2f}")
    return cell


def _dot(colour: str) -> QIcon:
    """Make an icon of one colour."""
    pixmap = QPixmap(ICON_PX, ICON_PX)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(colour))
    side = ICON_PX // 3
    painter.drawEllipse(ICON_PX - side, side, side, side)
    painter.end()
    return QIcon(pixmap)
