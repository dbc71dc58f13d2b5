"""Where the pixels of a layer are, and how large. No Qt.

Whatever is made from an image lies in that image's pixels, so each layer copies all that the image
layer says about where its pixels are: scale, translation, rotation, shear, affine, units, labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.zarr_files import missing_sentence, without_missing_chunks

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from numpy.typing import ArrayLike, NDArray

FILE = "shiftvae_file"  # key of a layer's metadata, where napari does not know of the file
SPATIAL = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def spatial(layer: Layer) -> dict[str, Any]:
    """Where a layer's pixels are: keyword arguments for a layer that lies exactly on it."""
    place = {name: getattr(layer, name) for name in SPATIAL}
    place["affine"] = layer.affine.affine_matrix  # not the object: two layers would share it
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in place.items()
    }


def plane(layer: Layer) -> dict[str, Any]:
    """Where the pixels of an image are, or those of every frame of a stack, as `spatial` does.

    Not by an affine alone, as `without_axis` does: napari draws dots in units of the scale.
    """
    place = spatial(layer)
    if layer.ndim == 2:
        return place
    cut = {name: place[name][1:] for name in ("scale", "translate", "units", "axis_labels")}
    turned = {name: place[name][1:, 1:] for name in ("rotate", "affine")}
    return {**cut, **turned, "shear": place["shear"][-1:]}  # of y and x


def pixel_size_nm(layer: Layer) -> tuple[float, float] | None:
    """Height and width (y, x) of a layer's pixel [nm], None where its units are no lengths."""
    units = layer.units[-2:]
    if not all(unit.is_compatible_with("nm") for unit in units):
        return None
    y_nm, x_nm = (
        abs(float(size)) * float((1 * unit).to("nm").magnitude)
        for size, unit in zip(layer.scale[-2:], units, strict=True)
    )
    return y_nm, x_nm


def source_path(layer: Layer) -> Path | None:
    """File that a layer was opened from, None where there is none any more."""
    path = layer.source.path or layer.metadata.get(FILE)
    return Path(path) if path and Path(path).exists() else None


def lacks(layer: Layer) -> str:
    """What of an image is not in its file, "" where all of it is there."""
    return missing_sentence(source_path(layer))


def image_from_layer(
    layer: Image, in_file: Calibration | None = None, *, stacks: bool = False
) -> MicroscopeImage:
    """Take the image of a layer as the analysis wants it.

    Parameters
    ----------
    layer : napari.layers.Image
    in_file : Calibration, optional
        What the file says about the size of a pixel, used where the layer has no physical units.
    stacks : bool
        Whether a stack of frames (T, H, W) is wanted too.

    Returns
    -------
    MicroscopeImage
        Its pixels are those of the layer, not a copy; dask and zarr arrays stay what they are.
        Chunks of zarr that are not in the file are masked.

    Raises
    ------
    InputError
        The layer is RGB or has too many dimensions.
    """
    if layer.rgb:
        raise InputError(
            f"'{layer.name}' is an RGB image; right-click it in the layer list, choose Split RGB, "
            "and take one of the channels."
        )
    if layer.ndim != 2 and not (stacks and layer.ndim == 3):
        raise InputError(
            f"'{layer.name}' has {layer.ndim} dimensions; take one 2-D image of it, "
            "for example with right click, Slice to 2D or viewer.add_image(layer.data[0])."
        )
    if layer.ndim == 3 and layer.data.shape[-1] in {3, 4}:
        shape = " x ".join(str(length) for length in layer.data.shape)
        raise InputError(
            f"'{layer.name}' looks like an RGB image ({shape}); take one of its channels, with "
            "viewer.add_image(layer.data[..., 0]), or lay the frames along the first axis."
        )
    size, path = pixel_size_nm(layer), source_path(layer)
    data = layer.data[0] if layer.multiscale else layer.data
    return MicroscopeImage(
        data=without_missing_chunks(data, path),
        name=layer.name,
        path=path,
        calibration=Calibration(pixel_size_nm=size) if size is not None else in_file,
    )


def pixels_per_canvas_pixel(
    layer: Layer, position: ArrayLike, zoom: float, world_units: Iterable[Any] | None
) -> float:
    """How many pixels of a layer a step of one canvas pixel is, at a place on the canvas.

    Parameters
    ----------
    layer : Layer
        Two-dimensional.
    position : (D,) array-like
        Place in the world.
    zoom : float
        Canvas pixels per world unit.
    world_units : iterable of pint.Unit or None
        ``viewer.layers.units``.
    """
    here = np.asarray(position, dtype=float)
    there = here.copy()
    there[-1] += 1 / zoom
    units = None if world_units is None else tuple(world_units)
    step = in_pixels(layer, there, units) - in_pixels(layer, here, units)
    return float(np.linalg.norm(step))


def in_pixels(
    layer: Layer, position: ArrayLike, world_units: Iterable[Any] | None
) -> NDArray[np.float64]:
    """Turn a place on the canvas into pixels of a layer.

    Where layers have different units of length, napari draws all in the smallest of them but its
    own `world_to_data` reads positions as if they were in the layer's units.

    Parameters
    ----------
    layer : Layer
        Two-dimensional.
    position : (D,) array-like
        Place in the world, as mouse events give it; the last two coordinates count.
    world_units : iterable of pint.Unit or None
        ``viewer.layers.units``.

    Returns
    -------
    (2,) array
        Pixels (y, x) of the layer.
    """
    place = np.asarray(position, dtype=float)[-2:].copy()
    if world_units is not None:
        for axis, (world, own) in enumerate(
            zip(tuple(world_units)[-2:], layer.units[-2:], strict=True)
        ):
            place[axis] *= (1 * world).to(own).magnitude
    return np.asarray(layer.world_to_data(place), dtype=float)[-2:]


def calibrate(layer: Image, size_nm: tuple[float, float], others: Iterable[Layer]) -> None:
    """Give a pixel its size, and take along the layers that lie on the image.

    Parameters
    ----------
    layer : Image
        Its scale and units are set; its translation too, where it was in pixels.
    size_nm : tuple of float
        Height and width (y, x) of a pixel [nm].
    others : iterable of Layer
        All layers of the viewer. Those placed exactly as the image is (and, where they hold pixels
        of their own, with as many of them) are changed like it, so that they stay on it.
    """
    from napari.layers import Image, Labels

    was_physical = pixel_size_nm(layer) is not None
    old, shape = spatial(layer), layer.data.shape
    on_it = [
        other
        for other in others
        if other is not layer
        and _same_place(other, old)
        and (not isinstance(other, Image | Labels) or other.data.shape == shape)
    ]
    new = np.array(size_nm, dtype=float)
    factor = float(np.sqrt(np.prod(new / old["scale"])))
    translate = old["translate"] if was_physical else old["translate"] * factor
    for one in (layer, *on_it):
        one.scale = new
        one.units = ("nm", "nm")
        one.translate = translate


def _same_place(layer: Layer, place: Mapping[str, Any]) -> bool:
    return (
        layer.ndim == 2
        and all(
            np.allclose(np.asarray(getattr(layer, name)), np.asarray(place[name]))
            for name in ("scale", "translate", "rotate", "shear", "affine")
        )
        and tuple(layer.units) == tuple(place["units"])
    )


def in_pixels_of(layer: Layer, other: Layer, places: ArrayLike) -> NDArray[np.float64]:
    """Turn places in one layer's data into pixels of another.

    Parameters
    ----------
    layer : Layer
        Whose pixels are wanted.
    other : Layer
        The places are in its data; both layers may lie, and be measured, differently.
    places : (N, D) array-like

    Returns
    -------
    (N, 2) array
        Pixels (y, x) of `layer`.
    """
    world = np.array([other.data_to_world(place)[-2:] for place in np.asarray(places)])
    factor = [
        float((1 * theirs).to(own).magnitude) if theirs.is_compatible_with(own) else 1.0
        for theirs, own in zip(other.units[-2:], layer.units[-2:], strict=True)
    ]
    start = [0.0] * (layer.ndim - 2)
    return np.array([layer.world_to_data([*start, *place])[-2:] for place in world * factor])


def without_axis(layer: Layer, axis: int) -> dict[str, Any]:
    """Where maps of a layer's other axes lie: keyword arguments for a layer of one axis less.

    Parameters
    ----------
    layer : Layer
        Of three dimensions.
    axis : int
        The one that is left out, such as that of energy.

    Returns
    -------
    dict
        ``affine, units, axis_labels``: the affine carries scale, rotation, shear and translation.
    """
    kept = [index for index in range(layer.ndim) if index != axis]
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    steps = [np.asarray(layer.data_to_world(np.eye(layer.ndim)[index])) - origin for index in kept]
    matrix = np.eye(len(kept) + 1)
    matrix[:-1, :-1] = np.array(steps)[:, kept].T
    matrix[:-1, -1] = origin[kept]
    return {
        "affine": matrix,
        "units": tuple(layer.units[index] for index in kept),
        "axis_labels": tuple(layer.axis_labels[index] for index in kept),
    }
