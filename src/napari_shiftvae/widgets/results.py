"""What a run leaves behind: a run file, a folder of tables and maps, layers of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_shiftvae import fields_jobs
from napari_shiftvae.widgets.fields_panel import NO_MAP
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.scalars import Scalar
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.fields_panel import FieldsPanel

RUNS = "Shift-VAE runs (*.shiftvae)"


class Results(QObject):
    """Saves and exports the run of the chosen image, and adds layers of its model.

    Parameters
    ----------
    panel : FieldsPanel
    overlay : Overlay
    image : callable
        Gives the chosen image, None where there is none that can be analysed.
    scalars : callable
        Gives what maps are made of.
    """

    def __init__(
        self,
        panel: FieldsPanel,
        overlay: Overlay,
        image: Callable[[], MicroscopeImage | None],
        scalars: Callable[[], list[Scalar]],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._overlay = overlay
        self._session = overlay.session
        self._image = image
        self._scalars = scalars
        self._runner = Runner(self)
        self._runner.succeeded.connect(self._on_done)
        self._runner.refused.connect(self._refuse)
        self._runner.failed.connect(lambda error: self._refuse(f"It failed: {error}"))
        self._runner.disable_meanwhile(panel.model_layers, panel.save, panel.export)
        panel.model_layers.clicked.connect(self._on_model_layers)
        panel.save.clicked.connect(self._on_save)
        panel.export.clicked.connect(self._on_export)

    def close(self) -> None:
        """End the thread."""
        self._runner.close()

    def _on_model_layers(self) -> None:
        run = self._session.run
        image = self._image()
        if run is None or image is None:
            return
        self._session.say("Drawing the reconstruction ...")
        self._runner.start("drawing the reconstruction", fields_jobs.reconstruct, run, image)

    def _on_done(self, result: Any) -> None:
        if isinstance(result, str):
            self._session.say(result)
            return
        run, drawn = result
        if self._session.run is run:
            self._panel.map.setCurrentText(NO_MAP)  # which would lie over the reconstruction
            self._overlay.runs.add_reconstruction(run, self._overlay.image, drawn)
            self._session.say(
                "Added the reconstruction and, hidden, the residual: in noise s.d., green where "
                "the image is brighter than the model, pink where darker, up to ± 5."
            )

    # -- files ---------------------------------------------------------------------------------

    def _on_save(self) -> None:
        run = self._session.run
        if run is None:
            return
        name = f"{run.image.name}.shiftvae"
        path, _ = QFileDialog.getSaveFileName(self._panel.window(), "Save run", name, RUNS)
        if path:
            path = path if path.endswith(".shiftvae") else f"{path}.shiftvae"
            self._runner.start("saving the run", fields_jobs.save, run, path)

    def _on_export(self) -> None:
        run = self._session.run
        if run is None:
            return
        folder = QFileDialog.getExistingDirectory(self._panel.window(), "Export into a folder")
        if folder:
            self._session.say("Exporting ...")
            what = (run, self._image(), folder, self._scalars())
            self._runner.start("exporting", fields_jobs.export, *what)

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)
