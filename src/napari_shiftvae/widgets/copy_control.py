"""Copy as Python: the code of what was done last with the chosen image, on the clipboard."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QApplication

from napari_shiftvae import script_jobs
from napari_shiftvae.widgets.runs_folder import chosen_folder
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QPushButton

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.session import Session
    from napari_shiftvae.settings import FindSettings
    from napari_shiftvae.widgets.spectra_control import SpectraControl
    from napari_shiftvae.widgets.stack_control import StackControl
    from napari_shiftvae.widgets.training import Training


class CopyControl(QObject):
    """Connects the button to what is known of the last analysis.

    Parameters
    ----------
    button : QPushButton
    session : Session
    training, stack, spectra
        They know how the last analysis was asked for.
    image, find, results : callable
        Give the chosen image (None without a word), how atoms are found, and what the Explore and
        the Fields tab have made of a run.
    """

    copied = Signal(str)

    def __init__(
        self,
        button: QPushButton,
        session: Session,
        *,
        training: Training,
        stack: StackControl,
        spectra: SpectraControl,
        image: Callable[[], MicroscopeImage | None],
        find: Callable[[], FindSettings],
        results: Callable[[Run], script_jobs.Results],
    ) -> None:
        super().__init__(button)
        self._session = session
        self._training = training
        self._stack = stack
        self._spectra = spectra
        self._image = image
        self._find = find
        self._results = results
        self._runner = Runner(self)
        self._runner.succeeded.connect(self._on_script)
        self._runner.refused.connect(self._refuse)
        self._runner.failed.connect(lambda error: self._refuse(f"Copying failed: {error}"))
        button.clicked.connect(self.copy)

    def close(self) -> None:
        """End the thread."""
        self._runner.close()

    def copy(self) -> None:
        """Have the code written."""
        session, image = self._session, self._image()
        if self._runner.busy:
            return
        of_spectra = self._spectra.axis() is not None
        control = self._spectra if of_spectra else self._stack
        run = session.run
        results = script_jobs.Results() if run is None else self._results(run)
        if control.order is not None and control.key == session.key:
            if of_spectra:
                self._start(script_jobs.of_spectra, control.order)
            else:
                frame = self._stack.frames.frame
                self._start(script_jobs.of_stack, control.order, frame, results)
        elif image is not None and run is not None:
            order = self._training.order_of(run)
            self._start(script_jobs.of_image, run, image, order, results)
        elif image is not None and len(session.picks):
            find = self._find()
            if find.separation_px is None:
                find = replace(find, separation_px=session.separation_px)
            self._start(script_jobs.of_atoms, image, session.picks, find)
        else:
            self._refuse("There is nothing to copy yet: find atoms, or run an analysis.")

    def _start(self, job: Callable[..., str], *what: Any) -> None:
        self._runner.start("copying", job, *what, chosen_folder())

    def _on_script(self, code: str) -> None:
        QApplication.clipboard().setText(code)
        self._session.say("Copied: paste it into a file or a notebook; it makes the same numbers.")
        self.copied.emit(code)

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)
