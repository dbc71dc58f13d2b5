"""Runs that are opened from their files: their image is found, and the dock goes on with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from napari_shiftvae import jobs, run_images
from napari_shiftvae.core.checkpoint import Interrupted, latest_checkpoint
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.placement import source_path
from napari_shiftvae.widgets.runs_folder import chosen_folder
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Points

    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.session import Session
    from napari_shiftvae.widgets.notice import Notice


class Restoring(QObject):
    """Takes a run file's run over into the dock, and offers what a crash has left."""

    image_found = Signal(object)  # Image: the one that the run is of
    restored = Signal(object)  # Run, now that of the chosen image
    resume_asked = Signal()

    def __init__(
        self, viewer: napari.viewer.Viewer, overlay: Overlay, notice: Notice, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._overlay = overlay
        self._notice = notice
        self._opened: tuple[Points, Run] | None = None
        self._file: tuple[Run, Path] | None = None
        self._runner = Runner(self)
        self._runner.succeeded.connect(self._on_read)
        self._refused = ""
        self._runner.refused.connect(self._on_refused)
        self._runner.ended.connect(self._on_ended)
        overlay.run_opened.connect(self._on_opened)

    @property
    def _session(self) -> Session:
        return self._overlay.session

    def close(self) -> None:
        """End the thread and stop listening."""
        self._overlay.run_opened.disconnect(self._on_opened)
        self._runner.close()

    def checkpoint_of(self, run: Run | None) -> Path | None:
        """Checkpoint that a run was restored from, if it is one of the dock's own."""
        if run is None or self._file is None or self._file[0] is not run:
            return None
        path = self._file[1]
        own = path.parent == chosen_folder() and Interrupted.of(path) is not None
        return path if own else None

    # -- after a crash -------------------------------------------------------------------------

    def offer_interrupted(self) -> None:
        """Offer what the newest analysis that did not come to its end has left."""
        left = latest_checkpoint(chosen_folder())
        if left is None:
            return
        what = Interrupted.of(left)
        which = left.name if what is None else f"'{what.image_name}', begun {what.begun},"
        self._notice.ask(
            f"The analysis of {which} was interrupted.",
            Restore=("Open its image and what it had learned, to go on.", lambda: self.open(left)),
            Later=("Ask again the next time.", lambda: None),
            Discard=("Ask, then delete what it had learned.", lambda: self._doubt(left)),
        )

    def _doubt(self, left: Path) -> None:
        self._notice.ask(
            "What the interrupted analysis had learned will be gone.",
            Delete=("Delete it.", lambda: left.unlink(missing_ok=True)),
            Keep=("Leave it there.", self.offer_interrupted),
        )

    def open(self, path: str | Path) -> None:
        """Open a run file; one sentence where that is not possible."""
        try:
            self._viewer.open(str(path), plugin="napari-shiftvae")
        except InputError as error:
            self._refuse(str(error))

    # -- the image of a run --------------------------------------------------------------------

    def _on_opened(self, layer: Points, run: Run) -> None:
        """Find the image: among the layers, by its path, or by asking."""
        self._opened, self._file = (layer, run), None
        path = source_path(layer)
        if path is not None:
            self._file = (run, path)
        image = run_images.image_of(self._viewer, run, self._overlay.image)
        if image is not None:
            self._take_over(image)
        elif not run.image.path:
            self._ask(f"The run of '{run.image.name}' was not made from a file: open its image.")
        elif path is not None and path.resolve().is_relative_to(chosen_folder().resolve()):
            self._read(Path(run.image.path))  # the dock has written it: no stranger's choice
        else:
            self._ask(f"The run is of the image {run.image.path}.")

    def _ask(self, sentence: str) -> None:
        answers = {}
        if self._opened is not None and self._opened[1].image.path:
            where = Path(self._opened[1].image.path)
            answers["Open_it"] = (f"Read {where}.", lambda: self._read(where))
        self._notice.ask(
            sentence,
            **answers,
            Choose_file=("Show where the image is now.", self._choose),
            Without=("Look at the run without its image.", lambda: None),
        )

    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self._notice.window(), "Image of the run")
        if path:
            self._read(Path(path))

    def _read(self, path: Path) -> None:
        if self._opened is not None and not self._runner.busy:
            self._session.say(f"Reading {path} ...")
            self._runner.start("reading the image of a run", jobs.image_of, self._opened[1], path)

    def _on_refused(self, sentence: str) -> None:
        self._refuse(sentence)
        self._refused = sentence

    def _on_ended(self) -> None:
        """Ask again, now that another image can be read."""
        sentence, self._refused = self._refused, ""
        if sentence and self._opened is not None:
            self._ask(sentence)

    def _on_read(self, found: jobs.ImageOfRun) -> None:
        if self._opened is None or self._opened[1] is not found.run:
            return
        layer, run = self._opened
        if layer in self._viewer.layers:
            self._take_over(run_images.add_image_of(self._viewer, run, found.image))

    def _take_over(self, image: Image) -> None:
        assert self._opened is not None  # noqa: S101 - set by whoever found the image
        (layer, run), self._opened = self._opened, None
        self._notice.close_question()
        self.image_found.emit(image)
        self._overlay.adopt(layer, run)
        self.restored.emit(run)
        if run.finished or not run.resumable:
            self._session.say(f"Took over the run of '{image.name}': see Explore and Fields.")
            return
        self._notice.ask(
            f"The run of '{image.name}' is at epoch {run.epochs} of {run.goal}.",
            Resume=("Train on from there, with the same numbers.", self.resume_asked.emit),
            Later=("Resume in the Train tab does the same.", lambda: None),
        )

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)
