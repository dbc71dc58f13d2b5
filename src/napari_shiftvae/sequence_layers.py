"""Layers of an analysed stack: napari's slider shows image, maps, atoms and arrows in step. No Qt.

Maps, atoms and arrows of all frames lie on the stack by the `place` of its layer, from
`placement.spatial`. Beside them are atoms and arrows of the frame that is shown, which stand for a
run of that frame: what the Explore and the Fields tab do with a run, they do with these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points

from napari_shiftvae.layers import (
    LATENT_COLORMAP,
    RUN,
    arrows,
    arrows_layer,
    default_gain,
    dot_size_px,
    latent_limits,
    run_layers,
)
from napari_shiftvae.placement import plane

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from napari.layers import Layer
    from napari.types import LayerDataTuple
    from numpy.typing import NDArray

    from napari_shiftvae.core.frames import SequenceRun
    from napari_shiftvae.core.runs import Run

READING = "against its cage"
SEQUENCE = "shiftvae_sequence"  # key of the layers' metadata
MODEL = ("reconstruction", "residual")  # maps that are drawn of one frame, when asked for
MOST_AT_ONCE = 300_000  # atoms of all frames in one layer; more make napari slow


def sequence_layers(
    run: SequenceRun, maps: Mapping[str, Any], name: str, place: Mapping[str, Any]
) -> list[LayerDataTuple]:
    """Latent maps, atoms and arrows of a sequence, from bottom to top.

    Parameters
    ----------
    run : SequenceRun
    maps : Mapping of str to array (T, H, W)
        From `sequence_jobs.maps`.
    name : str
        Name of the stack.
    place : Mapping
        Where the stack lies.

    Returns
    -------
    list of LayerData
        Image layers ``<stack> z1`` ..., Points ``<stack> atoms``, Vectors ``<stack> shift``; the
        latter two are not visible at first, and are left out where there are very many atoms.
    """
    atoms = run.atoms
    # sizes by one frame: atoms of others lie on the same places
    first = atoms[atoms["t"] == atoms["t"].iloc[0]]
    made = [
        (
            values,
            {
                "name": f"{name} {latent}",
                "colormap": LATENT_COLORMAP,
                "contrast_limits": latent_limits(atoms[latent]),
                "blending": "translucent",
                "opacity": 0.7,
                "visible": False,
                "metadata": {"latent": latent},
                **place,
            },
            "image",
        )
        for latent, values in maps.items()
    ]
    if len(atoms) <= MOST_AT_ONCE:
        made += _all_frames(atoms, first, name, place)
    for _, kwargs, _ in made:
        kwargs["metadata"] = {**kwargs.get("metadata", {}), RUN: run, SEQUENCE: run}
    return made


def _all_frames(
    atoms: pd.DataFrame, first: pd.DataFrame, name: str, place: Mapping[str, Any]
) -> list[LayerDataTuple]:
    """Atoms and arrows of all frames."""
    size = dot_size_px(first[["y_px", "x_px"]].to_numpy())
    made = [
        (
            atoms[["t", "y_px", "x_px"]].to_numpy(dtype=float),
            {
                "name": f"{name} atoms",
                "features": atoms,
                "size": size,
                "border_width": 0.0,
                "face_color": "z1",
                "face_colormap": LATENT_COLORMAP,
                "face_contrast_limits": latent_limits(atoms["z1"]),
                "visible": False,
                **place,
            },
            "points",
        )
    ]
    vectors, rows = arrows(atoms, READING)
    _, look, kind = arrows_layer(atoms, name, place, READING, default_gain(first, READING))
    frames = np.zeros((len(rows), 2, 1))
    frames[:, 0, 0] = atoms["t"].to_numpy()[rows]
    look |= {"edge_width": 0.25 * size, "visible": False}
    made.append((np.concatenate([frames, vectors], axis=2), look, kind))
    return made


def frame_layers(run: Run, stack: Image) -> list[LayerDataTuple]:
    """Atoms and arrows of one frame, to be seen in all.

    Parameters
    ----------
    run : Run
        Of the frame, from `core.frame_run`.
    stack : napari.layers.Image

    Returns
    -------
    list of LayerData
        Points ``<stack> frame atoms``, Vectors ``<stack> frame shift``.
    """
    made = run_layers(run, f"{stack.name} frame", plane(stack))
    return [data for data in made if data[2] != "image"]


def show_frame(run: Run, layers: Iterable[Layer], earlier: Iterable[Layer]) -> list[Layer]:
    """Let the layers of a stack be those of the run of another frame.

    Parameters
    ----------
    run : Run
    layers : iterable of Layer
        From `sequence_layers` and `frame_layers`.
    earlier : iterable of Layer
        Those of the run of the frame that was shown before.

    Returns
    -------
    list of Layer
        What tells only of the frame before, to be removed. Arrows, and the map that is visible,
        are left to the Fields tab, which draws them anew.
    """
    atoms = next(data for data in run_layers(run, "", {}) if data[2] == "points")
    gone = []
    for layer in {*layers, *earlier}:
        is_map = isinstance(layer, Image)
        if is_map and layer.ndim == 2 and (not layer.visible or layer.metadata["latent"] in MODEL):
            gone.append(layer)
        elif is_map or layer.ndim == 2:
            layer.metadata = {**layer.metadata, RUN: run}
        if isinstance(layer, Points) and layer.ndim == 2:
            _lay_atoms(layer, *atoms[:2])
    return gone


def _lay_atoms(layer: Points, positions_yx: NDArray[np.float64], look: Mapping[str, Any]) -> None:
    layer.selected_data = set()
    with layer.events.blocker_all():  # one picture of all changes
        layer.data = positions_yx
        layer.features = look["features"]
        layer.size = look["size"]
        layer.border_width = look["border_width"]
        layer.border_color = look["border_color"]
    layer.refresh()
