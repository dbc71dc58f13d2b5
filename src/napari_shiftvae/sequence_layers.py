"""Layers of an analysed stack: napari's slider shows image, maps, atoms and arrows in step. No Qt.

All lie on the stack by the `place` of its layer, from `placement.spatial`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.layers import (
    LATENT_COLORMAP,
    RUN,
    arrows,
    arrows_layer,
    default_gain,
    dot_size_px,
    latent_limits,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.types import LayerDataTuple

    from napari_shiftvae.core.frames import SequenceRun

READING = "against its cage"


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
        Image layers ``<stack> z1`` ..., Points ``<stack> atoms``, Vectors ``<stack> shift``.
    """
    atoms = run.atoms
    # sizes by one frame: atoms of others lie on the same places
    first = atoms[atoms["t"] == atoms["t"].iloc[0]]
    size = dot_size_px(first[["y_px", "x_px"]].to_numpy())
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
    made.append(
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
                **place,
            },
            "points",
        )
    )
    vectors, rows = arrows(atoms, READING)
    _, look, kind = arrows_layer(atoms, name, place, READING, default_gain(first, READING))
    frames = np.zeros((len(rows), 2, 1))
    frames[:, 0, 0] = atoms["t"].to_numpy()[rows]
    look["edge_width"] = 0.25 * size
    made.append((np.concatenate([frames, vectors], axis=2), look, kind))
    for _, kwargs, _ in made:
        kwargs["metadata"] = {**kwargs.get("metadata", {}), RUN: run}
    return made
