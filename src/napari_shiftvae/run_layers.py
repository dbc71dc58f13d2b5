"""The layers of finished analyses: maps, dots, arrows. No Qt.

Only layers made by an analysis are changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from napari.layers import Image, Layer, Points, Vectors

from napari_shiftvae import layers as to_layers
from napari_shiftvae.colouring import colouring
from napari_shiftvae.field_layers import Look, map_look, vectors_look
from napari_shiftvae.layers import RUN
from napari_shiftvae.looks import Looks
from napari_shiftvae.placement import plane

if TYPE_CHECKING:
    import napari
    from napari.types import LayerDataTuple
    from numpy.typing import NDArray

    from napari_shiftvae.core.reconstruction import Reconstruction
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.scalars import Scalar
    from napari_shiftvae.core.vector_field import VectorField

SCALAR = "scalar"  # key of what a map shows, in its layer's metadata
# The layer called residual is that of the image, what is left of it.
TITLES = {"residual": "residual of atoms"}
SELECTED_WIDTH, SELECTED_COLOUR = 0.35, (1.0, 1.0, 1.0, 1.0)


@contextmanager
def drawn_once(layer: Layer) -> Iterator[None]:
    """Have napari draw a layer anew once, not for each of the changes that are made meanwhile.

    For changes of looks only: where points become more or fewer, napari must see at once which of
    them are in view.
    """
    with layer.events.blocker_all():
        yield
    layer.refresh()


class Appears(Protocol):
    """Makes a layer visible that was added."""

    def add(self, layer: Layer) -> None:
        """Make it visible at once, or later as the window is painted."""

    def steps(self, layer: Layer) -> Iterator[None]:
        """Make it visible in steps, each short enough for the window to live on."""

    def unpainted(self) -> AbstractContextManager[None]:
        """Have the window painted after what is done meanwhile, in a step of its own."""


class AtOnce:
    """Makes a layer visible where no window is to be kept alive."""

    def add(self, layer: Layer) -> None:
        """Make it visible."""
        layer.visible = True

    def steps(self, layer: Layer) -> Iterator[None]:
        """Make it visible."""
        self.add(layer)
        yield

    def unpainted(self) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()


class RunLayers:
    """The layers of finished analyses in one viewer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    appearing : Appears
        Makes those visible that were added to be seen.
    """

    def __init__(self, viewer: napari.viewer.Viewer, appearing: Appears) -> None:
        self._viewer = viewer
        self._appearing = appearing
        self.inserting = False  # a layer that is inserted now was made here
        self.showing = False  # maps that are shown or hidden now are so from here
        self._looks = Looks()

    def holds(self, layer: Layer | None) -> bool:
        """Whether there is a layer and it is in the viewer."""
        return layer is not None and layer in self._viewer.layers

    def of_run(self, run: Run, kind: type[Layer] = Layer) -> list[Layer]:
        """Layers of a finished run that are still there, of one kind."""
        return [
            layer
            for layer in self._viewer.layers
            if layer.metadata.get(RUN) is run and isinstance(layer, kind)
        ]

    def replace(self, before: Run, after: Run) -> None:
        """Let the layers of a run show it with other columns than before."""
        for layer in self.of_run(before):
            layer.metadata = {**layer.metadata, RUN: after}
            if isinstance(layer, Points) and len(layer.data) == len(after.atoms):
                own = before.atoms.columns.union(after.atoms.columns)
                more = layer.features.columns.difference(own, sort=False)
                layer.features = after.atoms.assign(**layer.features[list(more)])

    def ring_selected(self, layer: Points) -> None:
        """Ring the selected atoms of a finished run; napari itself marks them only in its tool."""
        chosen = np.zeros(len(layer.data), dtype=bool)
        chosen[[row for row in layer.selected_data if row < len(chosen)]] = True
        if not chosen.any() and layer not in self._looks:
            return
        before = self._looks.of(layer)
        width = np.where(chosen, SELECTED_WIDTH, before.border_width)
        if not np.array_equal(layer.border_width, width):
            colour = np.where(chosen[:, None], SELECTED_COLOUR, before.border_color)
            layer.border_color, layer.border_width = colour, width
            self._looks.note(layer)

    def arrows_of(self, run: Run) -> Vectors | None:
        """Arrows of a finished run, None where they were deleted."""
        found = self.of_run(run, Vectors)
        return found[0] if found else None  # type: ignore[return-value]

    def show_vectors(
        self, run: Run, image: Image | None, field: VectorField, look: Look, *, visible: bool
    ) -> None:
        """Show a field of a run as its arrows, made anew where they were deleted."""
        layer = self.arrows_of(run)
        if layer is None:
            if not visible or image is None:
                return
            place = plane(image)
            gain = look.gain
            data = to_layers.arrows_layer(run.atoms, image.name, place, "against its cage", gain)
            data[1]["metadata"][RUN] = run
            (layer,) = self.add([data])
        drawn = vectors_look(field, look)
        same = np.array_equal(layer.data, drawn["data"])
        with nullcontext() if same else self._appearing.unpainted():
            # of what is hidden napari draws nothing: for some thousand arrows the thumbnail alone
            # takes 40 ms, for each change
            with layer.events.blocker_all():
                layer.visible = False
            if not same:
                layer.data = drawn["data"]
            with drawn_once(layer):
                for name in ("features", "edge_colormap", "edge_contrast_limits", "edge_color"):
                    if name in drawn:
                        setattr(layer, name, drawn[name])
                layer.length = look.gain
            layer.visible = visible
            layer.refresh(thumbnail=False, data_displayed=False, highlight=False)  # of its extent

    def show_field(
        self,
        run: Run,
        image: Image | None,
        scalar: Scalar,
        drawn: NDArray[np.float32],
    ) -> None:
        """Show a scalar of a run as a map, in a layer ``<image> <name>``, and hide its others."""
        name, look = scalar.name, map_look(scalar)
        layer = self.map_of(run, name)
        if layer is None and image is not None:
            kwargs = {
                "name": f"{image.name} {TITLES.get(name, name)}",
                "metadata": {"latent": name, SCALAR: scalar, RUN: run},
                "blending": "translucent",
                "opacity": 0.7,
                **look,
                **plane(image),
            }
            (layer,) = self.add([(drawn, kwargs, "image")], under=self._above_pictures(run, image))
        elif layer is not None:
            layer.metadata[SCALAR] = scalar
            layer.data = drawn
            layer.contrast_limits_range = look["contrast_limits"]
            layer.contrast_limits = look["contrast_limits"]
        self.show_map(run, name)

    def add_reconstruction(self, run: Run, image: Image | None, drawn: Reconstruction) -> None:
        """Show the image as the model has it, and what is left, as two layers."""
        if image is None:
            return
        place, under = plane(image), self._above_pictures(run, image)
        limits = {"contrast_limits": image.contrast_limits}
        for name, pixels, look in (
            ("reconstruction", drawn.image, {"colormap": "gray", **limits}),
            ("residual", drawn.residual, {"colormap": "PiYG", "contrast_limits": (-5.0, 5.0)}),
        ):
            metadata = {"latent": f"{name} of the image", RUN: run}
            kwargs = {"name": f"{image.name} {name}", "metadata": metadata}
            self.add([(pixels, {**kwargs, **look, **place}, "image")], under=under)
        self.show_map(run, "reconstruction of the image")  # the residual would lie over it

    def atoms_of(self, run: Run) -> Points | None:
        """Atoms of a finished run, None where they were deleted."""
        found = self.of_run(run, Points)
        return found[0] if found else None  # type: ignore[return-value]

    def show_map(self, run: Run, latent: str | None) -> None:
        """Show the map of one latent of a run and hide the others."""
        self.showing = True
        try:
            for layer in self.of_run(run, Image):
                layer.visible = layer.metadata.get("latent") == latent
        finally:
            self.showing = False

    def _above_pictures(self, run: Run, image: Image) -> Points | None:
        """Layer under which pictures of a run go: its atoms, unless these lie under the image."""
        atoms, order = self.atoms_of(run), self._viewer.layers
        if atoms is None or (image in order and order.index(atoms) < order.index(image)):
            return None
        return atoms

    def map_of(self, run: Run, name: str) -> Image | None:
        """Layer of one map of a run, None where there is none."""
        found = (one for one in self.of_run(run, Image) if one.metadata.get("latent") == name)
        return next(found, None)  # type: ignore[return-value]

    def map_as_it_is(self, run: Run, scalar: Scalar) -> Image | None:
        """Layer that shows a scalar with its present values; those of latents never change."""
        layer = self.map_of(run, scalar.name)
        if layer is None or scalar.name in run.maps:
            return layer
        shown = layer.metadata.get(SCALAR)
        return layer if shown is not None and shown.is_like(scalar) else None

    def shown_map(self, run: Run) -> str | None:
        """Which latent's map is visible, None where none is."""
        shown = [
            str(layer.metadata["latent"]) for layer in self.of_run(run, Image) if layer.visible
        ]
        return shown[-1] if shown else None

    def colour_atoms(self, run: Run, column: str) -> None:
        """Colour the atoms of a run by a column of its table."""
        for layer in self.of_run(run, Points):
            table = layer.features
            if column not in table or len(table) != len(run.atoms):
                continue
            self._looks.of(layer)
            by = colouring(table, column)
            if by.limits is None:
                layer.face_color = by.colours
            else:
                layer.face_colormap = to_layers.LATENT_COLORMAP
                layer.face_contrast_limits = by.limits
                layer.face_color = column
            self._looks.note(layer)

    def give_back_looks(self) -> None:
        """Let atoms look as they did before they were coloured and ringed here."""
        self._looks.give_back(self._viewer.layers)

    def put_back_atoms(self, run: Run, image: Image | None) -> Points | None:
        """Add the atoms of a run again after their layer was deleted."""
        if image is None:
            return None
        made = to_layers.run_layers(run, image.name, plane(image))
        (layer,) = self.add([data for data in made if data[2] == "points"])
        return layer  # type: ignore[no-any-return]

    def hide(self, run: Run) -> list[Layer]:
        """Make the layers of a run invisible; return those that were visible."""
        shown = [layer for layer in self.of_run(run) if layer.visible]
        for layer in shown:  # napari would draw the others anew
            layer.visible = False
        return shown

    def add(self, data: list[LayerDataTuple], *, under: Layer | None = None) -> list[Any]:
        """Add layers without changing what the user has selected."""
        made = []
        for one in data:
            layer = Layer.create(*hidden(one))
            self.insert(layer, under=under)
            made.append(layer)
            if one[1].get("visible", True):
                self._appearing.add(layer)
        return made

    def adding(
        self, data: LayerDataTuple, *, under: Callable[[], Layer | None]
    ) -> Generator[None, None, Layer]:
        """Do as `add` in steps, as napari takes up to a tenth of a second for each.

        Parameters
        ----------
        data : LayerData
        under : callable
            Gives the layer that it is to lie under, None to lie on top of all.

        Yields
        ------
        None
            After it was made, after it was added, and, if it is to be seen, as it appears.

        Returns
        -------
        Layer
        """
        layer = Layer.create(*hidden(data))
        yield
        self.insert(layer, under=under())
        yield
        if data[1].get("visible", True) and layer in self._viewer.layers:
            yield from self._appearing.steps(layer)
        return layer

    def adding_all(self, data: list[LayerDataTuple]) -> Generator[None, None, list[Layer]]:
        """Do so with one after the other, each on top of those before."""
        made = []
        for one in data:
            layer = yield from self.adding(one, under=lambda: None)
            made.append(layer)
        return made

    def insert(self, layer: Layer, *, under: Layer | None = None) -> None:
        """Add a layer that is made already, under one that is there or on top of all."""
        layers = self._viewer.layers
        selected = set(layers.selection)
        self.inserting = True
        try:
            # napari selects what is inserted, and has controls and the window painted for it
            with self._appearing.unpainted(), layers.selection.events.blocker_all():
                layers.insert(len(layers) if under is None else layers.index(under), layer)
                layers.selection = selected
        finally:
            self.inserting = False

    def remove(self, layer: Layer) -> None:
        """Remove a layer if it is still there."""
        if self.holds(layer):
            self._viewer.layers.remove(layer)

    def above(self, layer: Layer) -> Layer | None:
        """Layer drawn next after another one, None where it is the topmost."""
        at = self._viewer.layers.index(layer) + 1
        return self._viewer.layers[at] if at < len(self._viewer.layers) else None

    def put(self, layer: Layer, image: Image) -> None:
        """Lay a layer where an image is."""
        for name, value in plane(image).items():
            setattr(layer, name, value)


def hidden(data: LayerDataTuple) -> LayerDataTuple:
    """Data of a layer that is not visible at first, whatever it is to be in the end."""
    values, kwargs, kind = data
    return values, {**kwargs, "visible": False}, kind
