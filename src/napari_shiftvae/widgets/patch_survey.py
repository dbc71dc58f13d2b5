"""Says of the picks how many there are, which have a patch, and how large that is."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_shiftvae import jobs
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.patch_square import PatchSquare
    from napari_shiftvae.widgets.atoms_panel import AtomsPanel
    from napari_shiftvae.widgets.finding import Finding
    from napari_shiftvae.widgets.train_panel import TrainPanel

COUNT_AFTER_MS = 80  # picks that change faster are counted once


class PatchSurvey(QObject):
    """Looks which picks have a patch, whenever they or its size change.

    Parameters
    ----------
    overlay : Overlay
        Its atoms without a patch are ringed.
    atoms : AtomsPanel
        Says how many there are.
    train : TrainPanel
        Its settings say how large a patch is.
    finding : Finding
        Has the thread for it.
    square : PatchSquare
        Shows the patch on the image.
    image : callable
        Gives the chosen image, None where it cannot be analysed.
    """

    surveyed = Signal()

    def __init__(
        self,
        overlay: Overlay,
        atoms: AtomsPanel,
        train: TrainPanel,
        *,
        finding: Finding,
        square: PatchSquare,
        image: Callable[[], MicroscopeImage | None],
    ) -> None:
        super().__init__(atoms)
        self._overlay = overlay
        self._session = overlay.session
        self._atoms = atoms
        self._train = train
        self._finding = finding
        self._square = square
        self._image = image
        self.patch_size_px: int | None = None  # None until it is known
        self._aside: Counter[str] = Counter()
        self._square_wanted = False
        self._counting = QTimer(self)
        self._counting.setSingleShot(True)
        self._counting.setInterval(COUNT_AFTER_MS)
        self._counting.timeout.connect(self._show_count)
        self._session.picks_changed.connect(self._on_picks)
        train.form.valueChanged.connect(self._ask)
        finding.surveyed.connect(self._on_surveyed)

    def close(self) -> None:
        """Count no more."""
        self._session.picks_changed.disconnect(self._on_picks)
        with suppress(RuntimeError):  # Qt may have deleted it before
            self._counting.stop()

    def show_square(self, wanted: bool) -> None:
        """Draw the patch on the image from now on, or no more."""
        self._square_wanted = wanted
        self._draw_square()

    def _on_picks(self, _: object) -> None:
        self._aside = Counter()
        self._counting.start()  # a new text lays the whole dock out anew: not at every step
        self._ask()

    def _ask(self, _: object = None) -> None:
        image = self._image()
        if image is not None:
            self._finding.survey(image, self._overlay.frame, self._train.form.value())

    def _on_surveyed(self, survey: jobs.Survey) -> None:
        if len(survey.set_aside) != len(self._session.picks):
            return
        self.patch_size_px = survey.patch_size_px
        self._overlay.picks.mark_set_aside(survey.set_aside)
        self._aside = Counter(survey.set_aside.tolist())
        self._show_count()
        self._draw_square()
        self.surveyed.emit()

    def _show_count(self) -> None:
        self._atoms.show_picks(self._session.picks, self._aside, self.patch_size_px)

    def _draw_square(self) -> None:
        self._square.show(self.patch_size_px if self._square_wanted else None)
