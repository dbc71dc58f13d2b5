"""The dock: puts session, layers, threads and panels together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QSignalBlocker, QSize, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QFrame, QScrollArea, QTabWidget, QVBoxLayout, QWidget

from napari_shiftvae import garbage, jobs
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.fields_jobs import VECTORS
from napari_shiftvae.overlay import Overlay
from napari_shiftvae.patch_square import PatchSquare
from napari_shiftvae.picking import PickTool
from napari_shiftvae.placement import image_from_layer, lacks
from napari_shiftvae.script_jobs import Results
from napari_shiftvae.session import Session
from napari_shiftvae.widgets.appearing import Appearing
from napari_shiftvae.widgets.atoms_control import AtomsControl
from napari_shiftvae.widgets.atoms_panel import AtomsPanel
from napari_shiftvae.widgets.calibration import PixelSizeKeeper
from napari_shiftvae.widgets.copy_control import CopyControl
from napari_shiftvae.widgets.explore_control import ExploreControl
from napari_shiftvae.widgets.explore_panel import ExplorePanel
from napari_shiftvae.widgets.fields_control import FieldsControl
from napari_shiftvae.widgets.fields_panel import FieldsPanel
from napari_shiftvae.widgets.header import Header
from napari_shiftvae.widgets.model_control import ModelControl
from napari_shiftvae.widgets.notice import Notice
from napari_shiftvae.widgets.patch_survey import PatchSurvey
from napari_shiftvae.widgets.restoring import Restoring
from napari_shiftvae.widgets.run_control import RunControl
from napari_shiftvae.widgets.spectra_control import SpectraControl
from napari_shiftvae.widgets.stack_control import StackControl
from napari_shiftvae.widgets.train_panel import TrainPanel
from napari_shiftvae.widgets.training import Training
from napari_shiftvae.widgets.worker import load_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.runs import Run

WIDTH_PX = 380
READY = "Ready: Quick run does everything, or go through the tabs."
TRAIN_TAB, EXPLORE_TAB = 1, 2
UNDO_KEYS, REDO_KEYS = "Control-Z", "Control-Shift-Z"


class ShiftVAEWidget(QWidget):
    """Finds order parameters in the chosen image.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.session = Session()
        self.appearing = Appearing(napari_viewer, self)
        self.overlay = Overlay(napari_viewer, self.session, self.appearing)
        self.square = PatchSquare(napari_viewer, self.session, self.overlay)
        self.pick_tool = PickTool(napari_viewer, self.session, self.overlay)
        self.training = Training(self.session, self.overlay, self)
        self.header = Header(napari_viewer)
        self.notice = Notice()
        self.restoring = Restoring(napari_viewer, self.overlay, self.notice, self)
        self.pixel_size = PixelSizeKeeper(napari_viewer, self.header.pixel_size, self)
        self.atoms = AtomsPanel()
        image_or_stack = partial(self._image, stacks=True)
        self.atoms_control = AtomsControl(
            self.atoms, self._viewer, self.overlay, self.pick_tool, image=image_or_stack
        )
        self.train = TrainPanel()
        self.survey = PatchSurvey(
            self.overlay,
            self.atoms,
            self.train,
            finding=self.atoms_control.finding,
            square=self.square,
            image=partial(self._image, quiet=True, stacks=True),
        )
        self.model_control = ModelControl(
            self.train.model,
            self._viewer,
            self.session,
            partial(self._image, quiet=True, stacks=True),
        )
        self.spectra = SpectraControl(self.train, self.overlay)
        self.stack = StackControl(self.train, self.overlay)
        self.explore = ExplorePanel()
        self.explore_control = ExploreControl(
            self.explore, self._viewer, self.overlay, self._image_of_run
        )
        self.fields = FieldsPanel(VECTORS)
        self.fields_control = FieldsControl(
            self.fields, self._viewer, self.overlay, self._image_of_run
        )
        self.running = RunControl(
            self.train,
            self.overlay,
            header=self.header,
            atoms=self.atoms_control,
            model=self.model_control,
            restoring=self.restoring,
            training=self.training,
            spectra=self.spectra,
            stack=self.stack,
            image=self._image,
        )
        self.copying = CopyControl(
            self.train.copy,
            self.session,
            training=self.training,
            stack=self.stack,
            spectra=self.spectra,
            image=partial(self._image, quiet=True),
            find=self.atoms.form.value,
            results=self._results,
        )
        self.tabs = QTabWidget()
        for name, panel in (
            ("Atoms", self.atoms),
            ("Train", self.train),
            ("Explore", self.explore),
            ("Fields", self.fields),
        ):
            self.tabs.addTab(_scrolling(panel), name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.header)
        layout.addWidget(self.notice)
        layout.addWidget(self.tabs, 1)
        self.setMinimumWidth(WIDTH_PX)
        self._connect()
        self._on_theme()
        self._on_image(self.header.chooser.current)
        self._on_activity("idle")
        self.restoring.offer_interrupted()
        self.overlay.look_for_runs()
        garbage.open_dock()
        load_ahead()

    def sizeHint(self) -> QSize:
        """Wide enough for the panels, no wider: the image needs the room."""
        return QSize(WIDTH_PX, 640)

    def changeEvent(self, event: QEvent | None) -> None:
        """End with the dock that it was in: napari keeps what was in a dock that is closed."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.deleteLater()

    def _connect(self) -> None:
        session, header = self.session, self.header
        session.picks_changed.connect(self._on_picks)
        session.activity_changed.connect(self._on_activity)
        session.run_changed.connect(self._on_run)
        session.said.connect(self._on_said)
        header.chooser.chosen.connect(self._on_image)
        header.chooser.hinted.connect(session.say)
        self.restoring.image_found.connect(header.chooser.choose)
        self.restoring.restored.connect(self._on_restored)
        self.train.folder.open_asked.connect(self.restoring.open)
        self.pixel_size.changed.connect(self._show_lengths)
        self.pixel_size.applied.connect(self._on_calibrated)
        self.atoms_control.used.connect(self._show_lengths)
        self.survey.surveyed.connect(self._show_lengths)
        self.stack.frames.changed.connect(
            lambda: self._on_colour(self.explore.colour.currentText())
        )
        self.explore.colour_changed.connect(self._on_colour)
        self.fields_control.latent_shown.connect(self._on_map)
        self.tabs.currentChanged.connect(self._on_tab)
        self._viewer.events.theme.connect(self._on_theme)
        for keys, act in (("Ctrl+Z", session.undo), ("Ctrl+Shift+Z", session.redo)):
            shortcut = QShortcut(QKeySequence(keys), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(act)
        self._viewer.bind_key(UNDO_KEYS, lambda _: session.undo(), overwrite=True)
        self._viewer.bind_key(REDO_KEYS, lambda _: session.redo(), overwrite=True)
        # a plain function: nothing of this widget can be called any more when it is destroyed
        ends = (
            garbage.close_dock,
            self.restoring.close,
            self.training.close,
            self.model_control.close,
            self.spectra.close,
            self.stack.job.close,
            self.stack.frames.close,
            self.copying.close,
            self.survey.close,
            self.atoms_control.close,
            self.explore_control.close,
            self.fields_control.close,
            self.pixel_size.close,
            self.pick_tool.close,
            self.square.close,
            self.appearing.close,
            self.overlay.close,
            header.chooser.let_go,
        )
        self.destroyed.connect(partial(_close, self._viewer, ends))

    # -- image ---------------------------------------------------------------------------------

    def _on_image(self, layer: Image | None) -> None:
        self.survey.patch_size_px = None
        self.overlay.choose(layer)
        self.pixel_size.follow(layer)
        self.spectra.follow(layer)
        self.stack.follow(layer)
        self.session.say(
            self.header.chooser.hint() if layer is None else f"{lacks(layer)} {READY}".strip()
        )
        self._on_activity(self.session.activity)

    def _on_restored(self, run: Run) -> None:
        """Show the settings that a run was made with."""
        find_settings, train_settings = jobs.settings_of(run.config)
        with QSignalBlocker(self.atoms.form):  # or the atoms would be found anew
            self.atoms.form.setValue(find_settings)
        self.train.form.setValue(train_settings)
        self.header.device.setCurrentText(run.config.device)
        self.running.show_possible()

    def _on_calibrated(self) -> None:
        self.session.say("The image and what lies on it have their scale in nm now.")

    def _on_picks(self, _: object) -> None:
        self.atoms.undo.setEnabled(self.session.can_undo)
        self.atoms.redo.setEnabled(self.session.can_redo)
        self._show_lengths()

    def _show_lengths(self) -> None:
        """Say lengths in nm too where the size of a pixel is known."""
        pixel_nm = self.pixel_size.mean_nm
        self.atoms.show_separation(self.session.separation_px, pixel_nm)
        size = self.train.form.value().patch_size_px or self.survey.patch_size_px
        self.train.show_patch_size(size, pixel_nm)
        self.fields_control.show_pixel_size(self.pixel_size.size_nm)

    def _image(self, *, quiet: bool = False, stacks: bool = False) -> MicroscopeImage | None:
        """Take the chosen image; None after telling what is wrong with it."""
        if self.overlay.image is None:
            if not quiet:
                self._refuse(self.header.chooser.hint())
            return None
        try:
            return image_from_layer(self.overlay.image, self.pixel_size.in_file, stacks=stacks)
        except InputError as error:
            if not quiet:
                self._refuse(str(error))
            return None

    def _image_of_run(self) -> MicroscopeImage | None:
        """Take what the run that is shown was made of: the chosen image, or a frame."""
        return self.stack.frames.image or self._image(quiet=True)

    def _results(self, run: Run) -> Results:
        """Take what the Explore and the Fields tab have made of a run."""
        classes = self.explore_control.classes_of(run)
        return replace(self.fields_control.results(run), classes=classes)

    # -- tabs ----------------------------------------------------------------------------------

    def _on_tab(self, tab: int) -> None:
        """Draw the patch where it is trained on; give the mouse on the canvas to the tab."""
        self.survey.show_square(tab == TRAIN_TAB)
        if tab == EXPLORE_TAB:
            self.atoms.edit.setChecked(False)
            self.atoms.lasso.setChecked(False)
        else:
            self.explore.lasso.setChecked(False)

    # -- analysis ------------------------------------------------------------------------------

    def quick_run(self, *, resume: bool = False) -> None:
        """Find atoms where there are none, train, refine, and lay the result over the image.

        Parameters
        ----------
        resume : bool
            Train the last model on instead of a new one.
        """
        self.running.start(resume=resume)

    def _on_run(self, run: Run | None) -> None:
        self.explore_control.show_run(run)
        self.train.show_end(run)
        self.fields_control.show_run(run)
        self._on_activity(self.session.activity)

    def _on_activity(self, activity: str) -> None:
        idle = activity == "idle"
        self.header.chooser.freeze(not idle)  # may find that the image is gone
        there = self.overlay.image is not None
        self.header.quick_run.setEnabled(idle and there)
        self.atoms.setEnabled(there and activity in {"idle", "finding"})
        if activity in {"running", "stopping"}:
            self.atoms.edit.setChecked(False)
            self.atoms.lasso.setChecked(False)
        self.running.show_possible()

    # -- what is shown -------------------------------------------------------------------------

    def _on_colour(self, column: str) -> None:
        if self.session.run is not None and column:
            self.overlay.runs.colour_atoms(self.session.run, column)

    def _on_map(self, latent: str) -> None:
        # dots in the colours of another latent would mislead
        self.explore.colour.setCurrentText(latent)

    def _refuse(self, sentence: str) -> None:
        self.session.say(sentence, wrong=True)
        show_warning(sentence)

    def _on_said(self, sentence: str, wrong: bool) -> None:
        self.header.say(sentence, wrong=wrong)

    def _on_theme(self, _: object = None) -> None:
        ink = get_theme(self._viewer.theme).text.as_hex()
        self.train.plot.set_ink(ink)
        self.explore.set_ink(ink)


def _scrolling(panel: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidget(panel)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area


def _close(viewer: napari.viewer.Viewer, ends: tuple[Callable[[], None], ...]) -> None:
    """End threads and stop listening, when the dock has been closed."""
    for end in ends:
        end()
    for keys in (UNDO_KEYS, REDO_KEYS):
        viewer.bind_key(keys, None)
