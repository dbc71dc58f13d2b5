"""Stacks of frames: one model for all, each frame read with it, shown with napari's slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_shiftvae import sequence_jobs
from napari_shiftvae.jobs import Started
from napari_shiftvae.placement import spatial
from napari_shiftvae.sequence_layers import sequence_layers
from napari_shiftvae.widgets.frame_view import FrameView
from napari_shiftvae.widgets.side_job import SideJob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Image

    from napari_shiftvae import jobs
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.train_panel import TrainPanel

TRAINED = 0.6  # of the progress bar; the rest is for the frames


class StackControl(QObject):
    """Runs the analysis of a stack for the Train tab.

    Parameters
    ----------
    panel : TrainPanel
    overlay : Overlay
    """

    fraction_changed = Signal(float)

    def __init__(self, panel: TrainPanel, overlay: Overlay) -> None:
        super().__init__(panel)
        self._panel = panel
        self._overlay = overlay
        self._session = overlay.session
        self._chosen: Image | None = None
        self._layer: Image | None = None
        self.order: sequence_jobs.Order | None = None  # the last one
        self.device = ""
        self.frames = FrameView(overlay, self)
        self.job = SideJob(
            self._session, self, kept="frames that were read are kept: start it again to go on."
        )
        self.job.progressed.connect(self._on_progress)
        self.job.succeeded.connect(lambda finished: self.job.conclude(self._concluding(finished)))
        self.job.ended.connect(lambda: self.fraction_changed.emit(0.0))
        panel.spectra.currentIndexChanged.connect(lambda _: self.follow(self._chosen))

    @property
    def wanted(self) -> bool:
        """Whether the chosen layer is a stack of frames, and not one of spectra."""
        layer = self._chosen
        of_frames = self._panel.spectra.currentIndex() <= 0
        return layer is not None and layer.ndim == 3 and not layer.rgb and of_frames

    def follow(self, layer: Image | None) -> None:
        """Ask what only a stack of frames needs to be asked."""
        self._chosen = layer
        self._panel.stack.setVisible(self.wanted)

    def start(self, layer: Image, asked: jobs.Order) -> None:
        """Analyse all frames of a layer."""
        box, picks, frames = self._panel.stack, asked.picks, len(layer.data)
        if picks is not None and len(set(picks.t)) == 1 < frames:
            self.job.refuse(
                f"There are atoms in frame {picks.t[0]} only: press Find for those of all frames, "
                "or delete these to have them found."
            )
            return
        order = sequence_jobs.Order(
            stack=asked.image,
            find=asked.find,
            train=asked.train,
            device=asked.device,
            picks=picks,
            share=box.share.value() / 100,
            folder=box.folder,
            trained=asked.trained,
            runs_folder=asked.folder,
        )
        self._layer, self.order = layer, order
        self.job.start("frames", layer.name, sequence_jobs.analysis, order)

    @property
    def key(self) -> object:
        """What the layer is known by that was analysed last."""
        return None if self._layer is None else self._layer.unique_id

    def _on_progress(self, progress: Any) -> None:
        if isinstance(progress, Started):
            self.device = progress.device
            return
        if not hasattr(progress, "stage"):  # a frame is done
            self._session.say(progress.message)
            begun = TRAINED if self.order is None or self.order.trained is None else 0.0
            self._show(begun + (1 - begun) * progress.done / progress.total)
        elif progress.report is not None:
            self._session.take_progress(progress)
            self._session.say(progress.message)
            self._panel.show_progress(progress, self._session.losses, self.device)
            self._show(TRAINED * progress.fraction)

    def _show(self, fraction: float) -> None:
        self.job.show(fraction)
        self.fraction_changed.emit(fraction)

    def _concluding(self, finished: sequence_jobs.Finished) -> Iterator[None]:
        run, layer = finished.run, self._layer
        if layer is None:
            return
        picks = self._overlay.atoms
        if picks is not None:
            picks.visible = False
        data = sequence_layers(run, finished.maps, layer.name, spatial(layer))
        self.frames.show(run, layer, (yield from self._overlay.runs.adding_all(data)))
        self._panel.show_end(run.run)
        self._panel.findings.setText("\n".join(run.findings))
        total = len(layer.data)
        read = f"{total} frames" if run.frames == total else f"{run.frames} of {total} frames"
        more = "" if run.frames == total else " Start it again to read the others."
        self._session.say(
            f"Done: {len(run.atoms)} atoms in {read}, kept in {finished.folder}.{more}"
        )
