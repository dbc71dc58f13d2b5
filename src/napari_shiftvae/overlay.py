"""Keeps the viewer's layers in step with a session. No Qt.

Only layers made here are changed here, and of these the ones that hold a finished analysis no
more: an edit or a second run starts new layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from psygnal import Signal

from napari_shiftvae import docks, garbage
from napari_shiftvae.layers import RUN
from napari_shiftvae.pick_layers import PickLayers
from napari_shiftvae.picks import Picks
from napari_shiftvae.run_at_work import RunAtWork
from napari_shiftvae.run_layers import AtOnce, RunLayers

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.run_layers import Appears
    from napari_shiftvae.session import Session


class Overlay:
    """The layers of the analyses in one viewer, and the image that they are for.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    session : Session
    appearing : Appears
        Makes layers visible; by default at once.

    Attributes
    ----------
    picks : PickLayers
    at_work : RunAtWork
    runs : RunLayers

    Signals
    -------
    run_opened
        Atoms layer of a run that was opened from its file, and the run.
    """

    run_opened = Signal(object, object)

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        session: Session,
        appearing: Appears | None = None,
    ) -> None:
        self._viewer = viewer
        self.session = session
        self.runs = RunLayers(viewer, appearing or AtOnce())
        self.picks = PickLayers(session, self.runs)
        self.at_work = RunAtWork(session, self.picks, self.runs)
        self.at_work.ended.connect(self._forget_gone)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.events.inserted.connect(self._on_inserted)
        docks.note(viewer)

    def close(self) -> None:
        """Stop listening."""
        docks.forget(self._viewer)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.picks.close()

    @property
    def viewer(self) -> napari.viewer.Viewer:
        """Whose layers these are."""
        return self._viewer

    @property
    def image(self) -> Image | None:
        """The chosen image layer."""
        return self.picks.image

    @property
    def atoms(self) -> Points | None:
        """Layer of the picks, None before there are any."""
        return self.picks.layer

    def choose(self, image: Image | None) -> None:
        """Turn to the analysis of an image layer."""
        self.picks.image = image
        self.session.choose(None if image is None else image.unique_id)

    @property
    def frame(self) -> int:
        """Frame of the chosen stack that is shown, 0 of an image."""
        if self.image is None or self.image.ndim < 3:
            return 0
        shown = self.image.world_to_data(self._viewer.dims.point[-self.image.ndim :])[0]
        return int(np.clip(np.rint(shown), 0, len(self.image.data) - 1))

    def look_for_runs(self) -> None:
        """Tell of the run that was opened last, before anything listened."""
        for layer in reversed(self._viewer.layers):
            if isinstance(layer, Points) and _is_of_image(layer):
                self.run_opened.emit(layer, layer.metadata[RUN])
                return

    def adopt(self, layer: Points, run: Run) -> None:
        """Make a run that was opened from its file that of the chosen image."""
        assert self.image is not None  # noqa: S101 - its image has been chosen
        for one in (layer, *self.runs.of_run(run)):
            self.runs.put(one, self.image)
        self.picks.keep(self.session.key, layer)
        with self.picks.quietly():
            self.session.change_picks(Picks.of(run.picks_yx, by_hand=False))
        self.session.finish(run, self.session.key)

    def _on_inserted(self, event: Any) -> None:
        """Take over a run that was opened from its file, if it is one of the chosen image."""
        layer = event.value
        if RUN not in layer.metadata or self.runs.inserting or self.at_work.busy:
            return
        run = layer.metadata[RUN]
        if isinstance(layer, Points) and _is_of_image(layer):
            self.run_opened.emit(layer, run)
        elif self.image is not None and run is self.session.run:
            self.runs.put(layer, self.image)

    def _on_removed(self, event: Any) -> None:
        garbage.thaw()
        key = self.picks.holder(event.value)
        if key is not None:
            self.picks.let_go(key)
            if key == self.session.key and not self.at_work.busy:
                # its picks are gone with it, but can be had back with undo
                self.session.change_picks(Picks.none())
        if not self.at_work.busy:
            self._forget_gone()

    def _forget_gone(self) -> None:
        """Let go of what belongs to images that were deleted."""
        there = {layer.unique_id for layer in self._viewer.layers}
        for key in self.session.keys() - there:
            self.session.forget(key)
            self.picks.let_go(key)


def _is_of_image(layer: Layer) -> bool:
    """Whether a layer shows the run of an image, not that of a stack."""
    if RUN not in layer.metadata:
        return False
    from napari_shiftvae.core.runs import Run

    return isinstance(layer.metadata[RUN], Run)
