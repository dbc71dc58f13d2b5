"""The sublattices: which are analysed, how they are called and coloured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

NONE = ""  # atoms in no sublattice
SWATCH_PX = 22


class SublatticeList(QWidget):
    """One line for each sublattice, and one for the atoms in none where there are some."""

    chosen_changed = Signal()
    renamed = Signal(str, str)  # old name, new name
    recoloured = Signal(str, str)  # name, "#rrggbb"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._layout = QGridLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setColumnStretch(2, 1)
        self._left_out: set[str] = set()
        self._shown: tuple[object, ...] = ()
        self.checks: dict[str, QCheckBox] = {}
        self.names: dict[str, QLineEdit] = {}
        self.swatches: dict[str, QPushButton] = {}

    def chosen(self) -> list[str]:
        """Names of the sublattices to analyse; "" stands for the atoms in none."""
        return [name for name, check in self.checks.items() if check.isChecked()]

    def show_counts(self, counts: Mapping[str, int], colour_of: Callable[[str], str]) -> None:
        """Show the sublattices and how many atoms each has."""
        shown = tuple((name, count, colour_of(name)) for name, count in counts.items())
        if shown == self._shown:
            return
        self._shown = shown
        while (item := self._layout.takeAt(0)) is not None:
            item.widget().deleteLater()
        self.checks, self.names, self.swatches = {}, {}, {}
        for row, (name, count, colour) in enumerate(shown):
            self._add_row(row, name, count, colour)

    def _add_row(self, row: int, name: str, count: int, colour: str) -> None:
        check = QCheckBox()
        check.setToolTip("Whether these atoms are analysed.")
        check.setChecked(name not in self._left_out)
        check.toggled.connect(partial(self._on_check, name))
        self.checks[name] = check
        number = QLabel(f"{count} atoms")
        self._layout.addWidget(check, row, 0)
        self._layout.addWidget(number, row, 3)
        if name == NONE:
            self._layout.addWidget(QLabel("in no sublattice"), row, 2)
            return
        swatch = QPushButton()
        swatch.setFixedSize(SWATCH_PX, SWATCH_PX)
        swatch.setToolTip("Colour of these atoms; click to choose another.")
        swatch.setStyleSheet(f"background-color: {colour}; border-radius: 3px;")
        swatch.clicked.connect(partial(self._on_swatch, name, colour))
        edit = QLineEdit(name)
        edit.setToolTip("Name of the sublattice; type another, or that of one to join it.")
        edit.editingFinished.connect(partial(self._on_name, name, edit))
        self.swatches[name], self.names[name] = swatch, edit
        self._layout.addWidget(swatch, row, 1)
        self._layout.addWidget(edit, row, 2)

    def _on_check(self, name: str, on: bool) -> None:
        self._left_out = self._left_out - {name} if on else self._left_out | {name}
        self.chosen_changed.emit()

    def _on_name(self, name: str, edit: QLineEdit) -> None:
        new = edit.text().strip()
        if new and new != name:
            self.renamed.emit(name, new)
        elif not new:
            with QSignalBlocker(edit):
                edit.setText(name)

    def _on_swatch(self, name: str, colour: str) -> None:
        chosen = QColorDialog.getColor(QColor(colour), self, f"Colour of sublattice {name}")
        if chosen.isValid():
            self.recoloured.emit(name, chosen.name())
