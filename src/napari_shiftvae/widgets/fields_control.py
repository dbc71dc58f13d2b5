"""What the Fields tab does: works out fields in a thread, and keeps their layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from napari_shiftvae import field_layers, fields_jobs
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.lasso import NAME as LASSO
from napari_shiftvae.layers import LATENT_COLORMAP, arrow_colormap, latent_limits
from napari_shiftvae.regions import region_mask
from napari_shiftvae.widgets.fields_panel import NO_MAP, TRENDS, WHOLE_IMAGE
from napari_shiftvae.widgets.worker import Latest, Runner

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.readout import Readout, Scalar
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.fields_panel import FieldsPanel

PM_PER_NM = 1000.0
RUNS = "Shift-VAE runs (*.shiftvae)"


class FieldsControl(QObject):
    """Connects the Fields tab with a run and its layers.

    Parameters
    ----------
    panel : FieldsPanel
    viewer : napari.viewer.Viewer
    overlay : Overlay
    image : callable
        Gives the chosen image, None where there is none that can be analysed.
    """

    latent_shown = Signal(str)  # a latent whose map is shown, or NO_MAP
    read = Signal()  # fields were worked out and are shown

    def __init__(
        self,
        panel: FieldsPanel,
        viewer: napari.viewer.Viewer,
        overlay: Overlay,
        image: Callable[[], MicroscopeImage | None],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = viewer
        self._overlay = overlay
        self._session = overlay.session
        self._image = image
        self._readout: Readout | None = None
        self._pixel_nm: float | None = None
        self._wrong = False  # the last thing said was that something cannot be worked out
        self._reads = Latest("working out fields", fields_jobs.read, self)
        self._draws = Latest("drawing the map", fields_jobs.draw, self)
        self._runner = Runner(self)
        panel.asked.connect(self._ask)
        panel.look_changed.connect(self._show_arrows)
        panel.map_changed.connect(self._on_map)
        panel.model_layers.clicked.connect(self._on_model_layers)
        panel.save.clicked.connect(self._on_save)
        panel.export.clicked.connect(self._on_export)
        self._reads.succeeded.connect(self._on_read)
        self._reads.runner.refused.connect(self._on_refused)
        self._reads.runner.failed.connect(lambda error: self._on_refused(f"It failed: {error}"))
        self._draws.succeeded.connect(self._on_drawn)
        self._runner.succeeded.connect(self._on_done)
        self._runner.refused.connect(self._refuse)
        self._runner.failed.connect(lambda error: self._refuse(f"It failed: {error}"))
        layers = viewer.layers
        for event in (layers.events.inserted, layers.events.removed):
            event.connect(self._show_references)
        self._show_references()

    def close(self) -> None:
        """End the threads and stop listening."""
        self._reads.close()
        self._draws.close()
        self._runner.close()
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.disconnect(self._show_references)

    def show_run(self, run: Run | None) -> None:
        """Offer what a run has, as its layers are at the moment."""
        self._panel.show_content(run is not None)
        if run is None:
            self._readout = None
            return
        arrows = self._overlay.runs.arrows_of(run)
        if arrows is not None:
            self._panel.show_arrows(visible=arrows.visible, gain=arrows.length)
        self._panel.show_maps(list(run.maps), self._overlay.runs.shown_map(run) or NO_MAP)
        self._show_scales()
        self._ask()

    def show_pixel_size(self, pixel_nm: float | None) -> None:
        """Give lengths in pm where the size of a pixel [nm] is known."""
        self._pixel_nm = pixel_nm
        self._show_scales()

    # -- working out ---------------------------------------------------------------------------

    def _ask(self) -> None:
        run = self._session.run
        if run is None:
            return
        try:
            inside = self._region()
        except InputError as error:
            self._refuse(str(error))
            return
        panel, picks = self._panel, self._session.picks
        named = picks.sublattice if len(picks) == len(run.atoms) and picks.sublattices else None
        wanted = {
            "vectors": panel.vectors.currentText(),
            "position": panel.position.currentText(),
            "trend": TRENDS[panel.trend.currentText()],
        }
        self._reads.ask(run, wanted, inside, named)

    def _region(self) -> NDArray[np.bool_] | None:
        name = self._panel.reference.currentText()
        if name == WHOLE_IMAGE or self._overlay.image is None:
            return None
        return region_mask(self._viewer.layers[name], self._overlay.image)

    def _show_references(self, _: object = None) -> None:
        self._panel.show_references(
            [
                layer.name
                for layer in self._viewer.layers
                if isinstance(layer, Shapes) and layer.editable and layer.name != LASSO
            ]
        )

    def _on_read(self, result: tuple[Run, Readout]) -> None:
        run, readout = result
        if self._session.run is not run:
            return
        if self._wrong:
            self._wrong = False
            self._session.say(readout.sentences[0])
        self._readout = readout
        shown = self._panel.map.currentText()
        self._panel.show_maps([*run.maps, *readout.scalars], shown)
        self._panel.note.setText("\n".join(readout.sentences))
        self._show_arrows()
        if shown in readout.scalars:
            self._on_map(shown)
        self.read.emit()

    def _on_refused(self, sentence: str) -> None:
        self._wrong = True
        self._panel.note.setText(sentence)
        self._session.say(sentence, wrong=True)

    # -- arrows --------------------------------------------------------------------------------

    def _show_arrows(self) -> None:
        run, readout, panel = self._session.run, self._readout, self._panel
        if run is None or readout is None:
            return
        look = field_layers.Look(
            gain=panel.gain.value(),
            by_angle=panel.colour.currentText() == "angle",
            hide_noise=panel.hide_noise.isChecked(),
        )
        self._overlay.runs.show_vectors(
            run, self._overlay.image, readout.field, look, visible=panel.arrows.isChecked()
        )
        self._show_scales()

    def _show_scales(self) -> None:
        run, readout, panel = self._session.run, self._readout, self._panel
        if run is None or readout is None:
            return
        if panel.colour.currentText() == "angle":
            panel.arrow_bar.set_scale(
                "angle of arrow (degree, from x towards y)",
                field_layers.ANGLE_COLORMAP,
                (-180, 180),
            )
        else:
            longest, unit = self._in_unit(field_layers.longest(readout.field), "px")
            panel.arrow_bar.set_scale(f"length of arrow ({unit})", arrow_colormap(), (0.0, longest))
        name = panel.map.currentText()
        panel.map_bar.setVisible(name != NO_MAP)
        panel.map_note.setText("")
        if name in readout.scalars:
            scalar = readout.scalars[name]
            low, high = field_layers.limits(scalar)
            factor, unit = self._in_unit(1.0, scalar.unit)
            title = f"{name} ({unit})"
            panel.map_bar.set_scale(
                title, field_layers.colormap(scalar), (low * factor, high * factor)
            )
            sd = float(np.nanmedian(scalar.sd)) if np.isfinite(scalar.sd).any() else np.nan
            if np.isfinite(sd):
                panel.map_note.setText(f"Standard deviation of an atom: {sd * factor:.2g} {unit}")
        elif name != NO_MAP and name in run.maps:
            limits = latent_limits(run.atoms[name])
            panel.map_bar.set_scale(f"{name} (no unit)", LATENT_COLORMAP, limits)

    def _in_unit(self, value: float, unit: str) -> tuple[float, str]:
        """Lengths in pm where the size of a pixel is known."""
        if unit != "px" or self._pixel_nm is None:
            return value, unit
        return value * self._pixel_nm * PM_PER_NM, "pm"

    # -- maps ----------------------------------------------------------------------------------

    def _on_map(self, name: str) -> None:
        run, readout = self._session.run, self._readout
        if run is None or not name:
            return
        scalar = None if readout is None else readout.scalars.get(name)
        if scalar is None:
            self._overlay.runs.show_map(run, None if name == NO_MAP else name)
        else:
            self._draws.ask(run, scalar)
        self._show_scales()
        self.latent_shown.emit(name if name in run.maps else NO_MAP)

    def _on_drawn(self, result: tuple[Run, Scalar, NDArray[np.float32]]) -> None:
        run, scalar, drawn = result
        if self._session.run is run and self._panel.map.currentText() == scalar.name:
            look = field_layers.map_look(scalar)
            self._overlay.runs.show_field(run, self._overlay.image, scalar.name, drawn, look)

    def _on_model_layers(self) -> None:
        run = self._session.run
        image = self._image()
        if run is None or image is None or self._runner.busy:
            return
        self._session.say("Drawing the reconstruction ...")
        self._runner.start("drawing the reconstruction", fields_jobs.reconstruct, run, image)

    def _on_done(self, result: Any) -> None:
        if isinstance(result, str):
            self._session.say(result)
            return
        run, drawn = result
        if self._session.run is run:
            self._overlay.runs.add_reconstruction(run, self._overlay.image, drawn)
            self._session.say("Added the reconstruction and the residual as layers.")

    # -- files ---------------------------------------------------------------------------------

    def _on_save(self) -> None:
        run = self._session.run
        if run is None or self._runner.busy:
            return
        name = f"{run.image.name}.shiftvae"
        path, _ = QFileDialog.getSaveFileName(self._panel.window(), "Save run", name, RUNS)
        if path:
            path = path if path.endswith(".shiftvae") else f"{path}.shiftvae"
            self._runner.start("saving the run", fields_jobs.save, run, path)

    def _on_export(self) -> None:
        run = self._session.run
        if run is None or self._runner.busy:
            return
        folder = QFileDialog.getExistingDirectory(self._panel.window(), "Export into a folder")
        if folder:
            self._session.say("Exporting ...")
            scalars = [] if self._readout is None else list(self._readout.scalars.values())
            job = fields_jobs.export
            self._runner.start("exporting", job, run, self._image(), folder, scalars)

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)
