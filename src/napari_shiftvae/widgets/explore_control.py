"""Links the Explore tab with the image, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject

from napari_shiftvae.atom_select import AtomSelect
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.widgets.classes_control import ClassesControl
from napari_shiftvae.widgets.latent_control import LatentControl

if TYPE_CHECKING:
    import napari
    import pandas as pd
    from numpy.typing import NDArray

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.patches import Patches
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.script_results import Classes
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.explore_panel import ExplorePanel

NEAR_PX = 80  # size on the canvas of the patch of an atom that is looked at from near
HINT = "Point at a dot, or at an atom in the image."


class ExploreControl(QObject):
    """Connects the Explore tab with a run, its layers and the canvas.

    Parameters
    ----------
    panel : ExplorePanel
    viewer : napari.viewer.Viewer
    overlay : Overlay
    image : callable
        Gives the chosen image, None where there is none that can be analysed.
    """

    def __init__(
        self,
        panel: ExplorePanel,
        viewer: napari.viewer.Viewer,
        overlay: Overlay,
        image: Callable[[], MicroscopeImage | None],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = viewer
        self._session = overlay.session
        self._overlay = overlay
        self._image = image
        self._layer: Points | None = None
        self._patches: tuple[Run, Patches] | None = None
        self._shown = -1
        self._outlier = -1
        self._latents = LatentControl(panel, self._session, self.selected, self._patch_of)
        self._latents.shown.connect(self._on_pattern)
        self._classes = ClassesControl(panel, overlay, self.patches_of, self.selected)
        self._classes.chosen.connect(lambda rows: self._on_picked(rows, False))
        self._select = AtomSelect(
            viewer,
            overlay,
            wanted=panel.isVisible,
            pointed=self._show_atom,
            picked=self._on_picked,
            activated=self._go_to,
        )
        panel.scatter.picked.connect(self._on_picked)
        panel.scatter.pointed.connect(self._show_atom)
        panel.scatter.activated.connect(self._go_to)
        panel.outlier.clicked.connect(lambda: self._step_outliers(1))
        panel.previous.clicked.connect(lambda: self._step_outliers(-1))
        panel.lasso.toggled.connect(self._on_lasso)
        viewer.layers.events.removed.connect(self._mark)

    def close(self) -> None:
        """Let go of the canvas and of the atoms, which look as before."""
        self._viewer.layers.events.removed.disconnect(self._mark)
        self._classes.close()
        self._follow(None)
        self._select.close()
        self._overlay.runs.give_back_looks()

    def show_run(self, run: Run | None) -> None:
        """Link with the layers of a run."""
        layer = None if run is None else self._overlay.runs.atoms_of(run)
        self._follow(layer)
        if self._patches is not None and (run is None or self._patches[0].model is not run.model):
            self._patches = None
            self._shown, self._outlier = -1, -1
            self._panel.card.clear(HINT)
        self._panel.show_run(run, self._table())
        self._latents.show_run(run)
        self._classes.show_run(run)
        if layer is not None:
            self._on_selected()
        if run is not None and run.training is not None and self._shown < 0:
            self._show_atom(_typical(run))  # its patches are at hand

    # -- selection -----------------------------------------------------------------------------

    def _follow(self, layer: Points | None) -> None:
        if self._layer is not None:
            self._layer.selected_data.events.items_changed.disconnect(self._on_selected)
            self._layer.events.features.disconnect(self._on_features)
        self._layer = layer
        if layer is not None:
            layer.selected_data.events.items_changed.connect(self._on_selected)
            layer.events.features.connect(self._on_features)

    def _on_features(self, *_: object) -> None:
        """Offer columns that came to the atoms, or were renamed there."""
        run, table = self._session.run, self._table()
        if run is not None and table is not None and not table.equals(self._panel.table):
            self._panel.show_run(run, table)

    def _table(self) -> pd.DataFrame | None:
        """Columns of the run's atoms, and what else is known of them."""
        run, layer = self._session.run, self._layer
        if run is None or layer is None or len(layer.features) != len(run.atoms):
            return None if run is None else run.atoms
        return layer.features

    def _atoms_layer(self) -> Points | None:
        """Atoms of the run, put back where their layer was deleted."""
        run = self._session.run
        if run is not None and (self._layer is None or self._layer not in self._viewer.layers):
            layer = self._overlay.runs.atoms_of(run)
            if layer is None:
                layer = self._overlay.runs.put_back_atoms(run, self._overlay.image)
                if layer is not None:
                    self._overlay.runs.colour_atoms(run, self._panel.colour.currentText())
            self._follow(layer)
        return self._layer

    def selected(self) -> list[int]:
        """Rows of the atoms that are selected."""
        run, layer = self._session.run, self._layer
        if run is None or layer is None or layer not in self._viewer.layers:
            return []
        return sorted(row for row in layer.selected_data if row < len(run.atoms))

    def _on_picked(self, rows: np.ndarray, adds: bool) -> None:
        layer = self._atoms_layer()
        if layer is None:
            return
        chosen = set(rows.tolist()) | (set(self.selected()) if adds else set())
        layer.selected_data = chosen
        self._on_selected()
        self._session.say(f"{len(chosen) or 'No'} atom{'s' * (len(chosen) > 1)} selected.")
        if len(rows) == 1:
            self._show_atom(int(rows[0]))

    def _on_selected(self, *_: object) -> None:
        if self._layer is not None:
            self._overlay.runs.ring_selected(self._layer)
        self._mark()

    def _mark(self, *_: object) -> None:
        self._panel.scatter.mark(np.array(self.selected(), dtype=np.int64))

    def _on_lasso(self, on: bool) -> None:
        self._select.lasso = on
        if on:
            self._session.say("Draw around atoms in the image; Shift adds to the selection.")

    def _go_to(self, row: int, *, near: bool = False) -> None:
        """Put an atom into the middle of the canvas; near: so that its patch can be seen there."""
        layer = self._atoms_layer()
        if layer is None:
            return
        self._on_picked(np.array([row]), False)
        camera, place = self._viewer.scene.camera, layer.data[row]
        middle = self._in_view(layer, place)
        camera.center = (0.0, *middle)
        run = self._session.run
        if near and run is not None:
            corner = np.array(place, dtype=float)
            corner[-2:] += run.model.config.patch_size_px / np.sqrt(2)
            size = np.linalg.norm(self._in_view(layer, corner) - middle)
            camera.zoom = max(camera.zoom, NEAR_PX / size)

    def _in_view(self, layer: Points, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Place (y, x) of a point of a layer in the world that the camera sees."""
        world = layer.data_to_world(place)[-2:]
        units = self._viewer.layers.units
        if units is None:
            return np.array(world)
        pairs = zip(world, layer.units[-2:], units[-2:], strict=True)
        return np.array([one * float((1 * own).to(shown).magnitude) for one, own, shown in pairs])

    def _step_outliers(self, step: int) -> None:
        run = self._session.run
        if run is None:
            return
        residual = run.atoms["residual"].to_numpy(dtype=float)
        order = np.argsort(-np.nan_to_num(residual, nan=-np.inf))
        order = order[np.isfinite(residual[order])]
        self._outlier = max(0, self._outlier + step) if self._outlier >= 0 else 0
        self._outlier %= len(order)
        row = int(order[self._outlier])
        self._go_to(row, near=True)
        stand_out = run.diagnostics.outliers
        self._session.say(
            f"Atom {row}, number {self._outlier + 1} of {len(order)} by residual: "
            f"{residual[row]:.2f} noise s.d.; {stand_out or 'none'} of them stand"
            f"{'s' if stand_out <= 1 else ''} out."
        )

    # -- one atom ------------------------------------------------------------------------------

    def _show_atom(self, row: int) -> None:
        run = self._session.run
        if run is None or row < 0 or row == self._shown or row >= len(run.atoms):
            return
        from napari_shiftvae.core.manifold import view_atom

        patches = self.patches_of(run)
        if patches is None:
            return
        self._shown = row
        view, atom = view_atom(run, patches, row), run.atoms.iloc[row]
        if view is None:
            self._panel.card.clear(f"Atom {row}: no pictures, set aside ({atom['set_aside']}).")
            return
        names = [f"z{k}" for k in range(1, run.model.config.latent_dim + 1)]
        latents = ", ".join(
            f"{name} = {atom[name]:.2f} ± {atom[f'{name}_sd']:.2f}" for name in names
        )
        self._panel.card.show_atom(
            view, f"Atom {row}: {latents}, residual {atom['residual']:.2f} noise s.d."
        )

    def _on_pattern(self) -> None:
        self._shown = -1  # the card shows something else

    def _patch_of(self, row: int) -> NDArray[np.float32] | None:
        """Patch of an atom; None where there is nothing to see."""
        from napari_shiftvae.core.manifold import patch_of

        run = self._session.run
        patches = None if run is None else self.patches_of(run)
        return None if patches is None else patch_of(patches, row)

    def classes_of(self, run: Run) -> Classes | None:
        """How the classes of a run were found, for a script."""
        return self._classes.recipe(run)

    def patches_of(self, run: Run) -> Patches | None:
        """Patches of a run; None after telling why there are none."""
        if self._patches is not None and self._patches[0].model is run.model:
            return self._patches[1]
        from napari_shiftvae.core.manifold import patches_of

        image = self._image()
        if image is None:
            return None
        try:
            patches = patches_of(run, image)
        except InputError as error:
            self._session.say(str(error), wrong=True)
            show_warning(str(error))
            return None
        self._patches = (run, patches)
        return patches


def _typical(run: Run) -> int:
    """Row of the atom of which the residual is the middle one."""
    residual = run.atoms["residual"].to_numpy(dtype=float)
    return int(np.nanargmin(np.abs(residual - np.nanmedian(residual))))
