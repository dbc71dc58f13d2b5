"""Pointing at atoms of a finished analysis and selecting them, with the mouse. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.lasso import drawn_by
from napari_shiftvae.layers import dot_size_px
from napari_shiftvae.picking import CLICK_PX, REACH_PX
from napari_shiftvae.placement import in_pixels, pixels_per_canvas_pixel

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

    from napari_shiftvae.overlay import Overlay


class AtomSelect:
    """Tells which atoms the mouse is at, clicks, or draws a line around.

    napari's own selecting tool misses atoms where layers have different units of length, and
    needs the right layer chosen first, which is why there is this one. It keeps still while one
    of napari's tools is in use.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    overlay : Overlay
    wanted : callable
        Whether to listen at the moment.
    pointed : callable
        Takes the row of the atom under the mouse, -1 for none.
    picked : callable
        Takes rows, and whether they are added to those picked before.
    activated : callable
        Takes the row of an atom that was double-clicked.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        overlay: Overlay,
        *,
        wanted: Callable[[], bool],
        pointed: Callable[[int], None],
        picked: Callable[[NDArray[np.int64], bool], None],
        activated: Callable[[int], None],
    ) -> None:
        self._viewer = viewer
        self._overlay = overlay
        self._wanted = wanted
        self._pointed, self._picked, self._activated = pointed, picked, activated
        self.lasso = False  # whether a drag draws a line instead of panning
        self._listeners = (
            (viewer.mouse_move_callbacks, self._on_move),
            (viewer.mouse_drag_callbacks, self._on_press),
            # after napari's own, which zooms in
            (viewer.mouse_double_click_callbacks, self._on_double_click),
        )
        for callbacks, own in self._listeners:
            callbacks.append(own)

    def close(self) -> None:
        """Let go of the mouse."""
        for callbacks, own in self._listeners:
            if own in callbacks:
                callbacks.remove(own)

    def _listens(self) -> bool:
        image, run = self._overlay.image, self._overlay.session.run
        if image is None or run is None or self._viewer.dims.ndisplay != 2:
            return False
        active = self._viewer.layers.selection.active
        return self._wanted() and str(getattr(active, "mode", "pan_zoom")) in {
            "pan_zoom",
            "transform",
        }

    def _place(self, event: Any) -> NDArray[np.float64]:
        return in_pixels(self._overlay.image, event.position, self._viewer.layers.units)

    def _row_at(self, event: Any) -> int:
        picks = self._overlay.session.run.picks_yx
        zoom, units = self._viewer.scene.camera.zoom, self._viewer.layers.units
        step = pixels_per_canvas_pixel(self._overlay.image, event.position, zoom, units)
        distance = np.linalg.norm(picks - self._place(event), axis=1)
        row = int(distance.argmin())
        reach = max(
            REACH_PX * step, dot_size_px(picks, self._overlay.session.run.separation_px) / 2
        )
        return row if distance[row] <= reach else -1

    def _on_move(self, _: Any, event: Any) -> None:
        if self._listens():
            self._pointed(self._row_at(event))

    def _on_double_click(self, _: Any, event: Any) -> None:
        if self._listens() and (row := self._row_at(event)) >= 0:
            self._activated(row)

    def _on_press(self, _: Any, event: Any) -> Generator[None, None, None]:
        if event.button != 1 or not self._listens():
            return
        if self.lasso:
            yield from self._draw_lasso(event)
            return
        pressed_at, row = np.array(event.pos), self._row_at(event)
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged |= bool(np.linalg.norm(np.array(event.pos) - pressed_at) > CLICK_PX)
            yield
        if not dragged:
            rows = np.array([row][: row >= 0], dtype=np.int64)
            self._picked(rows, "Shift" in event.modifiers)

    def _draw_lasso(self, event: Any) -> Generator[None, None, None]:
        run = self._overlay.session.run
        lasso = yield from drawn_by(event, self._overlay)
        if self._overlay.session.run is run:
            rows = np.flatnonzero(lasso.around(run.picks_yx) & run.used)
            self._picked(rows, "Shift" in event.modifiers)
