"""Adding, moving and deleting atoms with the mouse on the canvas. No Qt."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.lasso import drawn_by
from napari_shiftvae.layers import dot_size_px
from napari_shiftvae.placement import in_pixels, pixels_per_canvas_pixel

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.session import Session

CLICK_PX = 4  # the mouse moves less than so many canvas pixels in a click
REACH_PX = 6  # an atom is hit from so many canvas pixels away, or from inside its dot


class PickTool:
    """While on, clicks on the canvas edit the picks of the chosen image.

    A click on an empty place adds an atom there, one on an atom selects it, one with Shift
    deletes it; dragging an atom moves it; dragging elsewhere pans as always. napari's own point
    tools misplace atoms where layers have different units of length, which is why there is
    this one.
    """

    def __init__(self, viewer: napari.viewer.Viewer, session: Session, overlay: Overlay) -> None:
        self._viewer = viewer
        self._session = session
        self._overlay = overlay
        self._edit = False
        self._lasso = False

    @property
    def on(self) -> bool:
        """Whether clicks edit."""
        return self._edit

    @on.setter
    def on(self, on: bool) -> None:
        self._listen(edit=on, lasso=self._lasso and not on)

    @property
    def lasso(self) -> bool:
        """Whether a drag draws a line around atoms to select."""
        return self._lasso

    @lasso.setter
    def lasso(self, on: bool) -> None:
        self._listen(edit=self._edit and not on, lasso=on)

    def _listen(self, *, edit: bool, lasso: bool) -> None:
        before, after = self._edit or self._lasso, edit or lasso
        self._edit, self._lasso = edit, lasso
        if after and not before:
            self._viewer.mouse_drag_callbacks.append(self._on_press)
        elif before and not after:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)
        if after:
            self._activate()

    def close(self) -> None:
        """Let go of the mouse."""
        self._listen(edit=False, lasso=False)

    def _activate(self) -> None:
        """Make the atoms the active layer, so that the Delete key is about them."""
        if self._overlay.atoms is not None:
            self._viewer.layers.selection.active = self._overlay.atoms

    def _on_press(self, _: Any, event: Any) -> Generator[None, None, None]:
        image = self._overlay.image
        if event.button != 1 or image is None or image.ndim > 3 or self._viewer.dims.ndisplay != 2:
            return
        if self._lasso:
            yield from self._draw_lasso(event)
            return
        pressed_at, pressed = np.array(event.pos), self._place(event)
        hit = self._session.picks.nearest(pressed, self._reach(event), self._overlay.frame)
        grip = np.zeros(2) if hit is None else self._session.picks.positions_yx[hit] - pressed
        dragged = False
        yield
        while event.type == "mouse_move":
            if dragged or np.linalg.norm(np.array(event.pos) - pressed_at) > CLICK_PX:
                dragged = True
            if hit is not None:
                event.handled = True  # or the canvas would pan
                if dragged:
                    self._move(hit, self._place(event) + grip)
            yield
        self._session.end_step()
        if dragged:
            return
        if hit is None:
            self._add(pressed)
            self._activate()
        elif "Shift" in event.modifiers:
            self._session.change_picks(self._session.picks.without([hit]))
        elif self._overlay.atoms is not None:
            self._overlay.atoms.selected_data = {hit}

    def _draw_lasso(self, event: Any) -> Generator[None, None, None]:
        """Select the atoms of the frame shown that a drag goes around."""
        image = self._overlay.image
        lasso = yield from drawn_by(event, self._overlay)
        if self._overlay.image is not image:
            return
        picks = self._session.picks
        inside = lasso.around(picks.positions_yx) & (picks.t == lasso.frame)
        rows = set(np.flatnonzero(inside).tolist())
        if "Shift" in event.modifiers:
            rows |= set(self._overlay.picks.selected())
        self._overlay.picks.select(rows)
        self._session.say(f"{len(rows)} atom{'' if len(rows) == 1 else 's'} selected.")

    def _place(self, event: Any) -> NDArray[np.float64]:
        return in_pixels(self._overlay.image, event.position, self._viewer.layers.units)

    def _reach(self, event: Any) -> float:
        """How near to an atom a click hits it, in pixels of the image."""
        zoom, units = self._viewer.scene.camera.zoom, self._viewer.layers.units
        step = pixels_per_canvas_pixel(self._overlay.image, event.position, zoom, units)
        return max(REACH_PX * step, dot_size_px(self._session.picks.positions_yx) / 2)

    def _inside(self, position_yx: NDArray[np.float64]) -> bool:
        shape = np.array(self._overlay.image.data.shape[-2:])
        return bool(((position_yx >= -0.5) & (position_yx <= shape - 0.5)).all())

    def _add(self, position_yx: NDArray[np.float64]) -> None:
        if not self._inside(position_yx):
            self._session.say("That is outside the image; click on it to add an atom.")
            return
        self._session.change_picks(self._session.picks.added(position_yx, self._overlay.frame))

    def _move(self, index: int, position_yx: NDArray[np.float64]) -> None:
        if self._inside(position_yx) and index < len(self._session.picks):
            self._session.change_picks(self._session.picks.moved(index, position_yx), step="drag")

    def delete_selected(self) -> None:
        """Delete the picks that are selected in the atoms layer."""
        rows = self._overlay.picks.selected()
        if rows:
            self._session.change_picks(self._session.picks.without(rows))
        else:
            self._session.say("No atom is selected; click one first.")
