"""Connects the choice of a trained model to the runs there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_shiftvae import jobs
from napari_shiftvae.layers import RUN
from napari_shiftvae.sequence_layers import SEQUENCE
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.session import Session
    from napari_shiftvae.widgets.model_box import ModelBox

RUNS = "Shift-VAE runs (*.shiftvae)"


class ModelControl(QObject):
    """Offers the models of the runs in the viewer and of run files.

    Parameters
    ----------
    box : ModelBox
    viewer : napari.viewer.Viewer
    session : Session
    image : callable
        Gives the chosen image, None (without a word) where there is none.
    """

    def __init__(
        self,
        box: ModelBox,
        viewer: napari.viewer.Viewer,
        session: Session,
        image: Callable[[], MicroscopeImage | None],
    ) -> None:
        super().__init__(box)
        self._box = box
        self._viewer = viewer
        self._session = session
        self._image = image
        self._opened: list[tuple[Path, Run]] = []
        self._offered: list[tuple[str, Run]] = []
        self._runner = Runner(self)
        self._runner.succeeded.connect(self._on_opened)
        self._runner.refused.connect(self._refuse)
        self._runner.failed.connect(lambda error: self._refuse(f"Opening failed: {error}"))
        box.open.clicked.connect(self._on_open)
        box.changed.connect(self.refresh_note)
        session.run_changed.connect(self.refresh)
        session.image_changed.connect(self.refresh_note)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.refresh)

    def close(self) -> None:
        """End the thread and stop listening."""
        self._runner.close()
        self._session.run_changed.disconnect(self.refresh)
        self._session.image_changed.disconnect(self.refresh_note)
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.disconnect(self.refresh)

    def chosen(self) -> jobs.Trained | None:
        """Whose model is to be used and how, None for a new one."""
        index = self._box.index
        if index is None:
            return None
        return jobs.Trained(
            run=(run := self._offered[index][1]),
            path=next((path for path, one in self._opened if one is run), None),
            resample=self._box.resample.isChecked(),
            own_intensity=self._box.own_intensity.isChecked(),
        )

    def refresh(self, _: object = None) -> None:
        """Offer the runs that there are now."""
        before = self.chosen()
        found = [
            layer.metadata.get(SEQUENCE, layer.metadata[RUN])
            for layer in self._viewer.layers
            if RUN in layer.metadata
        ]
        offered = [(f"{run.image.name}, {path.name}", run) for path, run in self._opened]
        for run in found:
            run = getattr(run, "run", run)  # noqa: PLW2901 - that of a sequence
            # spectra have no such field; a run with a model from elsewhere would offer it twice
            is_own = getattr(run, "trained_on", run) is None
            if is_own and all(run is not other for _, other in offered):
                offered.append((run.image.name, run))
        if [run for _, run in offered] == [run for _, run in self._offered]:
            return
        self._offered = offered
        place = [i for i, (_, run) in enumerate(offered) if before and run is before.run]
        self._box.show_names(_told_apart([name for name, _ in offered]), next(iter(place), None))

    def refresh_note(self) -> None:
        """Say where the image and the one that the model was trained on differ."""
        trained, image = self.chosen(), self._image()
        notes: list[str] = []
        if trained is not None and image is not None and not trained.resample:
            from napari_shiftvae.core.apply import size_notes

            notes = size_notes(trained.run, image)
        self._box.show_note(" ".join(notes))

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self._box.window(), "Open a run", "", RUNS)
        if path:
            self.open(path)

    def open(self, path: str) -> None:
        """Offer the model of a run file, and choose it."""
        if not self._runner.busy:
            self._runner.start("opening a run", jobs.opened_run, path)

    def _on_opened(self, opened: tuple[Path, Run]) -> None:
        self._opened.append(opened)
        self.refresh()
        place = [run for _, run in self._offered].index(opened[1])
        self._box.choice.setCurrentIndex(place + 1)

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)


def _told_apart(names: list[str]) -> list[str]:
    """Number those that are the same."""
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]
