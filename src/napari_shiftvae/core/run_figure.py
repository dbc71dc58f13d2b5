"""What is shown of a run as a figure: image, map and arrows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.figure import Arrows, Figure
from napari_shiftvae.core.lengths import Ruler, Unit
from napari_shiftvae.core.scalars import Scalar
from napari_shiftvae.core.vector_field import VectorField

__all__ = ["View", "figure_of", "longest_px"]

Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What is wanted in a figure.

    Attributes
    ----------
    title : str
    pixel_size_nm : tuple of float or None
        (y, x).
    unit : {"px", "pm", "nm", "angstrom"}
        Of lengths; pixels are taken where their size is not known.
    gain : float
        Magnification of the arrows.
    colour : str
        ``"length"`` or ``"angle"`` of the arrows, or one colour for all, hexadecimal.
    rows : (M,) int array or None
        Atoms whose arrows are drawn, where all of the arrow is in the part that is wanted; all of
        which the vector is known where None.
    box : tuple of int or None
        First and one past the last row, then column [px], of the part that is wanted.
    opacity : float
        Of the map over the image.
    image_limits, map_limits : tuple of float or None
        Values at the ends of their scales, by their percentiles where None.
    """

    title: str = ""
    pixel_size_nm: tuple[float, float] | None = None
    unit: Unit = "px"
    gain: float = 1.0
    colour: str = "length"
    rows: NDArray[np.int64] | None = None
    box: tuple[int, int, int, int] | None = None
    opacity: float = 0.7
    image_limits: tuple[float, float] | None = None
    map_limits: tuple[float, float] | None = None


def figure_of(
    image: Pixels,
    view: View,
    *,
    shown: tuple[Scalar, Pixels] | None = None,
    field: VectorField | None = None,
) -> Figure:
    """Put image, map and arrows into one figure with their scales.

    Parameters
    ----------
    image : (H, W) array
    view : View
    shown : (Scalar, (H, W) array), optional
        A scalar, given in the unit in which it is to be read, and its map.
    field : VectorField, optional
        For arrows.

    Returns
    -------
    Figure

    Raises
    ------
    InputError
        The part that is wanted holds nothing of the image.

    Examples
    --------
    >>> figure_of(np.zeros((8, 9), np.float32), View(title="made", box=(2, 6, 0, 9))).pixels.shape
    (4, 9)
    """
    top, bottom, left, right = view.box or (0, image.shape[0], 0, image.shape[1])
    part = (slice(max(0, top), bottom), slice(max(0, left), right))
    beneath = image[part]
    if not beneath.size:
        raise InputError("Nothing of the image is in view: bring it back with the home button.")
    origin = np.array([part[0].start, part[1].start])
    arrows = None if field is None else _arrows(field, view, origin, beneath.shape)
    common = {
        "title": view.title,
        "pixel_size_nm": view.pixel_size_nm,
        "arrows": arrows,
        "beneath": beneath,
        "beneath_limits": view.image_limits,
    }
    if shown is None:
        empty = np.full(beneath.shape, np.nan, dtype=np.float32)
        return Figure(pixels=empty, limits=(0.0, 1.0), bar=None, **common)  # type: ignore[arg-type]
    scalar, drawn = shown
    return Figure(
        pixels=drawn[part],
        limits=view.map_limits or scalar.limits,
        colours=scalar.palette,
        bar=scalar.label,
        opacity=view.opacity,
        **common,  # type: ignore[arg-type]
    )


def longest_px(field: VectorField) -> float:
    """Upper end of the scale of arrows [px]: the 99th percentile of their lengths."""
    known = field.length_px[np.isfinite(field.length_px)]
    return max(1e-9, float(np.percentile(known, 99))) if len(known) else 1.0


def _arrows(
    field: VectorField, view: View, origin: NDArray[np.int64], shape: tuple[int, ...]
) -> Arrows:
    known = np.isfinite(field.yx_px).all(axis=1)
    chosen = np.zeros_like(known)
    chosen[slice(None) if view.rows is None else view.rows] = True
    start = field.start_yx - origin
    ends = np.stack([start, start + view.gain * field.yx_px])
    with np.errstate(invalid="ignore"):
        inside = ((ends > -0.5) & (ends < np.array(shape) - 0.5)).all(axis=(0, 2))
    rows = np.flatnonzero(known & chosen & inside)
    made = Arrows(start_yx=start[rows], along_yx=field.yx_px[rows], gain=view.gain)
    magnified = f", {view.gain:g}-fold" if view.gain != 1 else ""
    if view.colour == "angle":
        return replace(made, values=field.angle_rad[rows], angles=True, bar=f"direction{magnified}")
    if view.colour != "length":
        return replace(made, colour=view.colour.lstrip("#"))
    ruler = Ruler.of(view.unit, view.pixel_size_nm)
    return replace(
        made,
        values=ruler.per_px * field.length_px[rows],
        limits=(0.0, ruler.per_px * longest_px(field)),
        bar=f"arrow ({ruler.unit}){magnified}",
    )
