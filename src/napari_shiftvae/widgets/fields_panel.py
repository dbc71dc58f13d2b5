"""The Fields tab: displacement arrows and latent maps on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_shiftvae.layers import (
    LATENT_COLORMAP,
    READINGS,
    arrow_colormap,
    latent_limits,
    longest_arrow,
)
from napari_shiftvae.widgets.colour_bar import ColourBar
from napari_shiftvae.widgets.form import choice, label, rows

if TYPE_CHECKING:
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.overlay import Overlay

NO_MAP = "none"


class FieldsPanel(QWidget):
    """Shows and hides what a run has to show on the image."""

    map_changed = Signal(str)  # latent, or NO_MAP

    def __init__(self, overlay: Overlay, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._overlay = overlay
        self._run: Run | None = None
        self._pixel_nm: float | None = None
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
        self._lay_out()
        self.content.hide()
        self.arrows.toggled.connect(self._on_arrows)
        self.reading.currentTextChanged.connect(self._on_arrows)
        self.gain.valueChanged.connect(self._on_arrows)
        self.map.currentTextChanged.connect(self._on_map)

    def _lay_out(self) -> None:
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

    def show_run(self, run: Run | None) -> None:
        """Offer what a run has, as its layers are at the moment."""
        self._run = run
        self.empty.setVisible(run is None)
        self.content.setVisible(run is not None)
        if run is None:
            return
        arrows = self._overlay.arrows_of(run)
        with (
            QSignalBlocker(self.arrows),
            QSignalBlocker(self.reading),
            QSignalBlocker(self.gain),
            QSignalBlocker(self.map),
        ):
            self.map.clear()
            self.map.addItems([NO_MAP, *run.maps])
            self.map.setCurrentText(self._overlay.shown_map(run) or NO_MAP)
            self.arrows.setChecked(arrows is not None and arrows.visible)
            if arrows is not None:
                self.reading.setCurrentText(arrows.metadata["reading"])
                self.gain.setValue(arrows.length)
        self._show_scales()

    def show_pixel_size(self, pixel_nm: float | None) -> None:
        """Give lengths in pm where the size of a pixel [nm] is known."""
        self._pixel_nm = pixel_nm
        self._show_scales()

    def _on_arrows(self) -> None:
        if self._run is not None:
            self._overlay.show_arrows(
                self._run,
                visible=self.arrows.isChecked(),
                reading=self.reading.currentText(),
                gain=self.gain.value(),
            )
        self._show_scales()

    def _on_map(self, chosen: str) -> None:
        if self._run is not None:
            self._overlay.show_map(self._run, None if chosen == NO_MAP else chosen)
        self._show_scales()
        self.map_changed.emit(chosen)

    def _show_scales(self) -> None:
        reading, run = self.reading.currentText(), self._run
        self.reading_note.setText(READINGS[reading])
        if run is None:
            return
        longest, unit = longest_arrow(run.atoms, reading), "px"
        if self._pixel_nm is not None:
            longest, unit = 1000 * longest * self._pixel_nm, "pm"
        self.arrow_bar.set_scale(f"length of arrow ({unit})", arrow_colormap(), (0.0, longest))
        shown = self.map.currentText()
        self.map_bar.setVisible(shown != NO_MAP)
        if shown != NO_MAP:
            limits = latent_limits(run.atoms[shown])
            self.map_bar.set_scale(f"{shown} (no unit)", LATENT_COLORMAP, limits)
