"""Fields of a run to the looks of napari layers. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.core.palettes import ANGLES
from napari_shiftvae.layers import arrow_colormap, as_colormap

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils.colormaps import Colormap
    from numpy.typing import NDArray

    from napari_shiftvae.core.scalars import Scalar
    from napari_shiftvae.core.vector_field import VectorField

LENGTH, ANGLE = "length", "angle"
NOISE_SD = 2.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """How arrows are drawn.

    Attributes
    ----------
    gain : float
        How many times longer than in the image.
    colour : str
        What their colour tells, ``"length"`` or ``"angle"``; or one colour for all.
    hide_noise : bool
        Whether arrows below twice their standard deviation are left out.
    """

    gain: float
    colour: str = LENGTH
    hide_noise: bool = False


def shown_rows(field: VectorField, look: Look) -> NDArray[np.int64]:
    """Rows of the atoms whose arrows are drawn."""
    known = np.isfinite(field.yx_px).all(axis=1)
    if look.hide_noise:
        with np.errstate(invalid="ignore"):
            known &= field.significance >= NOISE_SD
    return np.flatnonzero(known)


def vectors_look(field: VectorField, look: Look) -> dict[str, Any]:
    """Attributes of a Vectors layer that shows a field: data, features, colours."""
    rows = shown_rows(field, look)
    drawn: dict[str, Any] = {
        "data": np.stack([field.start_yx[rows], field.yx_px[rows]], axis=1),
        "features": {
            "length_px": field.length_px[rows],
            "angle_degree": np.rad2deg(field.angle_rad[rows]),
        },
        "length": look.gain,
    }
    if look.colour == LENGTH:
        drawn["edge_colormap"] = arrow_colormap()
        drawn["edge_contrast_limits"] = (0.0, longest_px(field))
        drawn["edge_color"] = "length_px"
    elif look.colour == ANGLE:
        drawn["edge_colormap"] = angle_colormap()
        drawn["edge_contrast_limits"] = (-180.0, 180.0)
        drawn["edge_color"] = "angle_degree"
    else:
        drawn["edge_color"] = look.colour
    return drawn


def longest_px(field: VectorField) -> float:
    """Upper end of the scale of arrows [px]: the 99th percentile of their lengths."""
    from napari_shiftvae.core.run_figure import longest_px as longest

    return longest(field)


def angle_colormap() -> Colormap:
    """Make the colour map of directions, from -180 to 180 degrees."""
    half = len(ANGLES) // 2
    return as_colormap("arrow angle", (*ANGLES[half:], *ANGLES[: half + 1]))


def colormap(scalar: Scalar) -> Colormap:
    """Colour map of a scalar: diverging for signed ones."""
    return as_colormap("signed" if scalar.signed else "viridis", scalar.palette)


def map_look(scalar: Scalar) -> dict[str, Any]:
    """Attributes of an Image layer that shows a scalar as a map."""
    return {"colormap": colormap(scalar), "contrast_limits": scalar.limits}


def directions_on_screen(layer: Layer, square_yx: tuple[float, float]) -> NDArray[np.float64]:
    """How directions in an image appear on the canvas.

    Parameters
    ----------
    layer : Layer
        Of the image; it may be turned, mirrored, sheared.
    square_yx : tuple of float
        `VectorField.square_yx`.

    Returns
    -------
    (2, 2) array
        Takes (y, x) in square pixels to (y, x) on the canvas, areas kept.
    """
    origin = np.zeros(layer.ndim)
    start = np.asarray(layer.data_to_world(origin))[-2:]
    steps = []
    for axis, size in zip((-2, -1), square_yx, strict=True):
        to = origin.copy()
        to[axis] = 1 / size
        steps.append(np.asarray(layer.data_to_world(to))[-2:] - start)
    matrix = np.stack(steps, axis=1)
    return np.asarray(matrix / np.sqrt(abs(np.linalg.det(matrix))))
