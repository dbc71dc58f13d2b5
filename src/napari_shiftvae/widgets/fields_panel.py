"""The Fields tab: displacement arrows and latent maps on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_shiftvae.layers import ARROW_COLORMAP, LATENT_COLORMAP, READINGS
from napari_shiftvae.widgets.colour_bar import ColourBar
from napari_shiftvae.widgets.form import choice, label, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_MAP = "none"


class FieldsPanel(QWidget):
    """What is shown of a run on the image; the dock does the showing."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.empty = label("No fields yet: run an analysis first.")
        self.content = QWidget()
        self.arrows = QCheckBox("Show arrows")
        self.arrows.setToolTip("Show or hide the layer of arrows.")
        self.reading = choice(list(READINGS), "Which displacement of the atoms the arrows show.")
        self.reading_note = label()
        self.gain = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.gain.setRange(1, 200)
        self.gain.setDecimals(0)
        self.gain.setToolTip("How many times longer than in the image the arrows are drawn.")
        self.arrow_bar = ColourBar()
        self.map = choice([NO_MAP], "Which latent is shown as a map over the image.")
        self.map_bar = ColourBar()
        inner = QVBoxLayout(self.content)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.arrows)
        form = rows()
        form.addRow("Arrows of", self.reading)
        form.addRow("", self.reading_note)
        form.addRow("Magnified", self.gain)
        inner.addLayout(form)
        inner.addWidget(self.arrow_bar)
        maps = rows()
        maps.addRow("Latent map", self.map)
        inner.addSpacing(12)
        inner.addLayout(maps)
        inner.addWidget(self.map_bar)
        layout = QVBoxLayout(self)
        layout.addWidget(self.empty)
        layout.addWidget(self.content)
        layout.addStretch(1)
        self.content.hide()
        self.arrows.toggled.connect(self._on_changed)
        self.reading.currentTextChanged.connect(self._on_changed)
        self.gain.valueChanged.connect(self._on_changed)
        self.map.currentTextChanged.connect(self._on_changed)

    def show_choices(
        self, latents: Sequence[str], *, arrows: bool, reading: str, gain: float, shown_map: str
    ) -> None:
        """Offer what a run has, without a signal; no latents means there is no run."""
        self.blockSignals(True)
        self.empty.setVisible(not latents)
        self.content.setVisible(bool(latents))
        self.map.clear()
        self.map.addItems([NO_MAP, *latents])
        self.map.setCurrentText(shown_map)
        self.arrows.setChecked(arrows)
        self.reading.setCurrentText(reading)
        self.gain.setValue(gain)
        self.blockSignals(False)
        self._note()

    def show_arrow_scale(self, longest: float, unit: str) -> None:
        """Colour bar of the arrows, from 0 to a length in a unit."""
        self.arrow_bar.set_scale(f"length of arrow ({unit})", ARROW_COLORMAP, (0.0, longest))

    def show_map_scale(self, name: str, limits: tuple[float, float]) -> None:
        """Colour bar of the latent map; latents have no unit."""
        self.map_bar.setVisible(name != NO_MAP)
        if name != NO_MAP:
            self.map_bar.set_scale(f"{name} (no unit)", LATENT_COLORMAP, limits)

    def _note(self) -> None:
        self.reading_note.setText(READINGS[self.reading.currentText()])

    def _on_changed(self) -> None:
        self._note()
        self.changed.emit()
