"""Spectra: one for each pixel of a scan, along an axis of the layer that the user names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QSignalBlocker, Signal

from napari_shiftvae import spectra_jobs
from napari_shiftvae.core.checkpoint import Interrupted
from napari_shiftvae.layers import RUN
from napari_shiftvae.placement import source_path, without_axis
from napari_shiftvae.spectra_layers import spectra_layers
from napari_shiftvae.widgets.pace import Pace
from napari_shiftvae.widgets.runs_folder import chosen_folder
from napari_shiftvae.widgets.side_job import SideJob
from napari_shiftvae.widgets.worker import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari.layers import Image

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.spectra_run import SpectraRun
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
    interrupted_opened = Signal()

    def __init__(self, panel: TrainPanel, overlay: Overlay) -> None:
        super().__init__(panel)
        self._panel = panel
        self._overlay = overlay
        self._session = overlay.session
        self._chosen: Image | None = None
        self._layer: Image | None = None
        self.order: spectra_jobs.Order | None = None  # the last one
        self._axis = 0
        self.job = SideJob(self._session, self, kept="no result was kept.")
        self._checkpoints = one_thread("writing checkpoints")
        self._pace = Pace(self.progressed.emit, panel)
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(lambda finished: self.job.conclude(self._concluding(finished)))
        overlay.viewer.layers.events.inserted.connect(self._on_inserted)
        for no_result in (self.job.cancelled, self.job.runner.refused, self.job.runner.failed):
            no_result.connect(self._pace.forget)  # it would hide what is said now

    def follow(self, layer: Image | None) -> None:
        """Offer the axes of a layer with three dimensions."""
        self._chosen = layer
        axes = [] if layer is None or layer.ndim != 3 else list(layer.axis_labels)
        with QSignalBlocker(self._panel.spectra):
            self._panel.spectra.clear()
            self._panel.spectra.addItems([NO_SPECTRA, *(f"axis {name}" for name in axes)])
        self._panel.show_spectra_row(bool(axes))

    def axis(self) -> int | None:
        """Axis of the spectra, None where the layer is no scan of spectra."""
        index = self._panel.spectra.currentIndex()
        return index - 1 if index > 0 else None

    def interrupted(self) -> tuple[SpectraRun, Path | None] | None:
        """Find a run of the chosen spectra that can go on, and its file, among what was opened."""
        chosen, axis = self._chosen, self.axis()
        if chosen is None or axis is None:
            return None
        for layer in reversed(self._overlay.viewer.layers):
            run = layer.metadata.get(RUN)
            of_these = getattr(getattr(run, "image", None), "axis", None) == axis
            if of_these and run.resumable and run.image.shape == tuple(chosen.data.shape):
                return run, source_path(layer)
        return None

    def _on_inserted(self, event: Any) -> None:
        """Say what is missing where an interrupted run was opened."""
        run = event.value.metadata.get(RUN)
        if hasattr(getattr(run, "image", None), "axis") and run.resumable:
            where = run.image.path or f"the spectra '{run.image.name}'"
            self._session.say(
                f"To go on from epoch {run.epochs}: open {where}, choose axis {run.image.axis} for "
                "the spectra in the Train tab, and press Resume."
            )
            self.interrupted_opened.emit()

    def start(
        self, layer: Image, settings: TrainSettings, device: str, *, resume: bool = False
    ) -> None:
        """Analyse the spectra of a layer along the chosen axis, or go on with it."""
        axis = self.axis()
        if axis is None:
            return
        self._layer, self._axis = layer, axis
        unit = layer.units[axis]
        run, path = (self.interrupted() if resume else None) or (None, None)
        own = path is not None and path.parent == chosen_folder() and Interrupted.of(path)
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
            resume=run,
            continues=path if own else None,
        )
        self.order = order
        order = replace(order, executor=self._checkpoints)
        self.job.start("spectra", layer.name, spectra_jobs.analysis, order)

    @property
    def key(self) -> object:
        """What the layer is known by that was analysed last."""
        return None if self._layer is None else self._layer.unique_id

    def close(self) -> None:
        """End the thread and stop listening."""
        self._overlay.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.job.close()
        self._checkpoints.shutdown()
        with suppress(RuntimeError):  # Qt may have deleted it before
            self._pace.forget()

    def _on_progress(self, progress: Progress) -> None:
        self._session.take_progress(progress)
        self.job.show(progress.fraction)
        self._pace.offer(progress)

    def _concluding(self, finished: spectra_jobs.Finished) -> Iterator[None]:
        run = finished.run
        self._pace.catch_up()
        if self._layer is not None:
            place = without_axis(self._layer, self._axis)
            yield from self._overlay.runs.adding_all(spectra_layers(run, self._layer.name, place))
        self._panel.findings.setText("\n".join(run.diagnostics.sentences))
        unit = run.image.axis_unit or "axis steps"
        self._session.say(
            f"Done: {int(run.used.sum())} spectra, {run.epochs} epochs, "
            f"{run.seconds['total']:.1f} s on {run.device}; shifts are in {unit}."
            + ("" if finished.saved is None else f" Saved: {finished.saved.name}")
        )
