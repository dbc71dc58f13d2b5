"""Run, Stop and Resume: of an image, of a stack of frames, of spectra."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject

from napari_shiftvae import jobs
from napari_shiftvae.widgets.runs_folder import chosen_folder

if TYPE_CHECKING:
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.atoms_control import AtomsControl
    from napari_shiftvae.widgets.header import Header
    from napari_shiftvae.widgets.model_control import ModelControl
    from napari_shiftvae.widgets.restoring import Restoring
    from napari_shiftvae.widgets.spectra_control import SpectraControl
    from napari_shiftvae.widgets.stack_control import StackControl
    from napari_shiftvae.widgets.train_panel import TrainPanel
    from napari_shiftvae.widgets.training import Training


class TakeImage(Protocol):
    """Gives the chosen image; None after telling what is wrong with it."""

    def __call__(self, *, stacks: bool) -> MicroscopeImage | None: ...  # noqa: D102


class RunControl(QObject):
    """Starts, stops and resumes analyses by what the tabs say, and shows how they go on.

    Parameters
    ----------
    panel : TrainPanel
        With the buttons.
    overlay : Overlay
    header : Header
        With Quick run, and the device.
    atoms : AtomsControl
        Its picks are analysed, or what its settings find.
    model : ModelControl
        What an image is read with, where nothing is to be trained.
    restoring : Restoring
        Where a run to resume was opened from.
    training, spectra, stack
        The three kinds of analyses.
    image : callable
        Gives the chosen image, None after telling what is wrong with it.
    """

    def __init__(
        self,
        panel: TrainPanel,
        overlay: Overlay,
        *,
        header: Header,
        atoms: AtomsControl,
        model: ModelControl,
        restoring: Restoring,
        training: Training,
        spectra: SpectraControl,
        stack: StackControl,
        image: TakeImage,
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._overlay = overlay
        self._session = overlay.session
        self._header = header
        self._atoms = atoms
        self._model = model
        self._restoring = restoring
        self._training = training
        self._spectra = spectra
        self._stack = stack
        self._image = image
        resume = partial(self.start, resume=True)
        header.quick_run_asked.connect(self.start)
        panel.run_asked.connect(self.start)
        panel.resume_asked.connect(resume)
        restoring.resume_asked.connect(resume)
        for stop in (training.stop, spectra.job.stop, stack.job.stop):
            panel.stop_asked.connect(stop)
        for shown in (training, spectra):
            shown.progressed.connect(self._on_progress)
        for counted in (training, stack):
            counted.fraction_changed.connect(header.show_fraction)
        training.ended.connect(lambda: panel.show_end(self._session.run))
        spectra.interrupted_opened.connect(self.show_possible)
        panel.spectra.currentIndexChanged.connect(lambda _: self.show_possible())
        panel.form.valueChanged.connect(lambda _: self.show_possible())

    def start(self, *, resume: bool = False) -> None:
        """Analyse what is chosen, with what has been found or learned already."""
        if self._session.activity != "idle":
            return
        layer = self._overlay.image
        device = self._header.device.currentText()
        settings = self._panel.form.value()
        if layer is not None and self._spectra.axis() is not None:
            self._spectra.start(layer, settings, device, resume=resume)
            return
        image = self._image(stacks=self._stack.wanted)
        if image is None:
            return
        find_settings = self._atoms.settings
        if find_settings.separation_px is None and self._session.separation_px is not None:
            find_settings = replace(find_settings, separation_px=self._session.separation_px)
        picks = self._atoms.picks_to_analyse()
        if len(self._session.picks) and not len(picks):
            sentence = "No sublattice is ticked in the Atoms tab: tick what to analyse."
            self._session.say(sentence, wrong=True)
            show_warning(sentence)
            return
        use_picks = len(picks) > 0 and find_settings.sampling == "atoms"
        run = self._session.run if resume else None
        order = jobs.Order(
            image=image,
            find=find_settings,
            train=settings,
            device=device,
            picks=picks if use_picks else None,
            resume=run,
            trained=None if resume else self._model.chosen(),
            folder=chosen_folder(),
            continues=self._restoring.checkpoint_of(run) if resume else None,
        )
        if self._stack.wanted:
            self._stack.start(layer, order)
        else:
            self._training.start(order)

    def show_possible(self) -> None:
        """Enable what can be done in the Train tab."""
        run, idle = self._session.run, self._session.activity == "idle"
        can_go_on = (
            run is not None
            and run.resumable
            and jobs.epochs_to_do(run, self._atoms.settings, self._panel.form.value()) > 0
        ) or self._spectra.interrupted() is not None
        self._panel.set_possible(
            run=idle and self._overlay.image is not None,
            stop=self._session.activity == "running",
            resume=idle and can_go_on,
        )

    def _on_progress(self, progress: Progress) -> None:
        self._session.say(progress.message)
        self._panel.show_progress(progress, self._session.losses, self._training.device)
