"""Keeps the boxes of the Fields tab the same as the eyes in napari's list of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer, Points, Vectors
from qtpy.QtCore import QObject, Signal

from napari_shiftvae.layers import RUN

if TYPE_CHECKING:
    import napari

    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.fields_panel import FieldsPanel


class Eyes(QObject):
    """Follows which layers of the run are visible, and shows or hides its atoms and arrows.

    Parameters
    ----------
    panel : FieldsPanel
    viewer : napari.viewer.Viewer
    overlay : Overlay
    """

    map_changed = Signal(str)  # the map that is visible now, empty where none is

    def __init__(self, panel: FieldsPanel, viewer: napari.viewer.Viewer, overlay: Overlay) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = viewer
        self._overlay = overlay
        for layer in viewer.layers:
            layer.events.visible.connect(self._on_eye)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        panel.atoms.toggled.connect(self._on_atoms)
        panel.arrows.toggled.connect(self._on_arrows)

    def close(self) -> None:
        """Stop listening."""
        for layer in self._viewer.layers:
            layer.events.visible.disconnect(self._on_eye)
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self._viewer.layers.events.removed.disconnect(self._on_removed)

    def _on_inserted(self, event: Any) -> None:
        event.value.events.visible.connect(self._on_eye)
        if not self._overlay.runs.inserting:
            self._show(event.value)

    def _on_removed(self, event: Any) -> None:
        event.value.events.visible.disconnect(self._on_eye)
        self._show(event.value)

    def _on_eye(self, event: Any) -> None:
        self._show(event.source)

    def _show(self, changed: Layer) -> None:
        """Follow a layer that was shown, hidden, added or deleted."""
        run = self._overlay.session.run
        if run is None or changed.metadata.get(RUN) is not run:
            return
        layers = self._overlay.runs
        if isinstance(changed, Image):
            if not layers.showing:
                self.map_changed.emit(layers.shown_map(run) or "")
        elif isinstance(changed, Vectors):
            arrows = layers.arrows_of(run)
            self._panel.show_arrows(arrows is not None and arrows.visible)
        elif isinstance(changed, Points):
            atoms = layers.atoms_of(run)
            self._panel.show_atoms(atoms is not None and atoms.visible)

    def _on_arrows(self, shown: bool) -> None:
        """Show or hide arrows that are there, though their field cannot be worked out."""
        run = self._overlay.session.run
        arrows = None if run is None else self._overlay.runs.arrows_of(run)
        if arrows is None:
            self._panel.show_arrows(False)
        else:
            arrows.visible = shown

    def _on_atoms(self, shown: bool) -> None:
        """Show or hide the atoms, which are put back where their layer was deleted."""
        run = self._overlay.session.run
        if run is None:
            return
        atoms = self._overlay.runs.atoms_of(run)
        if atoms is None and shown:
            atoms = self._overlay.runs.put_back_atoms(run, self._overlay.image)
        if atoms is not None:
            atoms.visible = shown
