"""The Fields tab: arrows and maps of what was measured, on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from napari_shiftvae.widgets.colour_bar import ColourBar
from napari_shiftvae.widgets.colour_wheel import ColourWheel
from napari_shiftvae.widgets.form import button, choice, in_line, label, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_MAP = "none"
DEVIATION = " s.d."  # at the end of a map's name
WHOLE_IMAGE, DRAW = "lattice of the whole image", "draw a region …"
TRENDS = {
    "nothing": None,
    "shift": "shift",
    "shift and rotation": "rigid",
    "affine (drift, shear, stretch)": "affine",
    "row by row": "rows",
}
COLOURS = {"length": "length", "angle": "angle", "white": "#ffffff", "black": "#000000"}
UNITS = ("pm", "nm", "angstrom", "px")


class FieldsPanel(QWidget):
    """Asks what is to be shown; showing it is the business of `FieldsControl`."""

    asked = Signal()  # something that has to be worked out anew is wanted
    look_changed = Signal()  # arrows: shown, magnified, coloured, hidden
    map_changed = Signal()  # another map, its standard deviation, another unit

    def __init__(self, vectors: dict[str, str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.empty = label("No fields yet: run an analysis first.")
        self.content = QWidget()
        self.arrows = _box("Show arrows", "Show or hide the layer of arrows.")
        self.atoms = _box("Show atoms", "Show or hide the dots of the atoms.")
        tips = "\n".join(f"{name}: {text}" for name, text in vectors.items())
        self.vectors = choice(list(vectors), tips)
        self.position = choice(
            ["central atom", "whole pattern"],
            "Which reading of the positions: the atom at the centre of each patch, or all of the "
            "patch. Strain is worked out from it, too.",
        )
        self.reference = choice(
            [WHOLE_IMAGE, DRAW],
            "What counts as undisplaced and unstrained: the lattice of all atoms, or that of the "
            "atoms inside a region that you draw, extended over the image.",
        )
        self.trend = choice(
            list(TRENDS),
            "Drift and scan distortion that is taken off the arrows; the note says what was.",
        )
        self.gain = QLabeledSlider(Qt.Orientation.Horizontal)  # of whole numbers: obeys keys, too
        self.gain.setRange(1, 200)
        self.gain.setToolTip("How many times longer than in the image the arrows are drawn.")
        self.colour = choice(list(COLOURS), "What the colour of an arrow tells.")
        self.hide_noise = _box(
            "Hide arrows below twice their standard deviation", "Leave out what may be chance."
        )
        self.note = label("", "What the arrows are, and what was taken off.")
        self.arrow_bar = ColourBar()
        self.wheel = ColourWheel()
        self.wheel.hide()
        self.map = choice([NO_MAP], "What is shown as a map over the image.")
        self.deviation = _box("s.d.", "Show the standard deviation of the map instead of it.")
        self.map_bar = ColourBar()
        self.map_note = label()
        self.unit = choice(UNITS, "Unit of lengths, in maps, scales and figures.")
        self.scale_bar = _box("Scale bar", "Show napari's scale bar on the canvas.")
        self.canvas_bar = _box("Colour bar", "Show the colour bar of the map on the canvas.")
        self.copy_figure = button(
            "Copy figure",
            "Copy what is in view, to be pasted into a document: the image, the map, the arrows, "
            "their scales and a scale bar.",
        )
        self.save_figure = button(
            "Save figure …", "Write the same as PNG, as SVG, or as TIFF with its scale in it."
        )
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
        for one in (self.vectors, self.position, self.trend, self.unit):
            one.currentTextChanged.connect(self._on_asked)
        # who chooses arrows wants to see them
        self.vectors.activated.connect(lambda _: self.arrows.setChecked(True))
        self.reference.currentIndexChanged.connect(self._on_asked)
        for box in (self.arrows, self.hide_noise):
            box.toggled.connect(self._on_look)
        self.gain.valueChanged.connect(self._on_look)
        self.colour.currentTextChanged.connect(self._on_look)
        for one in (self.map, self.unit):
            one.currentTextChanged.connect(self._on_map)
        self.deviation.toggled.connect(self._on_map)

    def _lay_out(self) -> None:
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        form = rows()
        form.addRow(in_line(self.arrows, self.atoms))
        form.addRow(self.vectors)  # the whole width: their names are long
        form.addRow("Of the", self.position)
        form.addRow("Against", self.reference)
        form.addRow("Take off", self.trend)
        form.addRow("Magnified", self.gain)
        form.addRow("Colour", self.colour)
        form.addRow(self.hide_noise)
        inner.addLayout(form)
        inner.addWidget(self.arrow_bar)
        inner.addWidget(self.wheel)
        inner.addWidget(self.note)
        maps = rows()
        line = QHBoxLayout()
        line.addWidget(self.map, 1)
        line.addWidget(self.deviation)
        maps.addRow("Map", line)
        inner.addLayout(maps)
        inner.addWidget(self.map_bar)
        inner.addWidget(self.map_note)
        line = QHBoxLayout()
        line.addWidget(QLabel("Lengths in"))
        line.addWidget(self.unit, 1)
        line.addWidget(self.scale_bar)
        line.addWidget(self.canvas_bar)
        inner.addLayout(line)
        inner.addLayout(in_line(self.copy_figure, self.save_figure))
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

    def show_references(self, names: Sequence[str], chosen: int | None) -> None:
        """Offer the layers of shapes there are; `chosen` is one of them, None the whole image."""
        with QSignalBlocker(self.reference):
            self.reference.clear()
            # a new one last: the keys that go up and down the list shall not pass it
            self.reference.addItems([WHOLE_IMAGE, *names, DRAW])
            self.reference.setCurrentIndex(0 if chosen is None else chosen + 1)

    def show_units(self, *, known: bool) -> None:
        """Offer units of length; only pixels where the size of a pixel is not known."""
        units = UNITS if known else ("px",)
        if units != tuple(self.unit.itemText(index) for index in range(self.unit.count())):
            with QSignalBlocker(self.unit):
                self.unit.clear()
                self.unit.addItems(units)

    def choose_map(self, name: str) -> None:
        """Follow the map that is visible; one that is not offered counts as none."""
        with QSignalBlocker(self.map), QSignalBlocker(self.deviation):
            self.map.setCurrentIndex(max(0, self.map.findText(name.removesuffix(DEVIATION))))
            if name:
                self.deviation.setChecked(name.endswith(DEVIATION))

    def show_arrows(self, visible: bool) -> None:
        """Follow whether the arrows are visible."""
        with QSignalBlocker(self.arrows):
            self.arrows.setChecked(visible)

    def show_atoms(self, visible: bool) -> None:
        """Follow whether the atoms are visible."""
        with QSignalBlocker(self.atoms):
            self.atoms.setChecked(visible)

    def show_gain(self, gain: float) -> None:
        """Follow how much longer the arrows are drawn."""
        with QSignalBlocker(self.gain):
            self.gain.setValue(round(gain))

    def _on_asked(self, _: object) -> None:
        self.asked.emit()

    def _on_look(self, _: object) -> None:
        self.look_changed.emit()

    def _on_map(self, _: object) -> None:
        self.map_changed.emit()


def _box(text: str, tip: str) -> QCheckBox:
    made = QCheckBox(text)
    made.setToolTip(tip)
    return made
