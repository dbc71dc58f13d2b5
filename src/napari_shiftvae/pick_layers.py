"""The layers of picks, one for each image, kept in step with a session. No Qt.

A layer that holds a finished analysis is changed here no more: an edit starts a new one.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae import layers as to_layers
from napari_shiftvae.layers import RUN
from napari_shiftvae.placement import spatial
from napari_shiftvae.run_layers import drawn_once

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from napari.layers import Image, Points
    from numpy.typing import NDArray

    from napari_shiftvae.picks import Picks
    from napari_shiftvae.run_layers import RunLayers
    from napari_shiftvae.session import Session


class PickLayers:
    """The layers of picks in one viewer.

    Parameters
    ----------
    session : Session
        Its picks are shown, and what is done to them with napari's own tools is taken over.
    runs : RunLayers
        Adds the layers, and hides a finished run whose picks are edited.

    Attributes
    ----------
    image : Image layer or None
        That of the session's picks, for `Overlay` to choose.
    """

    def __init__(self, session: Session, runs: RunLayers) -> None:
        self.image: Image | None = None
        self._session = session
        self._runs = runs
        self._layers: dict[Hashable, Points] = {}
        self._vacancies: dict[Hashable, Points] = {}
        self._syncing = False
        session.picks_changed.connect(self._show)
        session.colours_changed.connect(self._recolour_rings)

    def close(self) -> None:
        """Stop listening."""
        self._session.picks_changed.disconnect(self._show)
        self._session.colours_changed.disconnect(self._recolour_rings)
        for key in list(self._layers):
            self.let_go(key)

    # -- which layer ---------------------------------------------------------------------------

    @property
    def layer(self) -> Points | None:
        """Layer of the chosen image's picks, None before there are any."""
        return self._layers.get(self._session.key)

    def of(self, key: Hashable) -> Points | None:
        """Layer of the picks of an image, chosen or not."""
        return self._layers.get(key)

    def holder(self, layer: object) -> Hashable:
        """What the image is known by whose picks a layer shows, None where it shows none."""
        return next((key for key, one in self._layers.items() if one is layer), None)

    def keep(self, key: Hashable, layer: Points) -> None:
        """Let a layer show the picks of an image from now on, and another one no more."""
        self.let_go(key)
        layer.events.data.connect(self._on_edited)
        self._layers[key] = layer

    def let_go(self, key: Hashable) -> None:
        """Leave the layer of an image's picks to itself."""
        layer = self._layers.pop(key, None)
        if layer is not None:
            layer.events.data.disconnect(self._on_edited)

    def new(self, picks: Picks) -> Points:
        """Add a layer of picks that is left to itself."""
        assert self.image is not None  # noqa: S101 - a caller's mistake, not a user's
        place = spatial(self.image)
        data = to_layers.atoms_layer(picks, self.image.name, place, self._session.colour_of)
        (layer,) = self._runs.add([data])
        return layer  # type: ignore[no-any-return]

    def renew(self, picks: Picks) -> Points:
        """Add a layer for the picks of the chosen image; an earlier one is left as it is."""
        layer = self.new(picks)
        self.keep(self._session.key, layer)
        return layer

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Change layers or picks without taking that for something that the user did."""
        before, self._syncing = self._syncing, True
        try:
            yield
        finally:
            self._syncing = before

    # -- what it shows -------------------------------------------------------------------------

    def _show(self, picks: Picks) -> None:
        if self._syncing or self.image is None:
            return
        layer, place = self.layer, spatial(self.image)
        positions = to_layers.layer_positions(picks, place)
        same = layer is not None and np.array_equal(layer.data, positions)
        if layer is None or (RUN in layer.metadata and not same):
            if not len(picks):
                return
            if layer is not None:
                self._runs.hide(layer.metadata[RUN])
            self.renew(picks)
            return
        if RUN in layer.metadata:
            with self.quietly():
                layer.features = to_layers.run_table(layer.metadata[RUN], picks)
            return
        if same:
            self._look(layer, picks, None)
            return
        with self.quietly():
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
        known = self._session.separation_px
        return to_layers.dot_size_px(picks.positions_yx[picks.t == picks.t[:1]], known)

    def _look(self, layer: Points, picks: Picks, set_aside: NDArray[np.str_] | None) -> None:
        """Give the dots of picks their features and colours, where these are others than before."""
        features = to_layers.pick_features(picks, set_aside)
        rings = to_layers.ring_colours(picks, set_aside, self._session.colour_of)
        with self.quietly():
            if not features.equals(layer.features):
                layer.features = features
            # napari takes a table of no colours for a mistake
            if len(picks) and not np.array_equal(layer.border_color, rings):
                layer.border_color = rings

    def _recolour_rings(self) -> None:
        layer, picks = self.layer, self._session.picks
        if layer is not None and RUN not in layer.metadata and len(layer.data) == len(picks):
            aside = layer.features.get("set_aside")
            self._look(layer, picks, None if aside is None else aside.to_numpy(dtype=str))

    def _on_edited(self, event: Any) -> None:
        """Take over what was done with napari's own point tools."""
        if self._syncing or str(event.action) not in {"added", "removed", "changed"}:
            return
        if event.source is not self.layer:
            return
        with self.quietly():
            self._session.change_picks(self._session.picks.edited(event.source.data))

    def mark_set_aside(self, set_aside: NDArray[np.str_]) -> None:
        """Ring the atoms without a patch in another colour; one reason (or "") for each pick."""
        layer, picks = self.layer, self._session.picks
        if layer is None or RUN in layer.metadata or len(set_aside) != len(layer.data):
            return
        with self.quietly():
            self._look(layer, picks, set_aside)

    def selected(self) -> list[int]:
        """Rows of the picks that are selected in the atoms layer."""
        return [] if self.layer is None else sorted(self.layer.selected_data)

    def select(self, rows: Iterable[int]) -> None:
        """Select picks in the atoms layer."""
        if self.layer is not None:
            self.layer.selected_data = set(rows)

    def show_vacancies(self, places_yx: NDArray[np.float64], frame: int) -> None:
        """Mark sites without an atom in a layer of their own; an earlier one is taken away."""
        if self.image is None:
            return
        earlier = self._vacancies.pop(self._session.key, None)
        if earlier is not None:
            self._runs.remove(earlier)
        if len(places_yx):
            place = spatial(self.image)
            data = to_layers.vacancies_layer(places_yx, frame, self.image.name, place)
            (self._vacancies[self._session.key],) = self._runs.add([data])
