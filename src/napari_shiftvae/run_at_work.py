"""The layers of the run that is at work, and in the end those of its result. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_shiftvae import layers as to_layers
from napari_shiftvae.layers import RUN
from napari_shiftvae.placement import spatial
from napari_shiftvae.run_layers import drawn_once

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from napari.layers import Image, Layer, Points
    from numpy.typing import NDArray

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.pick_layers import PickLayers
    from napari_shiftvae.picks import Picks
    from napari_shiftvae.run_layers import RunLayers
    from napari_shiftvae.session import Session


@dataclass(kw_only=True)
class Target:
    """What a run that is at work is for; the image may be renamed or deleted meanwhile."""

    key: Hashable
    name: str
    place: Mapping[str, Any]
    image: Image
    picks: Picks
    some: bool  # not all that there are
    pixels: object
    atoms: Points | None = None
    earlier: Points | None = None  # atoms of the run that made room for this one
    hidden: list[Layer] = field(default_factory=list)  # layers of it that were visible


class RunAtWork:
    """What a run changes in the viewer, from its beginning to its end.

    Parameters
    ----------
    session : Session
    picks : PickLayers
    runs : RunLayers

    Signals
    -------
    ended
        All that the run has made is shown.
    """

    ended = Signal()

    def __init__(self, session: Session, picks: PickLayers, runs: RunLayers) -> None:
        self._session = session
        self._picks = picks
        self._runs = runs
        self._target: Target | None = None

    @property
    def busy(self) -> bool:
        """Whether there is one."""
        return self._target is not None

    def begin(self, picks: Picks) -> Target:
        """Begin a run on the chosen image; `prepare` gets the layers ready for it.

        Parameters
        ----------
        picks : Picks
            Those that are analysed; where these are not all there are, they get their own layer.
        """
        assert self._picks.image is not None  # noqa: S101
        self._target = Target(
            key=self._session.key,
            name=self._picks.image.name,
            place=spatial(self._picks.image),
            image=self._picks.image,
            pixels=self._picks.image.data,
            atoms=self._picks.layer,
            picks=picks,
            some=len(picks) < len(self._session.picks),
        )
        return self._target

    def prepare(self) -> Iterator[None]:
        """Hide the layers of an earlier run and give the one that was begun its own, in steps."""
        target = self._target
        if target is None or target.atoms is None:
            return
        if target.some:
            target.atoms = self._picks.new(target.picks)
        elif RUN in target.atoms.metadata:
            target.earlier = target.atoms
            target.hidden = self._runs.hide(target.atoms.metadata[RUN])
            yield
            if self._picks.layer is not target.atoms:  # the run has found its own meanwhile
                target.atoms = self._picks.layer
            elif len(target.picks):
                target.atoms = self._picks.renew(target.picks)
            else:
                target.atoms = None
                self._picks.let_go(target.key)

    @property
    def replaced(self) -> bool:
        """Whether the image has other data than when the run was begun."""
        return self._target is not None and self._target.image.data is not self._target.pixels

    def recolour(self, progress: Progress) -> None:
        """Colour the atoms by the first latent as it is now."""
        own = None if self._target is None else self._target.atoms
        layer = own or self._picks.layer
        report, index = progress.report, progress.index
        if report is None or index is None or layer is None:
            return
        if not self._runs.holds(layer) or RUN in layer.metadata:
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
        self.ended.emit()

    def _show_end(self, target: Target, run: Run | None) -> Iterator[None]:
        layer = target.atoms or self._picks.of(target.key)
        if run is None:
            if self._runs.holds(layer) and RUN not in layer.metadata:
                layer.face_color = "transparent"
            self._show_again(target)
            return
        positions = run.atoms[["y_px", "x_px"]].to_numpy()
        # as it lies now, had it been moved; not where it has become a stack meanwhile
        flat = target.image.ndim == 2
        place = spatial(target.image) if flat else target.place
        name = target.image.name
        picks = target.picks if len(target.picks) else self._session.picks
        *maps, atoms, shift = to_layers.run_layers(run, name, place, picks)
        yield
        if self._runs.holds(layer) and RUN in layer.metadata and not target.some:  # an earlier run
            self._runs.hide(layer.metadata[RUN])
            self._picks.let_go(target.key)
            yield
        if self._runs.holds(layer) and RUN not in layer.metadata and _same_places(layer, positions):
            self._colour_atoms(layer, run, atoms[1])
            yield
        else:
            layer = yield from self._runs.adding(atoms, under=lambda: None)
            if self._picks.of(target.key) is None:
                self._picks.keep(target.key, layer)
        for one in maps:
            yield from self._runs.adding(one, under=partial(self._if_there, layer))
        yield from self._runs.adding(shift, under=partial(self._above, layer))

    def _show_again(self, target: Target) -> None:
        """Show the run again that made room for one that has no result."""
        for one in target.hidden:
            if self._runs.holds(one):
                one.visible = True
        earlier, new = target.earlier, target.atoms
        if not (self._runs.holds(earlier) and self._picks.of(target.key) is new):
            return
        if self._runs.holds(new) and _same_places(new, earlier.data):
            self._picks.keep(target.key, earlier)
            self._runs.remove(new)

    def _if_there(self, layer: Points | None) -> Points | None:
        return layer if self._runs.holds(layer) else None

    def _above(self, layer: Points) -> Layer | None:
        return self._runs.above(layer) if self._runs.holds(layer) else None

    def _colour_atoms(self, layer: Points, run: Run, look: Mapping[str, Any]) -> None:
        with self._picks.quietly(), drawn_once(layer):
            layer.features = look["features"]
            layer.face_colormap = look["face_colormap"]
            layer.face_contrast_limits = look["face_contrast_limits"]
            layer.face_color = look["face_color"]
            layer.border_color = look["border_color"]
            layer.border_width = look["border_width"]
        layer.metadata = {**layer.metadata, RUN: run}
        layer.events.features()  # told last: there may be tables that show them


def _same_places(layer: Points, positions_yx: NDArray[np.float64]) -> bool:
    return layer.data.shape == positions_yx.shape and np.allclose(layer.data, positions_yx)
