"""What the buttons of the Atoms tab do: jobs in a thread, and their results into the session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QInputDialog, QWidget

from napari_shiftvae import atom_jobs, measure_jobs
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.positions import read_positions, write_positions
from napari_shiftvae.lasso import NAME as LASSO
from napari_shiftvae.picks import SUBLATTICE, Picks
from napari_shiftvae.regions import region_mask
from napari_shiftvae.widgets.finding import Finding
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.similar import Similar
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.picking import PickTool
    from napari_shiftvae.settings import FindSettings
    from napari_shiftvae.widgets.atoms_panel import AtomsPanel

CSV = "Comma-separated values (*.csv)"
NEAR = 0.3  # of the separation: nearer than this, a place that is found is an atom that is there


class AtomsControl(QObject):
    """Connects the Atoms tab to the session.

    Parameters
    ----------
    panel : AtomsPanel
    viewer : napari.viewer.Viewer
    overlay : Overlay
    pick_tool : PickTool
    image : callable
        Gives the chosen image or stack, None (after saying so) where it cannot be analysed.
    """

    used = Signal()  # a separation or a threshold was used, and is to be shown

    def __init__(
        self,
        panel: AtomsPanel,
        viewer: napari.viewer.Viewer,
        overlay: Overlay,
        pick_tool: PickTool,
        *,
        image: Callable[[], MicroscopeImage | None],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = viewer
        self._session = session = overlay.session
        self._overlay = overlay
        self._pick_tool = pick_tool
        self._image = image
        self._title = self._similar_name = ""
        self._similar: tuple[Similar, str, float, int] | None = None
        self._key: object = None
        self.finding = Finding(session, self)
        self._runner = Runner(self)
        self._then: Callable[[Any], None] = lambda _: None
        self._connect()

    def _connect(self) -> None:
        panel, session = self._panel, self._session
        panel.find.clicked.connect(self._on_find)
        panel.form.valueChanged.connect(lambda _: self._find(preview=True))
        panel.region.currentIndexChanged.connect(lambda _: self._find(preview=True))
        panel.refine.clicked.connect(self._on_refine)
        panel.edit_toggled.connect(self._on_edit)
        panel.lasso_toggled.connect(self._on_lasso)
        panel.delete.clicked.connect(self._pick_tool.delete_selected)
        panel.undo.clicked.connect(session.undo)
        panel.redo.clicked.connect(session.redo)
        panel.similar.clicked.connect(self._on_similar)
        panel.score_changed.connect(self._on_score)
        panel.group.clicked.connect(self._on_group)
        panel.beneath.clicked.connect(self._on_beneath)
        panel.assign.clicked.connect(self._on_assign)
        panel.fit_lattice.clicked.connect(self._on_lattice)
        panel.sublattices.renamed.connect(session.rename)
        panel.sublattices.recoloured.connect(session.set_colour)
        panel.load.clicked.connect(self._on_load)
        panel.save.clicked.connect(self._on_save)
        session.picks_changed.connect(self._on_picks)
        session.colours_changed.connect(self._on_picks)
        session.image_changed.connect(self._forget_similar)
        self.finding.found.connect(self._on_found)
        self._runner.progressed.connect(self._on_step)
        self._runner.succeeded.connect(self._on_done)
        self._runner.refused.connect(self._refuse)
        self._runner.failed.connect(self._on_failed)
        self._runner.ended.connect(self._on_ended)
        layers = self._viewer.layers
        for event in (layers.events.inserted, layers.events.removed):
            event.connect(self._show_regions)
        self._show_regions()

    def close(self) -> None:
        """End the threads and stop listening."""
        self.finding.close()
        self._runner.close()
        session, layers = self._session, self._viewer.layers
        session.picks_changed.disconnect(self._on_picks)
        session.colours_changed.disconnect(self._on_picks)
        session.image_changed.disconnect(self._forget_similar)
        for event in (layers.events.inserted, layers.events.removed):
            event.disconnect(self._show_regions)

    @property
    def settings(self) -> FindSettings:
        """How atoms are to be found."""
        return self._panel.form.value()

    # -- find ----------------------------------------------------------------------------------

    def _on_find(self) -> None:
        if self.finding.busy:
            self.finding.cancel()
        else:
            self._find(preview=False)

    def _find(self, *, preview: bool) -> None:
        if self._session.activity not in {"idle", "finding"} or self._runner.busy:
            return
        if preview and not len(self._session.picks):
            return  # a changed setting shows on the image once there are atoms
        image = self._image()
        if image is None:
            return
        try:
            region = self._region()
        except InputError as error:
            self._refuse(str(error))
            return
        if not preview:
            self._session.say("Finding atoms ...")
        frame = self._overlay.frame if preview or image.data.ndim == 2 else None
        self.finding.find(image, self._panel.form.value(), region, frame, preview=preview)

    def _on_found(self, found: atom_jobs.Found) -> None:
        count = len(found.picks)
        where = (
            ""
            if self._overlay.image is None or self._overlay.image.ndim == 2
            else (" in all frames" if found.frame is None else f" in frame {found.frame}")
        )
        if not count:
            self._session.say("No atoms found: lower the threshold, or choose dark atoms.")
        elif not self.finding.previewing:
            self._session.say(f"Found {count} atoms{where}.")
        self._panel.form.show_used(found.threshold)
        self.used.emit()

    def _region(self) -> NDArray[np.bool_] | None:
        name = self._panel.chosen_region()
        if name is None or self._overlay.image is None:
            return None
        return region_mask(self._viewer.layers[name], self._overlay.image)

    def _show_regions(self, _: object = None) -> None:
        self._panel.show_regions(
            [
                layer.name
                for layer in self._viewer.layers
                if isinstance(layer, Shapes) and layer.editable and layer.name != LASSO
            ]
        )

    # -- refine, group, beneath ----------------------------------------------------------------

    def _on_refine(self) -> None:
        self._measure("Refining atoms", self._on_changed, measure_jobs.refine)

    def _on_group(self) -> None:
        by = [name for name, check in self._panel.by.items() if check.isChecked()]
        if not by:
            self._refuse("Tick what tells the sublattices apart: place, intensity or shape.")
            return
        run, picks = self._session.run, self._session.picks
        stay = run is not None and np.array_equal(run.picks_yx, picks.positions_yx)
        job = partial(measure_jobs.group, by=by, stay=stay)
        self._measure("Grouping atoms", self._on_changed, job)

    def _on_beneath(self) -> None:
        self._measure("Looking beneath the atoms", self._on_changed, measure_jobs.beneath)

    def _on_lattice(self) -> None:
        frame = self._overlay.frame
        self._measure("Fitting the lattice", self._on_fitted_lattice, measure_jobs.lattice, frame)

    def _on_fitted_lattice(self, found: measure_jobs.OnLattice) -> None:
        self._session.change_picks(found.picks)
        self._overlay.picks.show_vacancies(found.vacancies_yx, found.frame)
        self._panel.lattice_note.setText(found.sentence)
        self._session.say(found.sentence)

    def _measure(
        self, title: str, then: Callable[[Any], None], job: Callable[..., Any], *more: Any
    ) -> None:
        """Have a job look at the picks there are."""
        image, picks = self._ready()
        if image is not None:
            dark = self._panel.form.value().dark
            self._start(title, then, job, image, picks, self._session.separation_px, dark, *more)

    def _on_changed(self, changed: measure_jobs.Changed) -> None:
        self._session.change_picks(changed.picks)
        self._session.say(changed.sentence)
        self._panel.group_note.setText(changed.sentence)

    def _ready(self) -> tuple[MicroscopeImage | None, Picks]:
        """Take image and picks where a job may start, None for the image where it may not."""
        picks = self._session.picks
        if self._session.activity != "idle":
            return None, picks
        image = self._image()
        if image is not None and not len(picks):
            self._refuse("There are no atoms yet: find them, or click some.")
            return None, picks
        return image, picks

    def _start(
        self, title: str, then: Callable[[Any], None], job: Callable[..., Any], *arguments: Any
    ) -> None:
        self._session.activity = "finding"
        self._session.say(f"{title} ...")
        self._then, self._title, self._key = then, title, self._session.key
        self._runner.start(title.lower(), job, *arguments)

    def _on_step(self, step: atom_jobs.Step) -> None:
        if step.frames > 1:
            self._session.say(f"{self._title}: frame {step.done} of {step.frames}")

    def _on_done(self, result: Any) -> None:
        if self._session.key == self._key:
            self._then(result)

    def _on_failed(self, error: Exception) -> None:
        self._session.say(f"{self._title} failed: {error}", wrong=True)

    def _on_ended(self) -> None:
        if self._session.activity == "finding":
            self._session.activity = "idle"

    # -- similar sites -------------------------------------------------------------------------

    def _on_similar(self) -> None:
        image, picks = self._ready()
        if image is None:
            return
        frame = self._overlay.frame
        rows = [row for row in self._overlay.picks.selected() if picks.t[row] == frame]
        if not rows:
            self._refuse(
                "No atom is selected: switch on 'Edit with the mouse' and click one, or draw a "
                "lasso around a few that look alike."
            )
            return
        examples = picks.positions_yx[rows]
        self._similar_name = self._panel.site.text().strip() or measure_jobs.free_letter(picks)
        self._start(
            "Looking for similar sites",
            self._on_similar_found,
            measure_jobs.similar,
            image,
            frame,
            examples,
            self._session.separation_px,
        )

    def _on_similar_found(self, similar: Similar) -> None:
        near_px = NEAR * similar.separation_px
        self._similar = (similar, self._similar_name, near_px, self._overlay.frame)
        self._session.end_step()
        self._take_similar(None)

    def _on_score(self, score: float) -> None:
        if self._similar is not None and self._session.activity == "idle":
            self._take_similar(score)

    def _take_similar(self, score: float | None) -> None:
        from napari_shiftvae.core.similar import automatic_score, choose_similar

        similar, name, near_px, frame = self._similar
        lowest = automatic_score(similar) if score is None else score
        places = Picks.of(choose_similar(similar, lowest), by_hand=False, t=frame)
        before = self._session.begin_step(f"similar {name}")
        self._session.change_picks(before.with_group(places, name, near_px), step=f"similar {name}")
        self._panel.show_score(lowest)
        self._session.say(f"{len(places)} places look like the examples: sublattice {name}.")

    def _forget_similar(self) -> None:
        self._similar = None
        self._panel.score.setEnabled(False)

    # -- by hand -------------------------------------------------------------------------------

    def _on_edit(self, on: bool) -> None:
        self._pick_tool.on = on

    def _on_lasso(self, on: bool) -> None:
        self._pick_tool.lasso = on

    def _on_assign(self) -> None:
        rows, picks = self._overlay.picks.selected(), self._session.picks
        if not rows:
            self._refuse("No atom is selected: click one, or draw a lasso around some.")
            return
        name, given = QInputDialog.getText(
            self._panel, "Name atoms", f"Sublattice of {len(rows)} selected atoms:"
        )
        if given:
            table = picks.table.copy()
            table.loc[rows, SUBLATTICE] = name.strip()
            self._session.change_picks(Picks(table=table))

    def _on_picks(self, _: object = None) -> None:
        counts = Counter(self._session.picks.sublattice.tolist())
        order = [*self._session.picks.sublattices, *([""] if counts[""] else [])]
        grouped = order != [""]
        self._panel.sublattices.show_counts(
            {name: counts[name] for name in order} if grouped else {}, self._session.colour_of
        )
        if self._similar is not None and not self._session.in_step(f"similar {self._similar[1]}"):
            self._forget_similar()

    def picks_to_analyse(self) -> Picks:
        """Return the picks of the sublattices that are ticked; all where there are none."""
        picks = self._session.picks
        if not picks.sublattices:
            return picks
        return picks.in_sublattices(self._panel.sublattices.chosen())

    # -- files ---------------------------------------------------------------------------------

    def _on_load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(_window(self._panel), "Import positions", "", CSV)
        if path:
            self.load(path)

    def load(self, path: str) -> None:
        """Add the positions in a file to the picks, as made by hand."""
        image = self._image()
        if image is None:
            return
        try:
            picks = Picks.read(read_positions(path), by_hand=True)
            atom_jobs.check_frames(image, picks)
        except InputError as error:
            self._refuse(str(error))
            return
        before = self._session.picks
        self._session.change_picks(before.with_more(picks, 0.5))
        added = len(self._session.picks) - len(before)
        self._session.say(f"Added {added} of {len(picks)} positions; the others were there.")

    def _on_save(self) -> None:
        if not len(self._session.picks):
            self._refuse("There are no atoms to export yet: find them, or click some.")
            return
        name = f"{self._overlay.image.name} atoms.csv" if self._overlay.image else "atoms.csv"
        path, _ = QFileDialog.getSaveFileName(_window(self._panel), "Export atoms", name, CSV)
        if path:
            self.save(path if path.lower().endswith(".csv") else f"{path}.csv")

    def save(self, path: str) -> None:
        """Write all picks and what was measured of them."""
        image = self._image()
        if image is None:
            return
        table = self._session.picks.for_file(image.calibration, stack=image.data.ndim == 3)
        try:
            write_positions(table, path)
        except InputError as error:
            self._refuse(str(error))
            return
        self._session.say(f"Wrote {len(table)} atoms to {path}.")

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)


def _window(widget: QWidget) -> QWidget:
    return widget.window()
