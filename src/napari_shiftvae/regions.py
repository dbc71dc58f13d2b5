"""Regions of interest drawn with napari's shapes. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.draw import polygon2mask

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.placement import in_pixels_of

if TYPE_CHECKING:
    from napari.layers import Image, Shapes
    from numpy.typing import NDArray

OUTLINES = ("rectangle", "polygon", "ellipse")
ELLIPSE_CORNERS = 72


def region_mask(shapes: Shapes, image: Image) -> NDArray[np.bool_]:
    """Pixels of an image that lie in any of the closed shapes of a layer.

    Parameters
    ----------
    shapes : napari.layers.Shapes
        Rectangles, polygons and ellipses count; lines and paths enclose nothing. It may lie
        otherwise than the image: scaled, rotated, in other units.
    image : napari.layers.Image
        An image (H, W) or a stack (T, H, W).

    Returns
    -------
    (H, W) bool array

    Raises
    ------
    InputError
        No shape encloses a pixel of the image.
    """
    size = image.data.shape[-2:]
    mask = np.zeros(size, dtype=bool)
    for outline in region_outlines(shapes, image):
        mask |= polygon2mask(size, outline)
    if not mask.any():
        raise InputError(
            f"'{shapes.name}' encloses nothing of '{image.name}': draw a rectangle, a polygon or "
            "an ellipse on the image, or choose the whole image."
        )
    return mask


def region_outlines(shapes: Shapes, image: Image) -> list[NDArray[np.float64]]:
    """Outlines (K, 2), (y, x) [px] of an image, of the closed shapes of a layer."""
    return [
        in_pixels_of(image, shapes, _ellipse(corners) if kind == "ellipse" else corners)
        for corners, kind in zip(shapes.data, shapes.shape_type, strict=True)
        if kind in OUTLINES
    ]


def _ellipse(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polygon along the ellipse in a box of four corners (4, D)."""
    corners = np.asarray(box, dtype=float)
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)[:, None]
    one, other = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    return corners.mean(axis=0) + np.cos(angle) * one + np.sin(angle) * other
