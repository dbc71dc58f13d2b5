"""Shows what the decoder makes: where the handle is dragged, over the plot, along one latent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.widgets.when_seen import WhenSeen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.session import Session
    from napari_shiftvae.widgets.explore_panel import ExplorePanel

GRID_SIDE = 9
STEPS_SHOWN, STEPS_SAVED = 9, 15
PICTURES = {"PNG strip (*.png)": ".png", "GIF animation (*.gif)": ".gif"}


class LatentControl(QObject):
    """Connects handle, decoder grid and traverse with the decoder of a run.

    Parameters
    ----------
    panel : ExplorePanel
    session : Session
    selected : callable
        Gives the rows of the atoms that are selected.
    patch_of : callable
        Gives the patch of an atom.
    """

    shown = Signal()  # a pattern is on the card instead of an atom

    def __init__(
        self,
        panel: ExplorePanel,
        session: Session,
        selected: Callable[[], list[int]],
        patch_of: Callable[[int], NDArray[np.float32] | None],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._session = session
        self._selected = selected
        self._patch_of = patch_of
        self._model: object = None  # whose patterns are shown
        self._limits = (0.0, 1.0)  # of the grey scale of all patterns
        self._base = np.zeros(0)
        self._show_seen = WhenSeen(panel, self._show_patterns)
        panel.drag.toggled.connect(self._on_drag)
        panel.scatter.handle_moved.connect(self._on_handle)
        for column in (panel.x, panel.y):
            column.currentTextChanged.connect(self._on_axes)
        panel.patterns.given_changed.connect(self._show_seen)
        panel.patterns.along_changed.connect(self._show_strip)
        panel.patterns.save_asked.connect(self._on_save)

    def show_run(self, run: Run | None) -> None:
        """Show the patterns of a run."""
        if run is None or run.model is self._model:
            return
        from napari_shiftvae.core.manifold import latent_names

        self._model = run.model
        self._panel.patterns.offer(latent_names(run), run.model.config.given)
        self._show_seen()

    def _show_patterns(self) -> None:
        self._show_grid()
        self._show_strip(self._panel.patterns.along.currentText())

    def _names(self) -> list[str]:
        from napari_shiftvae.core.manifold import latent_names

        return [] if self._session.run is None else latent_names(self._session.run)

    def _given(self) -> str | None:
        """Class of which patterns are shown, where the model is conditional on classes."""
        return self._panel.patterns.given.currentText() or None

    def _axes(self) -> list[str]:
        """Latents along the axes; none where another column is along one of them."""
        axes = list(dict.fromkeys(self._panel.axes()))
        return axes if set(axes) <= set(self._names()) else []

    def _show_grid(self) -> None:
        run = self._session.run
        if run is None:
            return
        from napari_shiftvae.core.manifold import decoder_grid

        axes = self._axes() or self._names()[:2]
        grid = decoder_grid(run, GRID_SIDE, axes, self._given())
        self._limits = (float(grid.patterns.min()), float(grid.patterns.max()))
        self._panel.patterns.show_grid(grid, axes)

    def _show_strip(self, name: str) -> None:
        run = self._session.run
        if run is not None and name:
            from napari_shiftvae.core.manifold import populated, traverse

            patterns = traverse(run, name, STEPS_SHOWN, self._given())
            self._panel.patterns.show_strip(patterns, name, populated(run, name, STEPS_SHOWN))

    def _on_axes(self) -> None:
        self._panel.drag.setChecked(False)
        if self._axes():
            self._show_grid()

    # -- the handle ----------------------------------------------------------------------------

    def _on_drag(self, on: bool) -> None:
        axes = self._axes()
        if not on:
            self._panel.scatter.show_handle(None)
            return
        if len(axes) < 2:
            self._refuse(
                "Choose latents (z1, z2 ...) for both axes, not the same twice: they are what is "
                "decoded."
            )
            self._panel.drag.setChecked(False)
            return
        self._base = self._start()
        x, y = (float(self._base[self._names().index(name)]) for name in axes)
        self._panel.scatter.show_handle((x, y))
        self._on_handle(x, y)

    def _start(self) -> np.ndarray:
        """Latents (K,) where the handle starts: the mean of the selected atoms, or of all."""
        run, names = self._session.run, self._names()
        if run is None:
            return np.zeros(len(names))
        values = run.atoms[names].to_numpy(dtype=float)
        known = np.isfinite(values).all(axis=1)
        chosen = np.isin(np.arange(len(values)), self._selected()) & known
        return values[chosen if chosen.any() else known].mean(axis=0)

    def _on_handle(self, x: float, y: float) -> None:
        axes, run = self._axes(), self._session.run
        if len(axes) < 2 or run is None or len(self._base) != len(self._names()):
            return
        from napari_shiftvae.core.manifold import decode

        z = self._base.copy()
        for name, value in zip(axes, (x, y), strict=True):
            z[self._names().index(name)] = value
        row = self._panel.scatter.nearest(x, y, reach_px=np.inf)
        patch = None if row < 0 else self._patch_of(row)
        text = f"Decoded at {axes[0]} = {x:.2f}, {axes[1]} = {y:.2f}; the nearest atom is {row}."
        self._panel.card.show_pattern(decode(run, z, self._given())[0], self._limits, patch, text)
        self.shown.emit()

    # -- files ---------------------------------------------------------------------------------

    def _on_save(self) -> None:
        run, name = self._session.run, self._panel.patterns.along.currentText()
        if run is None or not name:
            return
        path, kind = QFileDialog.getSaveFileName(
            self._panel.window(),
            "Save traverse",
            f"{run.image.name} {name}.png",
            ";;".join(PICTURES),
        )
        if not path:
            return
        if not Path(path).suffix:
            path += PICTURES.get(kind, ".png")
        from napari_shiftvae.core.manifold import save_strip

        try:
            written = save_strip(run, name, STEPS_SAVED, path, self._given())
        except InputError as error:
            self._refuse(str(error))
            return
        self._session.say(f"Wrote {written}.")

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)
