"""Spectra: one for each pixel of a scan, along an axis of the layer that the user names."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QSignalBlocker, Signal

from napari_shiftvae import spectra_jobs
from napari_shiftvae.placement import source_path, without_axis
from napari_shiftvae.widgets.pace import Pace
from napari_shiftvae.widgets.runs_folder import chosen_folder
from napari_shiftvae.widgets.side_job import SideJob

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.settings import TrainSettings
    from napari_shiftvae.widgets.train_panel import TrainPanel

NO_SPECTRA = "none: a stack of frames"


class SpectraControl(QObject):
    """Runs the analysis of spectra for the Train tab, and lays its maps on the scan.

    Parameters
    ----------
    panel : TrainPanel
    overlay : Overlay
    """

    progressed = Signal(object)  # Progress

    def __init__(self, panel: TrainPanel, overlay: Overlay) -> None:
        super().__init__(panel)
        self._panel = panel
        self._overlay = overlay
        self._session = overlay.session
        self._layer: Image | None = None
        self.order: spectra_jobs.Order | None = None  # the last one
        self._axis = 0
        self.job = SideJob(self._session, self, kept="no result was kept.")
        self._pace = Pace(self.progressed.emit, panel)
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(self._on_success)
        self.job.cancelled.connect(self._pace.forget)
        self.job.ended.connect(self._pace.forget)  # what it would show is over

    def follow(self, layer: Image | None) -> None:
        """Offer the axes of a layer with three dimensions."""
        axes = [] if layer is None or layer.ndim != 3 else list(layer.axis_labels)
        with QSignalBlocker(self._panel.spectra):
            self._panel.spectra.clear()
            self._panel.spectra.addItems([NO_SPECTRA, *(f"axis {name}" for name in axes)])
        self._panel.show_spectra_row(bool(axes))

    def axis(self) -> int | None:
        """Axis of the spectra, None where the layer is no scan of spectra."""
        index = self._panel.spectra.currentIndex()
        return index - 1 if index > 0 else None

    def start(self, layer: Image, settings: TrainSettings, device: str) -> None:
        """Analyse the spectra of a layer along the chosen axis."""
        axis = self.axis()
        if axis is None:
            return
        self._layer, self._axis = layer, axis
        unit = layer.units[axis]
        order = spectra_jobs.Order(
            cube=layer.data,
            axis=axis,
            axis_scale=float(layer.scale[axis]),
            axis_unit="" if str(unit) == "pixel" else f"{unit:~}",
            name=layer.name,
            path=str(source_path(layer) or ""),
            train=settings,
            device=device,
            folder=chosen_folder(),
        )
        self.order = order
        self.job.start("spectra", layer.name, spectra_jobs.analysis, order)

    @property
    def key(self) -> object:
        """What the layer is known by that was analysed last."""
        return None if self._layer is None else self._layer.unique_id

    def close(self) -> None:
        """End the thread."""
        self.job.close()
        with suppress(RuntimeError):  # Qt may have deleted it before
            self._pace.forget()

    def _on_progress(self, progress: Progress) -> None:
        self._session.take_progress(progress)
        self.job.show(progress.fraction)
        self._pace.offer(progress)

    def _on_success(self, finished: spectra_jobs.Finished) -> None:
        run = finished.run
        self._pace.catch_up()
        if self._layer is not None:
            self._overlay.runs.add_spectra(
                run, self._layer.name, without_axis(self._layer, self._axis)
            )
        self._panel.findings.setText("\n".join(run.diagnostics.sentences))
        unit = run.image.axis_unit or "axis steps"
        self._session.say(
            f"Done: {int(run.used.sum())} spectra, {run.epochs} epochs, "
            f"{run.seconds['total']:.1f} s on {run.device}; shifts are in {unit}."
            + ("" if finished.saved is None else f" Saved: {finished.saved.name}")
        )
