"""The frame of an analysed stack that napari's slider is at, for the Explore and the Fields tab."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_shiftvae import sequence_jobs
from napari_shiftvae.placement import image_from_layer
from napari_shiftvae.sequence_layers import frame_layers, show_frame
from napari_shiftvae.widgets.worker import Latest

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_shiftvae.core.frames import SequenceRun
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.overlay import Overlay


LATE_MS = 300  # after which the frame before is no longer shown over the new one


class FrameView(QObject):
    """Takes the frame that is shown as the run of the session, whenever it is another one.

    Parameters
    ----------
    overlay : Overlay
    parent : QObject
    """

    changed = Signal()  # another frame is shown

    def __init__(self, overlay: Overlay, parent: QObject) -> None:
        super().__init__(parent)
        self._overlay = overlay
        self._session = overlay.session
        self._dims = overlay.viewer.dims
        self._sequences: dict[object, SequenceRun] = {}  # by what their stacks are known by
        self._layers: dict[object, list[Layer]] = {}
        self._shown: sequence_jobs.Shown | None = None
        self._changed: dict[tuple[object, int], Run] = {}  # where classes were made, say
        self._hidden: list[Layer] = []  # until the new frame is taken up
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(LATE_MS)
        self._late.timeout.connect(self._hide)
        self._reads = Latest("taking up a frame", sequence_jobs.shown, self)
        self._reads.succeeded.connect(self._on_read)
        self._dims.events.current_step.connect(self._follow)
        self._session.image_changed.connect(self._follow)
        self._session.run_changed.connect(self._on_run)

    def close(self) -> None:
        """End the thread and stop listening."""
        self._reads.close()
        with suppress(RuntimeError):  # Qt may have deleted it before
            self._late.stop()
        self._dims.events.current_step.disconnect(self._follow)
        self._session.image_changed.disconnect(self._follow)
        self._session.run_changed.disconnect(self._on_run)

    @property
    def image(self) -> MicroscopeImage | None:
        """The frame that the session's run is of; None where that is of no frame."""
        shown = self._shown
        if shown is None or self._sequence is not shown.sequence:
            return None
        return shown.image

    @property
    def frame(self) -> int | None:
        """Which one that is."""
        return self._shown.frame if self._shown is not None and self.image is not None else None

    @property
    def _sequence(self) -> SequenceRun | None:
        """What was made of the chosen stack."""
        return self._sequences.get(self._session.key)

    def show(self, sequence: SequenceRun, layer: Image, made: list[Layer]) -> None:
        """Show the frames of a stack from now on; its maps are among the layers made of it."""
        self._sequences[layer.unique_id] = sequence
        self._layers[sequence] = made
        self._follow()

    def _follow(self, _: object = None) -> None:
        sequence, layer = self._sequence, self._overlay.image
        if sequence is None or layer is None:
            return
        frame, shown = self._overlay.frame, self._shown
        if shown is None or (shown.sequence, shown.frame) != (sequence, frame):
            self._reads.ask(sequence, image_from_layer(layer, stacks=True), frame)
            self._late.start()

    def _hide(self) -> None:
        """Take the frame before out of view."""
        there = self._layers.get(self._sequence, [])
        self._hidden += [one for one in there if one.ndim == 2 and one.visible]
        for one in self._hidden:
            one.visible = False

    def _unhide(self) -> None:
        self._late.stop()
        for one in self._hidden:
            one.visible = True
        self._hidden = []

    def _on_read(self, shown: sequence_jobs.Shown) -> None:
        sequence, layer = shown.sequence, self._overlay.image
        self._unhide()
        if sequence is not self._sequence or layer is None:
            return
        run = self._changed.get((sequence, shown.frame), shown.run)
        self._shown = shown
        if run is None:
            self._session.say(shown.sentence, wrong=True)
        else:
            self._lay(run, sequence, layer)
        self._session.replace_run(run)
        self.changed.emit()

    def _lay(self, run: Run, sequence: SequenceRun, layer: Image) -> None:
        """Let maps of all frames, and atoms and arrows of one, be those of this run."""
        there = [one for one in self._layers[sequence] if one in self._overlay.viewer.layers]
        if not any(one.ndim == 2 for one in there):
            there += self._overlay.runs.add(frame_layers(run, layer))
            self._layers[sequence] = there
        before = self._session.run
        earlier = [] if before is None else self._overlay.runs.of_run(before)
        for gone in show_frame(run, there, earlier):
            self._overlay.runs.remove(gone)

    def _on_run(self, run: Any) -> None:
        """Keep what was made of a frame, such as classes, for when it is shown again."""
        shown = self._shown
        if run is None or shown is None or shown.run is None or self.image is None:
            return
        if run is not shown.run and run.model is shown.run.model:
            self._changed[shown.sequence, shown.frame] = run
