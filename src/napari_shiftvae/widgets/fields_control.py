"""What the Fields tab does: works out fields in a thread, and keeps their layers."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_shiftvae import field_layers, fields_jobs
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.regions import region_mask, region_outlines
from napari_shiftvae.script_jobs import Results
from napari_shiftvae.widgets.eyes import Eyes
from napari_shiftvae.widgets.field_scales import FieldScales
from napari_shiftvae.widgets.fields_panel import COLOURS, NO_MAP, TRENDS
from napari_shiftvae.widgets.figures import Figures
from napari_shiftvae.widgets.references import References
from napari_shiftvae.widgets.results import Results as ResultFiles
from napari_shiftvae.widgets.worker import Latest

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.lengths import Ruler
    from napari_shiftvae.core.readout import Readout
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.scalars import Scalar
    from napari_shiftvae.core.vector_field import VectorField
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.fields_panel import FieldsPanel

STRAIN = ("exx", "eyy", "exy", "rotation")  # maps of strain


class FieldsControl(QObject):
    """Connects the Fields tab with a run and its layers.

    Parameters
    ----------
    panel : FieldsPanel
    viewer : napari.viewer.Viewer
    overlay : Overlay
    image : callable
        Gives the chosen image, None where there is none that can be analysed.
    """

    latent_shown = Signal(str)  # a latent whose map was chosen
    read = Signal()  # fields were worked out and are shown

    def __init__(
        self,
        panel: FieldsPanel,
        viewer: napari.viewer.Viewer,
        overlay: Overlay,
        image: Callable[[], MicroscopeImage | None],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._overlay = overlay
        self._session = overlay.session
        self._image = image
        self._readout: Readout | None = None
        self._pixel_size_nm: tuple[float, float] | None = None
        self._wrong = False  # what is chosen cannot be worked out
        self._shown_before = True  # whether the arrows were, before something went wrong
        self._of_arrows = ""  # what they are, in words
        self._told = False  # the last thing said was what to do, or what went wrong
        self._names: NDArray[np.object_] | None = None  # sublattices that were reckoned with
        self._awaited: Hashable = None  # key of the image whose chosen map is not drawn yet
        self._reads = Latest("working out fields", fields_jobs.read, self)
        self._draws = Latest("drawing the map", fields_jobs.draw, self)
        self._results = ResultFiles(panel, overlay, image, self._scalars)
        self._references = References(panel, viewer, overlay)
        self._figures = Figures(panel, self._session, self._what_is_shown)
        self._scales = FieldScales(panel, viewer)
        self._scales.limits_changed.connect(self._show_scales)
        self._eyes = Eyes(panel, viewer, overlay)
        self._eyes.map_changed.connect(self._on_map_seen)
        panel.asked.connect(self._ask)
        panel.look_changed.connect(self._show_arrows)
        panel.map_changed.connect(self._on_map)
        self._references.changed.connect(self._ask)
        self._references.drawing.connect(self._on_drawing)
        self._session.picks_changed.connect(self._on_picks)
        panel.scale_bar.clicked.connect(self._on_scale_bar)
        self._reads.succeeded.connect(self._on_read)
        self._reads.refused.connect(self._on_refused)
        self._reads.failed.connect(lambda error: self._on_refused(f"It failed: {error}"))
        self._draws.succeeded.connect(self._on_drawn)

    def close(self) -> None:
        """End the threads and stop listening."""
        self._session.picks_changed.disconnect(self._on_picks)
        self._reads.close()
        self._draws.close()
        self._results.close()
        self._figures.close()
        self._references.close()
        self._eyes.close()
        self._scales.close()

    def show_run(self, run: Run | None) -> None:
        """Offer what a run has, as its layers are at the moment."""
        self._panel.show_content(run is not None)
        self._scales.follow(None)
        if run is None:
            self._readout = None
            return
        arrows, atoms = self._overlay.runs.arrows_of(run), self._overlay.runs.atoms_of(run)
        if arrows is not None:
            self._panel.show_arrows(arrows.visible)
            self._panel.show_gain(arrows.length)
        self._panel.show_atoms(atoms is not None and atoms.visible)
        # one of the frame before is drawn anew as soon as the fields of this one are known
        shown = self._overlay.runs.shown_map(run) or NO_MAP
        if shown == NO_MAP and self._awaited is not None and self._awaited == self._session.key:
            shown = self._panel.map.currentText()
        names = dict.fromkeys([*run.maps, shown])
        self._panel.show_maps([name for name in names if name != NO_MAP], shown)
        self._show_scales()
        self._ask()

    def show_pixel_size(self, size_nm: tuple[float, float] | None) -> None:
        """Follow the size of a pixel (y, x), None where it is not known."""
        before, self._pixel_size_nm = self._pixel_size_nm, size_nm
        self._panel.show_units(known=size_nm is not None)
        if before != size_nm:
            self._ask()

    @property
    def _ruler(self) -> Ruler:
        """In what lengths are shown."""
        from napari_shiftvae.core.lengths import Ruler

        unit = self._panel.unit.currentText()
        return Ruler.of(unit, self._pixel_size_nm)  # type: ignore[arg-type]

    # -- working out ---------------------------------------------------------------------------

    def _ask(self) -> None:
        run = self._session.run
        if run is None:
            return
        try:
            inside = self._region()
        except InputError as error:
            self._session.say(str(error), wrong=True)
            show_warning(str(error))
            return
        self._names = self._named(run)
        more = {
            "sublattice": self._names,
            "pixel_size_nm": self._pixel_size_nm,
            "unit": self._panel.unit.currentText(),
        }
        self._reads.ask(run, self._wanted(), inside, more)

    def _on_drawing(self) -> None:
        self._told = True
        self._session.say("Draw a rectangle on the image: its lattice is the reference.")

    def _on_picks(self, *_: object) -> None:
        """Reckon with other sublattices."""
        run = self._session.run
        if run is not None and not np.array_equal(self._named(run), self._names):
            self._ask()

    def _wanted(self) -> dict[str, Any]:
        """What is chosen, as `Options` takes it."""
        panel = self._panel
        return {
            "vectors": panel.vectors.currentText(),
            "position": panel.position.currentText(),
            "trend": TRENDS[panel.trend.currentText()],
        }

    def _named(self, run: Run) -> NDArray[np.object_] | None:
        """Sublattices of the atoms of a run, None where these are in none."""
        picks = self._session.picks
        names = picks.sublattice[picks.t == self._overlay.frame]  # all of an image
        return names if len(names) == len(run.atoms) and any(names) else None

    def results(self, run: Run) -> Results:
        """How the fields of a run were worked out, for a script."""
        from napari_shiftvae.core.readout import Options
        from napari_shiftvae.core.script_results import Fields

        layer, image = self._references.layer, self._overlay.image
        outlines = [] if layer is None or image is None else region_outlines(layer, image)
        other_size = self._pixel_size_nm != run.image.pixel_size_nm
        fields = Fields(
            options=Options(**self._wanted()),
            regions=[outline.tolist() for outline in outlines],
            pixel_size_nm=self._pixel_size_nm if other_size else None,
        )
        names = self._named(run)
        return Results(fields=fields, sublattice=names, positions_yx=run.picks_yx)

    def _region(self) -> NDArray[np.bool_] | None:
        layer = self._references.layer
        if layer is None or self._overlay.image is None or not len(layer.data):
            return None
        return region_mask(layer, self._overlay.image)

    def _on_read(self, result: tuple[Run, Readout]) -> None:
        run, readout = result
        if self._session.run is not run:
            return
        if self._wrong:
            self._wrong = False
            self._panel.arrows.setChecked(self._shown_before)
        layer = self._references.layer
        if self._told and (layer is None or len(layer.data)):  # else the user is still to draw
            self._told = False
            # arrows of polar displacement need no reference: then strain alone tells of it
            of_region = [one for one in readout.sentences if "reference region" in one]
            self._session.say((of_region or readout.sentences)[0])
        self._readout = readout
        shown = self._panel.map.currentText()
        others = [name for name in readout.scalars if name not in run.maps]
        self._panel.show_maps([*run.maps, *others], shown)
        # that of strain stands with the maps of strain, where there are any
        with_arrows = readout.sentences[:-1] if STRAIN[0] in readout.scalars else readout.sentences
        self._of_arrows = "\n".join(with_arrows)
        self._show_arrows()
        if shown in others:
            self._on_map()
        else:
            self._scales.follow(self._overlay.runs.map_of(run, shown))
        self.read.emit()

    def _on_refused(self, sentence: str) -> None:
        if not self._wrong:  # arrows of something else than what is chosen would mislead
            self._shown_before = self._panel.arrows.isChecked()
            self._panel.arrows.setChecked(False)
            self._panel.arrow_bar.hide()
            self._panel.wheel.hide()
        self._wrong = self._told = True
        self._panel.note.setText(sentence)
        self._session.say(sentence, wrong=True)

    def _on_scale_bar(self, shown: bool) -> None:
        layer = self._overlay.image
        if not shown or layer is None or self._pixel_size_nm is None:
            return
        if all(str(unit) in {"pixel", "dimensionless"} for unit in layer.units[-2:]):
            self._session.say(
                "The scale bar counts pixels, as the layer has no scale: press edit beside the "
                "pixel size above, then Apply."
            )

    # -- arrows --------------------------------------------------------------------------------

    def _show_arrows(self) -> None:
        run, readout, panel = self._session.run, self._readout, self._panel
        if run is None or readout is None:
            return
        look = self._look()
        self._overlay.runs.show_vectors(
            run, self._overlay.image, readout.field, look, visible=panel.arrows.isChecked()
        )
        if not self._wrong:
            hidden = _hidden_in_words(readout.field, look)
            panel.note.setText("\n".join(filter(None, [self._of_arrows, hidden])))
        self._show_scales()

    def _look(self) -> field_layers.Look:
        return field_layers.Look(
            gain=self._panel.gain.value(),
            colour=COLOURS[self._panel.colour.currentText()],
            hide_noise=self._panel.hide_noise.isChecked(),
        )

    # -- scales --------------------------------------------------------------------------------

    def _show_scales(self) -> None:
        run, readout = self._session.run, self._readout
        if run is None or readout is None:
            return
        self._scales.show_arrows(readout.field, self._overlay.image, self._ruler)
        name, scalar = self._panel.map.currentText(), self._shown_scalar()
        drawn = None if scalar is None else self._overlay.runs.map_as_it_is(run, scalar)
        self._panel.deviation.setEnabled(name != NO_MAP)
        self._scales.show_map(scalar, drawn, readout.sentences[-1] if name in STRAIN else "")

    def _scalars(self) -> list[Scalar]:
        return [] if self._readout is None else list(self._readout.scalars.values())

    # -- maps ----------------------------------------------------------------------------------

    def _shown_scalar(self) -> Scalar | None:
        """What the map shows, in the unit of lengths; None where there is no map."""
        name = self._panel.map.currentText()
        if self._readout is None or name not in self._readout.scalars:
            return None
        scalar = self._readout.scalars[name].given_in(self._ruler)
        if self._panel.deviation.isChecked() and np.isfinite(scalar.sd).any():
            return scalar.deviation()
        return scalar

    def _on_map(self) -> None:
        run, name = self._session.run, self._panel.map.currentText()
        if run is None or not name:
            return
        scalar = self._shown_scalar()
        wanted = name if scalar is None else scalar.name
        there = self._overlay.runs.map_of(run, wanted)
        self._awaited = None
        if scalar is None or (wanted in run.maps and there is not None):
            self._overlay.runs.show_map(run, wanted)
            self._scales.follow(there)
        else:
            self._awaited = self._session.key
            self._draws.ask(run, scalar)
        self._show_scales()
        if name in run.maps:
            self.latent_shown.emit(name)

    def _on_map_seen(self, name: str) -> None:
        """Follow a map that was shown or hidden by its eye, or deleted."""
        run = self._session.run
        if run is not None:
            self._panel.choose_map(name)
            none = self._panel.map.currentText() == NO_MAP
            layer = None if none else self._overlay.runs.map_of(run, name)
            self._scales.follow(layer)
            scalar = self._shown_scalar()
            old = scalar is not None and self._overlay.runs.map_as_it_is(run, scalar) is None
            if layer is not None and old:
                self._on_map()  # drawn anew: what it shows is no longer so
            else:
                self._show_scales()

    def _on_drawn(self, result: tuple[Run, Scalar, NDArray[np.float32]]) -> None:
        run, scalar, drawn = result
        wanted = self._shown_scalar()
        if self._session.run is not run or wanted is None:
            return
        if scalar.is_like(wanted):
            self._awaited = None
            self._overlay.runs.show_field(run, self._overlay.image, scalar, drawn)
            self._scales.follow(self._overlay.runs.map_of(run, scalar.name))
            self._show_scales()

    def _what_is_shown(self) -> tuple[str, tuple[Any, ...]] | None:
        """Take what is in view as a figure: its name, and arguments for `fields_jobs.figure`."""
        from napari_shiftvae.core.run_figure import View

        run, readout, layer = self._session.run, self._readout, self._overlay.image
        image = self._image()
        if run is None or readout is None or layer is None or image is None:
            return None
        panel, scalar, look = self._panel, self._shown_scalar(), self._look()
        first, last = layer.corner_pixels[:, -2:]
        said = [] if scalar is None else [scalar.name]
        said += [panel.vectors.currentText()] if panel.arrows.isChecked() else []
        drawn = None if scalar is None else self._overlay.runs.map_as_it_is(run, scalar)
        view = View(
            title=f"{layer.name}: {', '.join(said)}" if said else layer.name,
            pixel_size_nm=self._pixel_size_nm,
            unit=panel.unit.currentText(),  # type: ignore[arg-type]
            gain=look.gain,
            colour=look.colour,
            rows=field_layers.shown_rows(readout.field, look),
            box=(first[0], last[0] + 1, first[1], last[1] + 1) if (last > first).all() else None,
            opacity=1.0 if drawn is None else drawn.opacity,
            image_limits=tuple(layer.contrast_limits),
            map_limits=None if drawn is None else tuple(drawn.contrast_limits),
        )
        field = readout.field if panel.arrows.isChecked() else None
        return layer.name, (run, image.data, view, scalar, field)


def _hidden_in_words(field: VectorField, look: field_layers.Look) -> str:
    """Tell how many arrows are left out, if any."""
    known = len(field_layers.shown_rows(field, replace(look, hide_noise=False)))
    hidden = known - len(field_layers.shown_rows(field, look))
    return f"{hidden} of {known} arrows are hidden." if hidden else ""
