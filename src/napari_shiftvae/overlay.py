"""Keeps the viewer's layers in step with a session. No Qt.

Only layers made here are changed here, and of these the ones that hold a finished analysis no
more: an edit or a second run starts new layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Layer, Points
from psygnal import Signal

from napari_shiftvae import docks, garbage
from napari_shiftvae import layers as to_layers
from napari_shiftvae.layers import RUN
from napari_shiftvae.picks import Picks
from napari_shiftvae.placement import spatial
from napari_shiftvae.run_layers import RunLayers, drawn_once, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import napari
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.session import Session


@dataclass(kw_only=True)
class Target:
    """What a run that is at work is for; the image may be renamed or deleted meanwhile."""

    key: object
    name: str
    place: Mapping[str, Any]
    image: Image
    picks: Picks
    some: bool  # not all that there are
    pixels: object
    atoms: Points | None = None
    earlier: Points | None = None  # atoms of the run that made room for this one
    hidden: list[Layer] = field(default_factory=list)  # layers of it that were visible


class Overlay:
    """The layers of the analyses in one viewer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    session : Session
    appear : callable
        Makes a layer visible that was added, as of `RunLayers`.

    Signals
    -------
    run_opened
        Atoms layer of a run that was opened from its file, and the run.
    """

    run_opened = Signal(object, object)

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        session: Session,
        appear: Callable[[Layer], None] = show,
    ) -> None:
        self._viewer = viewer
        self.session = session
        self.image: Image | None = None
        self._atoms: dict[object, Points] = {}
        self._vacancies: dict[object, Points] = {}
        self._target: Target | None = None
        self._syncing = False
        session.picks_changed.connect(self._show_picks)
        session.colours_changed.connect(self._recolour_rings)
        self.runs = RunLayers(viewer, appear)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.events.inserted.connect(self._on_inserted)
        docks.note(viewer)

    def close(self) -> None:
        """Stop listening."""
        docks.forget(self._viewer)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.session.picks_changed.disconnect(self._show_picks)
        self.session.colours_changed.disconnect(self._recolour_rings)
        for layer in self._atoms.values():
            layer.events.data.disconnect(self._on_atoms_edited)

    @property
    def viewer(self) -> napari.viewer.Viewer:
        """Whose layers these are."""
        return self._viewer

    # -- image and picks -----------------------------------------------------------------------

    def choose(self, image: Image | None) -> None:
        """Turn to the analysis of an image layer."""
        self.image = image
        self.session.choose(None if image is None else image.unique_id)

    @property
    def atoms(self) -> Points | None:
        """Layer of the picks, None before there are any."""
        return self._atoms.get(self.session.key)

    def selected(self) -> list[int]:
        """Rows of the picks that are selected in the atoms layer."""
        return [] if self.atoms is None else sorted(self.atoms.selected_data)

    def _show_picks(self, picks: Picks) -> None:
        if self._syncing or self.image is None:
            return
        layer, place = self.atoms, spatial(self.image)
        positions = to_layers.layer_positions(picks, place)
        same = layer is not None and np.array_equal(layer.data, positions)
        if layer is None or (RUN in layer.metadata and not same):
            if not len(picks):
                return
            if layer is not None:
                self.runs.hide(layer.metadata[RUN])
            self._add_atoms(picks)
            return
        if RUN in layer.metadata:
            with self._quietly():
                layer.features = to_layers.run_table(layer.metadata[RUN], picks)
            return
        if same:
            self._look(layer, picks, None)
            return
        with self._quietly():
            if len(layer.data) != len(picks):
                layer.selected_data = set()
            layer.data = positions
            with drawn_once(layer):
                size = self._dot_size(picks)
                if len(picks) and not (layer.size == size).all():
                    layer.size = size
                if layer.face_color[:, 3].any():
                    layer.face_color = "transparent"
                self._look(layer, picks, None)

    def _dot_size(self, picks: Picks) -> float:
        """Diameter [px] by the distance that atoms were found with, else by their own."""
        known = self.session.separation_px
        return to_layers.dot_size_px(picks.positions_yx[picks.t == picks.t[:1]], known)

    def _look(self, layer: Points, picks: Picks, set_aside: NDArray[np.str_] | None) -> None:
        """Give the dots of picks their features and colours, where these are others than before."""
        features = to_layers.pick_features(picks, set_aside)
        rings = to_layers.ring_colours(picks, set_aside, self.session.colour_of)
        with self._quietly():
            if not features.equals(layer.features):
                layer.features = features
            # napari takes a table of no colours for a mistake
            if len(picks) and not np.array_equal(layer.border_color, rings):
                layer.border_color = rings

    def _recolour_rings(self) -> None:
        layer, picks = self.atoms, self.session.picks
        if layer is not None and RUN not in layer.metadata and len(layer.data) == len(picks):
            aside = layer.features.get("set_aside")
            self._look(layer, picks, None if aside is None else aside.to_numpy(dtype=str))

    def _add_atoms(self, picks: Picks) -> Points:
        assert self.image is not None  # noqa: S101 - a caller's mistake, not a user's
        layer = self._new_atoms(picks)
        old = self.atoms
        if old is not None:
            old.events.data.disconnect(self._on_atoms_edited)
        layer.events.data.connect(self._on_atoms_edited)
        self._atoms[self.session.key] = layer
        return layer

    def _let_go(self, key: object) -> None:
        """Leave a layer of atoms to itself."""
        layer = self._atoms.pop(key, None)
        if layer is not None:
            layer.events.data.disconnect(self._on_atoms_edited)

    def _new_atoms(self, picks: Picks) -> Points:
        data = to_layers.atoms_layer(
            picks, self.image.name, spatial(self.image), self.session.colour_of
        )
        (layer,) = self.runs.add([data])
        return layer

    def _on_atoms_edited(self, event: Any) -> None:
        """Take over what was done with napari's own point tools."""
        if self._syncing or str(event.action) not in {"added", "removed", "changed"}:
            return
        if event.source is not self.atoms:
            return
        with self._quietly():
            self.session.change_picks(self.session.picks.edited(event.source.data))

    def mark_set_aside(self, set_aside: NDArray[np.str_]) -> None:
        """Ring the atoms without a patch in another colour; one reason (or "") for each pick."""
        layer, picks = self.atoms, self.session.picks
        if layer is None or RUN in layer.metadata or len(set_aside) != len(layer.data):
            return
        with self._quietly():
            self._look(layer, picks, set_aside)

    def select(self, rows: Iterable[int]) -> None:
        """Select picks in the atoms layer."""
        if self.atoms is not None:
            self.atoms.selected_data = set(rows)

    def show_vacancies(self, places_yx: NDArray[np.float64], frame: int) -> None:
        """Mark sites without an atom in a layer of their own; an earlier one is taken away."""
        if self.image is None:
            return
        earlier = self._vacancies.pop(self.session.key, None)
        if earlier is not None:
            self.runs.remove(earlier)
        if len(places_yx):
            place = spatial(self.image)
            data = to_layers.vacancies_layer(places_yx, frame, self.image.name, place)
            (self._vacancies[self.session.key],) = self.runs.add([data])

    @property
    def frame(self) -> int:
        """Frame of the chosen stack that is shown, 0 of an image."""
        if self.image is None or self.image.ndim < 3:
            return 0
        shown = self.image.world_to_data(self._viewer.dims.point[-self.image.ndim :])[0]
        return int(np.clip(np.rint(shown), 0, len(self.image.data) - 1))

    # -- runs ----------------------------------------------------------------------------------

    def begin(self, picks: Picks) -> Target:
        """Begin a run on the chosen image; `prepare` gets the layers ready for it.

        Parameters
        ----------
        picks : Picks
            Those that are analysed; where these are not all there are, they get their own layer.
        """
        assert self.image is not None  # noqa: S101
        self._target = Target(
            key=self.session.key,
            name=self.image.name,
            place=spatial(self.image),
            image=self.image,
            pixels=self.image.data,
            atoms=self.atoms,
            picks=picks,
            some=len(picks) < len(self.session.picks),
        )
        return self._target

    def prepare(self) -> Iterator[None]:
        """Hide the layers of an earlier run and give the one that was begun its own, in steps."""
        target = self._target
        if target is None or target.atoms is None:
            return
        if target.some:
            target.atoms = self._new_atoms(target.picks)
        elif RUN in target.atoms.metadata:
            target.earlier = target.atoms
            target.hidden = self.runs.hide(target.atoms.metadata[RUN])
            yield
            if self.atoms is not target.atoms:  # the run has found its own meanwhile
                target.atoms = self.atoms
            elif len(target.picks):
                target.atoms = self._add_atoms(target.picks)
            else:
                target.atoms = None
                self._let_go(target.key)

    @property
    def replaced(self) -> bool:
        """Whether the image has other data than when the run was begun."""
        return self._target is not None and self._target.image.data is not self._target.pixels

    def recolour(self, progress: Progress) -> None:
        """Colour the atoms by the first latent as it is now."""
        layer = self.atoms if self._target is None else self._target.atoms or self.atoms
        report, index = progress.report, progress.index
        if report is None or index is None or layer is None:
            return
        if layer not in self._viewer.layers or RUN in layer.metadata:
            return
        if not np.array_equal(layer.data, progress.positions_yx):
            return  # these are other atoms, or they were edited meanwhile
        colours = layer.face_color
        # In place, then the event: half the time of assigning, which copies and checks (5 ms
        # instead of 11 ms for 5,000 atoms); the table of features follows at the end.
        colours[index] = to_layers.latent_colours(report.latents[:, 0])
        layer.events.face_color()

    def end(self, run: Run | None) -> Iterator[None]:
        """Show the result of the run that was begun; None where it has none.

        napari takes up to a tenth of a second for each layer: this is an iterator so that the
        window can be painted between them.
        """
        target, self._target = self._target, None
        if target is None:
            return
        yield from self._show_end(target, run)
        self._forget_gone()

    def _show_end(self, target: Target, run: Run | None) -> Iterator[None]:
        layer = target.atoms or self._atoms.get(target.key)
        if run is None:
            if self._is_there(layer) and RUN not in layer.metadata:
                layer.face_color = "transparent"
            self._show_again(target)
            return
        positions = run.atoms[["y_px", "x_px"]].to_numpy()
        # as it lies now, had it been moved; not where it has become a stack meanwhile
        flat = target.image.ndim == 2
        place = spatial(target.image) if flat else target.place
        name = target.image.name
        picks = target.picks if len(target.picks) else self.session.picks
        *maps, atoms, shift = to_layers.run_layers(run, name, place, picks)
        yield
        if self._is_there(layer) and RUN in layer.metadata and not target.some:  # an earlier run
            self.runs.hide(layer.metadata[RUN])
            self._let_go(target.key)
            yield
        if self._is_there(layer) and RUN not in layer.metadata and _same_places(layer, positions):
            self._colour_atoms(layer, run, atoms[1])
            yield
        else:
            layer = yield from self.runs.adding(atoms, under=lambda: None)
            if target.key not in self._atoms:
                layer.events.data.connect(self._on_atoms_edited)
                self._atoms[target.key] = layer
        for one in maps:
            yield from self.runs.adding(one, under=partial(self._if_there, layer))
        yield from self.runs.adding(shift, under=partial(self._above, layer))

    def _show_again(self, target: Target) -> None:
        """Show the run again that made room for one that has no result."""
        for one in target.hidden:
            if one in self._viewer.layers:
                one.visible = True
        earlier, new = target.earlier, target.atoms
        if not (self._is_there(earlier) and self._atoms.get(target.key) is new):
            return
        if self._is_there(new) and _same_places(new, earlier.data):
            new.events.data.disconnect(self._on_atoms_edited)
            earlier.events.data.connect(self._on_atoms_edited)
            self._atoms[target.key] = earlier
            self.runs.remove(new)

    def _is_there(self, layer: Points | None) -> bool:
        return layer is not None and layer in self._viewer.layers

    def _if_there(self, layer: Points | None) -> Points | None:
        return layer if self._is_there(layer) else None

    def _above(self, layer: Points) -> Layer | None:
        return self.runs.above(layer) if self._is_there(layer) else None

    def _colour_atoms(self, layer: Points, run: Run, look: Mapping[str, Any]) -> None:
        with self._quietly(), drawn_once(layer):
            layer.features = look["features"]
            layer.face_colormap = look["face_colormap"]
            layer.face_contrast_limits = look["face_contrast_limits"]
            layer.face_color = look["face_color"]
            layer.border_color = look["border_color"]
            layer.border_width = look["border_width"]
        layer.metadata = {**layer.metadata, RUN: run}
        layer.events.features()  # told last: there may be tables that show them

    # -- viewer --------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        """Take over a run that was opened from its file, if it is one of the chosen image."""
        layer = event.value
        if RUN not in layer.metadata or self.runs.inserting or self._target is not None:
            return
        run = layer.metadata[RUN]
        if isinstance(layer, Points) and _is_of_image(layer):
            self.run_opened.emit(layer, run)
        elif self.image is not None and run is self.session.run:
            self.runs.put(layer, self.image)

    def look_for_runs(self) -> None:
        """Tell of the run that was opened last, before anything listened."""
        for layer in reversed(self._viewer.layers):
            if isinstance(layer, Points) and _is_of_image(layer):
                self.run_opened.emit(layer, layer.metadata[RUN])
                return

    def adopt(self, layer: Points, run: Run) -> None:
        """Make a run that was opened from its file that of the chosen image."""
        assert self.image is not None  # noqa: S101 - its image has been chosen
        for one in (layer, *self.runs.of_run(run)):
            self.runs.put(one, self.image)
        earlier = self._atoms.get(self.session.key)
        if earlier is not None:
            earlier.events.data.disconnect(self._on_atoms_edited)
        self._atoms[self.session.key] = layer
        layer.events.data.connect(self._on_atoms_edited)
        with self._quietly():
            self.session.change_picks(Picks.of(run.picks_yx, by_hand=False))
        self.session.finish(run, self.session.key)

    def _on_removed(self, event: Any) -> None:
        garbage.thaw()
        layer = event.value
        for key, atoms in list(self._atoms.items()):
            if atoms is layer:
                layer.events.data.disconnect(self._on_atoms_edited)
                del self._atoms[key]
                if key == self.session.key and self._target is None:
                    # its picks are gone with it, but can be had back with undo
                    self.session.change_picks(Picks.none())

        if self._target is None:
            self._forget_gone()

    def _forget_gone(self) -> None:
        """Let go of what belongs to images that were deleted."""
        there = {layer.unique_id for layer in self._viewer.layers}
        for key in self.session.keys() - there:
            self.session.forget(key)
            self._let_go(key)

    def _quietly(self) -> _Flag:
        return _Flag(self)


def _same_places(layer: Points, positions_yx: NDArray[np.float64]) -> bool:
    return layer.data.shape == positions_yx.shape and np.allclose(layer.data, positions_yx)


def _is_of_image(layer: Layer) -> bool:
    """Whether a layer shows the run of an image, not that of a stack."""
    if RUN not in layer.metadata:
        return False
    from napari_shiftvae.core.runs import Run

    return isinstance(layer.metadata[RUN], Run)


class _Flag:
    """While entered, an overlay does not take its own changes for the user's."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay

    def __enter__(self) -> None:
        self._overlay._syncing = True  # noqa: SLF001

    def __exit__(self, *_: object) -> None:
        self._overlay._syncing = False  # noqa: SLF001
