"""An analysis beside that of one image: of a stack or of spectra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_shiftvae.widgets.activity import ActivityBar
from napari_shiftvae.widgets.turns import Turns
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    from napari_shiftvae.session import Session


class SideJob(QObject):
    """Runs such an analysis in a thread, with napari's activity dock, and tells the session.

    Parameters
    ----------
    session : Session
    parent : QObject
    kept : str
        What is said, beside that it was, of an analysis that was cancelled.
    """

    progressed = Signal(object)
    succeeded = Signal(object)
    cancelled = Signal()
    ended = Signal()

    def __init__(self, session: Session, parent: QObject, *, kept: str) -> None:
        super().__init__(parent)
        self._session = session
        self._kept = kept
        self._cancelled = False
        self._bar = ActivityBar(self)
        self._bar.cancelled.connect(self.cancel)
        self.runner = Runner(self)
        self.runner.progressed.connect(self._on_progress)
        self.runner.succeeded.connect(self.succeeded)
        self.runner.refused.connect(self.refuse)
        self.runner.failed.connect(
            lambda error: self._session.say(f"The analysis failed: {error}", wrong=True)
        )
        self.runner.ended.connect(self._on_ended)
        self._steps: Iterator[None] = iter(())
        self._turns = Turns(self)
        self._turns.ended.connect(self._on_concluded)

    def start(self, what: str, name: str, job: Callable[..., Any], order: object) -> None:
        """Start to analyse what belongs to a layer, such as its frames."""
        self._cancelled = False
        self._session.begin()
        self._session.say(f"Analysing the {what} of '{name}' ...")
        self._bar.start(name)
        self.runner.start(f"shift-VAE analysis of the {what} of '{name}'", job, order)

    def conclude(self, steps: Iterator[None]) -> None:
        """Have what `succeeded` calls for done in steps, before the end is told."""
        self._steps = steps

    def show(self, fraction: float) -> None:
        """Say how much is done, from 0 to 1."""
        self._bar.show(fraction)

    def stop(self) -> None:
        """End with what there is."""
        if self.runner.busy:
            self._session.activity = "stopping"
            self.runner.send("stop")

    def cancel(self) -> None:
        """End without a result."""
        if self.runner.busy:
            self._cancelled = True
            self.cancelled.emit()
            self._session.activity = "stopping"
            self._session.say(f"Cancelled; {self._kept}")
            self.runner.cancel()

    def refuse(self, sentence: str) -> None:
        """Say why it cannot be done."""
        self._session.say(sentence, wrong=True)
        show_warning(sentence)

    def close(self) -> None:
        """End the thread."""
        self.runner.close()
        self._bar.end()
        with suppress(RuntimeError):  # Qt may have deleted it before
            self._turns.forget()

    def _on_progress(self, progress: object) -> None:
        if not self._cancelled:
            self.progressed.emit(progress)

    def _on_ended(self) -> None:
        self._bar.end()
        steps, self._steps = self._steps, iter(())
        self._turns.start(steps)

    def _on_concluded(self) -> None:
        self.ended.emit()
        self._session.activity = "idle"
