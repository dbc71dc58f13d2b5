"""Links the Explore tab with the image, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_shiftvae import explore_jobs
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.layers import CLASS, CLASS_COLOURS
from napari_shiftvae.placement import in_pixels
from napari_shiftvae.widgets.classes_box import ClassRow
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    import napari

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.patches import Patches
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.explore_panel import ExplorePanel

STRIP_STEPS = 15
PICTURES = "PNG strip (*.png);;GIF animation (*.gif)"


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
        self._linking = False
        self._shown = -1
        self._outliers_seen = 0
        self._runner = Runner(self)
        panel.scatter.picked.connect(self._on_picked)
        panel.scatter.pointed.connect(self._show_atom)
        panel.scatter.activated.connect(self._go_to)
        panel.scatter.handle_moved.connect(self._on_handle)
        panel.drag.toggled.connect(self._on_drag)
        panel.outlier.clicked.connect(self._on_outlier)
        panel.save_strip.clicked.connect(self._on_save_strip)
        for column in (panel.x, panel.y):
            column.currentTextChanged.connect(self._on_axes)
        panel.classes.asked.connect(self._on_classes)
        panel.classes.assign_asked.connect(self._on_assign)
        panel.classes.row_chosen.connect(self._on_class_chosen)
        self._runner.succeeded.connect(self._on_classified)
        self._runner.refused.connect(self._refuse)
        self._runner.failed.connect(lambda error: self._refuse(f"Finding classes failed: {error}"))
        viewer.mouse_move_callbacks.append(self._on_canvas)

    def close(self) -> None:
        """Let go of the canvas and of the atoms."""
        self._runner.close()
        self._follow(None)
        if self._on_canvas in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self._on_canvas)

    def show_run(self, run: Run | None) -> None:
        """Link with the layers of a run."""
        found = [] if run is None else self._overlay.runs.of_run(run, Points)
        self._follow(found[-1] if found else None)
        self._shown, self._outliers_seen = -1, 0
        if self._patches is not None and (run is None or self._patches[0].model is not run.model):
            self._patches = None
        self._panel.card.clear("Point at a dot, or at an atom in the image.")
        if run is not None and CLASS not in run.atoms:
            self._panel.classes.show_classes([], [])
            self._panel.classes.note.setText("")

    # -- selection -----------------------------------------------------------------------------

    def _follow(self, layer: Points | None) -> None:
        if self._layer is not None:
            self._layer.selected_data.events.items_changed.disconnect(self._on_selected)
        self._layer = layer
        if layer is not None:
            layer.selected_data.events.items_changed.connect(self._on_selected)

    @property
    def _run(self) -> Run | None:
        return self._session.run

    def selected(self) -> list[int]:
        """Rows of the atoms that are selected."""
        return [] if self._layer is None else sorted(self._layer.selected_data)

    def _on_picked(self, rows: np.ndarray, adds: bool) -> None:
        if self._layer is None or self._layer not in self._viewer.layers:
            self._session.say("The layer of this run's atoms is gone; undo its deletion or rerun.")
            return
        chosen = set(rows.tolist()) | (set(self.selected()) if adds else set())
        self._layer.selected_data = chosen
        self._on_selected()
        self._session.say(f"{len(chosen)} atom{'' if len(chosen) == 1 else 's'} selected.")
        if len(rows) == 1:
            self._show_atom(int(rows[0]))

    def _on_selected(self, *_: object) -> None:
        if self._layer is not None:
            self._overlay.runs.ring_selected(self._layer)
        self._panel.scatter.mark(np.array(self.selected(), dtype=np.int64))

    def _go_to(self, row: int) -> None:
        """Put an atom into the middle of the canvas."""
        if self._layer is None or self._run is None:
            return
        self._on_picked(np.array([row]), False)
        world = self._layer.data_to_world(self._layer.data[row])
        units = self._viewer.layers.units
        if units is not None:
            world = [
                place * float((1 * own).to(shown).magnitude)
                for place, own, shown in zip(world, self._layer.units, units, strict=True)
            ]
        self._viewer.scene.camera.center = (0.0, *world[-2:])

    def _on_outlier(self) -> None:
        run = self._run
        if run is None:
            return
        residual = run.atoms["residual"].to_numpy(dtype=float)
        order = np.argsort(-np.nan_to_num(residual, nan=-np.inf))
        order = order[np.isfinite(residual[order])]
        row = int(order[self._outliers_seen % len(order)])
        self._outliers_seen += 1
        self._go_to(row)
        self._session.say(
            f"Outlier {(self._outliers_seen - 1) % len(order) + 1} of {len(order)}: "
            f"residual {residual[row]:.2f} noise s.d."
        )

    # -- one atom ------------------------------------------------------------------------------

    def _on_canvas(self, viewer: napari.viewer.Viewer, event: Any) -> None:
        """Show the atom under the mouse."""
        image, layer = self._overlay.image, self._layer
        if not self._panel.isVisible() or image is None or layer is None or not len(layer.data):
            return
        place = in_pixels(image, event.position, viewer.layers.units)
        distance = np.linalg.norm(layer.data[:, -2:] - place, axis=1)
        row = int(distance.argmin())
        size = float(np.asarray(layer.size).flat[0])
        self._show_atom(row if distance[row] <= size else -1)

    def _show_atom(self, row: int) -> None:
        run = self._run
        if run is None or row < 0 or row == self._shown or row >= len(run.atoms):
            return
        from napari_shiftvae.core.manifold import view_atom

        patches = self._patches_of(run)
        if patches is None:
            return
        self._shown = row
        view = view_atom(run, patches, row)
        atom = run.atoms.iloc[row]
        if view is None:
            why = atom["set_aside"] or "the run was read from its file; train it on to see them"
            self._panel.card.clear(f"Atom {row}: no pictures, {why}.")
            return
        names = [name for name in run.atoms if name.startswith("z") and name[1:].isdigit()]
        latents = ", ".join(
            f"{name} = {atom[name]:.2f} ± {atom[f'{name}_sd']:.2f}" for name in names
        )
        self._panel.card.show_atom(
            view, f"Atom {row}: {latents}, residual {atom['residual']:.2f} noise s.d."
        )

    def _patches_of(self, run: Run) -> Patches | None:
        if self._patches is not None and self._patches[0].model is run.model:
            return self._patches[1]
        from napari_shiftvae.core.manifold import patches_of

        image = self._image()
        if image is None:
            return None
        try:
            patches = patches_of(run, image)
        except InputError as error:
            self._refuse(str(error))
            return None
        self._patches = (run, patches)
        return patches

    # -- latent space --------------------------------------------------------------------------

    def _latent_axes(self) -> tuple[int, int] | None:
        """Numbers of the latents along the axes, None where other columns are."""
        from napari_shiftvae.core.manifold import latent_names

        if self._run is None:
            return None
        names = latent_names(self._run)
        if not set(self._panel.axes()) <= set(names):
            return None
        one, other = (names.index(name) for name in self._panel.axes())
        return one, other

    def _on_drag(self, on: bool) -> None:
        if on and self._latent_axes() is None:
            self._refuse("Choose latents (z1, z2 ...) for both axes: they are what is decoded.")
            self._panel.drag.setChecked(False)
            return
        if not on:
            self._panel.scatter.show_handle(None)
            return
        base = self._base()
        one, other = self._latent_axes() or (0, 0)
        self._panel.scatter.show_handle((float(base[one]), float(base[other])))
        self._on_handle(float(base[one]), float(base[other]))

    def _on_axes(self) -> None:
        if self._panel.drag.isChecked():
            self._panel.drag.setChecked(False)

    def _base(self) -> np.ndarray:
        """Latents (K,) that stay while two are dragged: the mean of the selected atoms."""
        from napari_shiftvae.core.manifold import latent_names

        run = self._run
        assert run is not None  # noqa: S101 - only called where there is one
        names = latent_names(run)
        rows = self.selected()
        if not rows:
            return np.zeros(len(names))
        return np.nan_to_num(np.nanmean(run.atoms.loc[rows, names].to_numpy(dtype=float), axis=0))

    def _on_handle(self, x: float, y: float) -> None:
        axes, run = self._latent_axes(), self._run
        if axes is None or run is None:
            return
        from napari_shiftvae.core.manifold import decode

        z = self._base()
        z[axes[1]] = y
        z[axes[0]] = x
        names = self._panel.axes()
        text = f"Decoded at {names[0]} = {x:.2f}, {names[1]} = {y:.2f}"
        self._panel.card.show_pattern(decode(run, z)[0], text)
        self._shown = -1

    def _on_save_strip(self) -> None:
        run, name = self._run, self._panel.axes()[0]
        if run is None:
            return
        if self._latent_axes() is None:
            self._refuse("Choose a latent (z1, z2 ...) for the horizontal axis first.")
            return
        path, _ = QFileDialog.getSaveFileName(
            self._panel.window(), "Save traverse", f"{run.image.name} {name}.png", PICTURES
        )
        if path:
            from napari_shiftvae.core.manifold import save_strip

            try:
                written = save_strip(run, name, STRIP_STEPS, path)
            except InputError as error:
                self._refuse(str(error))
                return
            self._session.say(f"Wrote {written}.")

    # -- classes -------------------------------------------------------------------------------

    def _on_classes(self, method: str, count: int | None) -> None:
        self._classify(explore_jobs.classify, list(self._panel.axes()), method, count)

    def _on_assign(self) -> None:
        rows = self.selected()
        if not rows:
            self._refuse("No atom is selected: draw around some dots first.")
            return
        self._classify(explore_jobs.add_class, rows)

    def _classify(self, job: Callable[..., Any], *more: Any) -> None:
        run = self._run
        if run is None or self._runner.busy:
            return
        patches = self._patches_of(run)
        if patches is not None:
            self._runner.start("finding classes", job, run, patches, *more)

    def _on_classified(self, result: explore_jobs.Classified) -> None:
        before = self._run
        if before is None or before.model is not result.run.model:
            return  # another run came meanwhile
        self._overlay.runs.replace(before, result.run)
        self._session.replace_run(result.run)
        self._panel.colour.setCurrentText(CLASS)
        self._panel.classes.note.setText(result.sentence)
        self._session.say(result.sentence)
        names = [f"z{k}" for k in range(1, result.run.model.config.latent_dim + 1)]
        rows = [
            ClassRow(
                number=int(number),
                colour=CLASS_COLOURS[int(number) % len(CLASS_COLOURS)],
                count=int(row["count"]),
                means=row[names].tolist(),
                pattern=result.patterns[int(number)],
            )
            for number, row in result.table.iterrows()
        ]
        self._panel.classes.show_classes(rows, names)

    def _on_class_chosen(self, number: int) -> None:
        if self._run is not None and CLASS in self._run.atoms:
            rows = np.flatnonzero(self._run.atoms[CLASS].to_numpy() == number)
            self._on_picked(rows, False)

    def _refuse(self, sentence: str) -> None:
        self._session.say(sentence, wrong=True)
        show_warning(sentence)
