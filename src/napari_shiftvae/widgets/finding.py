"""Finds atoms for the dock, and keeps up with a slider that is being dragged."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QTimer, Signal

from napari_shiftvae import atom_jobs, jobs
from napari_shiftvae.widgets.worker import Latest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_shiftvae.core.atoms import Candidates
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.session import Session
    from napari_shiftvae.settings import FindSettings, TrainSettings

SETTLE_MS = 250


class Finding(QObject):
    """Automatic picks, and what becomes of the picks with the chosen patch size."""

    found = Signal(object)  # atom_jobs.Found
    surveyed = Signal(object)  # Survey

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._candidates: Candidates | None = None
        self._known: tuple[object, ...] = (None,)
        self._step = ""
        self.previewing = False  # what was found last belongs to a slider that is moving
        self._find = Latest("finding atoms", atom_jobs.find, self)
        self._survey = Latest("looking at the patches", jobs.survey, self)
        self._find.succeeded.connect(self._on_found)
        self._find.runner.progressed.connect(self._on_step)
        self._find.refused.connect(self._on_refused)
        self._find.failed.connect(self._on_failed)
        self._find.runner.ended.connect(self._on_ended)
        self._survey.succeeded.connect(self.surveyed)
        self._pending_survey: tuple[Any, ...] | None = None
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self._ask_survey)

    def find(
        self,
        image: MicroscopeImage,
        settings: FindSettings,
        region: NDArray[np.bool_] | None,
        frame: int | None,
        *,
        preview: bool,
    ) -> None:
        """Find atoms in an image, a frame of a stack, or (frame None) all frames.

        A preview starts from what was found last where only the threshold is another one, at
        once; previews that follow each other are one step for undo.
        """
        step = "preview" if preview else ""
        where = None if region is None else region.tobytes()
        known = (self._session.key, settings.dark, settings.separation_px, where, frame)
        if preview and self._candidates is not None and known == self._known:
            self._take(atom_jobs.choose(self._candidates, settings.threshold, frame), step)
            return
        self._candidates = None
        self._known, self._step = known, step
        self._session.activity = "finding"
        self._find.ask(image, settings, region, frame)

    @property
    def busy(self) -> bool:
        """Whether atoms are being found."""
        return self._find.runner.busy

    def cancel(self) -> None:
        """Stop finding atoms; the picks stay as they are."""
        if self.busy:
            self._find.runner.cancel()
            self._session.say("Stopped; the atoms are as they were.")

    def survey(self, image: MicroscopeImage, frame: int, train: TrainSettings) -> None:
        """Look which picks have a patch, once they have not changed for a moment."""
        picks = self._session.picks
        if len(picks) < 2:
            return
        self._pending_survey = (
            image,
            picks,
            frame,
            self._session.separation_px,
            train,
        )
        self._settle.start()

    def close(self) -> None:
        """End the threads."""
        self._find.close()
        self._survey.close()
        with suppress(RuntimeError):  # Qt may have deleted it before
            self._settle.stop()

    def _ask_survey(self) -> None:
        if self._pending_survey is not None:
            self._survey.ask(*self._pending_survey)

    def _on_step(self, step: atom_jobs.Step) -> None:
        if step.frames > 1 and self._known[0] == self._session.key:
            self._session.say(f"Finding atoms: frame {step.done} of {step.frames}")

    def _on_found(self, found: atom_jobs.Found) -> None:
        self._candidates = found.possible
        if self._known[0] == self._session.key:
            self._take(found, self._step)

    def _take(self, found: atom_jobs.Found, step: str) -> None:
        self.previewing = step == "preview"
        self._session.put_found(found.picks, found.separation_px, frame=found.frame, step=step)
        self.found.emit(found)

    def _on_refused(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)

    def _on_failed(self, error: Exception) -> None:
        self._session.say(f"Finding atoms failed: {error}", wrong=True)

    def _on_ended(self) -> None:
        if not self._find.runner.busy and self._session.activity == "finding":
            self._session.activity = "idle"
