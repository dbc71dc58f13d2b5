"""The Fields tab: arrows and maps of what was measured, on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_shiftvae.widgets.colour_bar import ColourBar
from napari_shiftvae.widgets.form import button, choice, in_line, label, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_MAP = "none"
WHOLE_IMAGE = "lattice of the whole image"
TRENDS = {
    "nothing": None,
    "shift": "shift",
    "shift and rotation": "rigid",
    "affine (drift, shear, stretch)": "affine",
    "row by row": "rows",
}
COLOURS = ("length", "angle")


class FieldsPanel(QWidget):
    """Asks what is to be shown; showing it is the business of `FieldsControl`."""

    asked = Signal()  # something that has to be worked out anew is wanted
    look_changed = Signal()  # arrows: shown, magnified, coloured, hidden
    map_changed = Signal(str)

    def __init__(self, vectors: dict[str, str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.empty = label("No fields yet: run an analysis first.")
        self.content = QWidget()
        self.arrows = QCheckBox("Show arrows")
        self.arrows.setToolTip("Show or hide the layer of arrows.")
        tips = "\n".join(f"{name}: {text}" for name, text in vectors.items())
        self.vectors = choice(list(vectors), tips)
        self.position = choice(
            ["central atom", "whole pattern"],
            "Which reading of the positions: the atom at the centre of each patch, or all of the "
            "patch. Strain is worked out from it, too.",
        )
        self.reference = choice(
            [WHOLE_IMAGE],
            "What counts as undisplaced and unstrained: the lattice of all atoms, or that of the "
            "atoms inside a Shapes layer, extended over the image.",
        )
        self.trend = choice(
            list(TRENDS),
            "Drift and scan distortion that is taken off the arrows; the note says what was.",
        )
        self.gain = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.gain.setRange(1, 200)
        self.gain.setDecimals(0)
        self.gain.setToolTip("How many times longer than in the image the arrows are drawn.")
        self.colour = choice(list(COLOURS), "What the colour of an arrow tells.")
        self.hide_noise = QCheckBox("Hide arrows below twice their standard deviation")
        self.hide_noise.setToolTip("Leave out what may be chance.")
        self.note = label("", "What was measured from what.")
        self.arrow_bar = ColourBar()
        self.map = choice([NO_MAP], "What is shown as a map over the image.")
        self.map_bar = ColourBar()
        self.map_note = label()
        self.model_layers = button(
            "Add reconstruction and residual",
            "Two layers: the image as the model has it, and what is left, in noise standard "
            "deviations.",
        )
        self.save = button("Save run …", "Write the run as one *.shiftvae file, to open it again.")
        self.export = button(
            "Export …",
            "Write the table of atoms, all maps as calibrated TIFF, figures, and a script that "
            "makes the same numbers, into a folder.",
        )
        self._lay_out()
        self.content.hide()
        for one in (self.vectors, self.position, self.reference, self.trend):
            one.currentTextChanged.connect(self._on_asked)
        for box in (self.arrows, self.hide_noise):
            box.toggled.connect(self._on_look)
        self.gain.valueChanged.connect(self._on_look)
        self.colour.currentTextChanged.connect(self._on_look)
        self.map.currentTextChanged.connect(self.map_changed)

    def _lay_out(self) -> None:
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        form = rows()
        form.addRow(self.arrows)
        form.addRow("Arrows", self.vectors)
        form.addRow("Of the", self.position)
        form.addRow("Against", self.reference)
        form.addRow("Take off", self.trend)
        form.addRow("Magnified", self.gain)
        form.addRow("Colour", self.colour)
        form.addRow(self.hide_noise)
        inner.addLayout(form)
        inner.addWidget(self.arrow_bar)
        inner.addSpacing(6)
        maps = rows()
        maps.addRow("Map", self.map)
        inner.addLayout(maps)
        inner.addWidget(self.map_bar)
        inner.addWidget(self.map_note)
        inner.addWidget(self.note)
        inner.addWidget(self.model_layers)
        inner.addLayout(in_line(self.save, self.export))
        layout = QVBoxLayout(self)
        layout.addWidget(self.empty)
        layout.addWidget(self.content)
        layout.addStretch(1)

    def show_content(self, there: bool) -> None:
        """Show the controls, or with False that there is nothing to show."""
        self.empty.setVisible(not there)
        self.content.setVisible(there)

    def show_maps(self, names: Sequence[str], chosen: str) -> None:
        """Offer maps by name."""
        with QSignalBlocker(self.map):
            self.map.clear()
            self.map.addItems([NO_MAP, *names])
            self.map.setCurrentText(chosen if chosen in names else NO_MAP)

    def show_references(self, names: Sequence[str]) -> None:
        """Offer the layers of shapes there are."""
        chosen = self.reference.currentText()
        with QSignalBlocker(self.reference):
            self.reference.clear()
            self.reference.addItems([WHOLE_IMAGE, *names])
            self.reference.setCurrentText(chosen if chosen in names else WHOLE_IMAGE)

    def show_arrows(self, *, visible: bool, gain: float) -> None:
        """Follow the layer of arrows."""
        with QSignalBlocker(self.arrows), QSignalBlocker(self.gain):
            self.arrows.setChecked(visible)
            self.gain.setValue(gain)

    def _on_asked(self, _: object) -> None:
        self.asked.emit()

    def _on_look(self, _: object) -> None:
        self.look_changed.emit()
