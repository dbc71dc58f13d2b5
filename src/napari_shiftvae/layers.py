"""Core records to napari layers and back. No Qt.

Whatever is made from an image lies in that image's pixels, so each layer copies all that the image
layer says about where its pixels are: scale, translation, rotation, shear, affine, units, labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import Calibration, MicroscopeImage

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from napari.layers import Image, Layer
    from napari.types import LayerDataTuple
    from numpy.typing import ArrayLike, NDArray

    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.session import Picks

RUN = "shiftvae_run"  # key of a layer's metadata
SPATIAL = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
LATENT_COLORMAP = "viridis"
ARROW_COLORMAP = "plasma"
FOUND_COLOUR, HAND_COLOUR, ASIDE_COLOUR = "#00e5ff", "#ffb000", "#ff4d6d"

Reading = Literal["whole pattern", "central atom", "against its cage"]
READINGS: dict[Reading, str] = {
    "whole pattern": "How far the pattern around each pick lies from the pick.",
    "central atom": "How far the atom at the centre of the pattern lies from the pick.",
    "against its cage": (
        "Central atom minus whole pattern: the atom's displacement against its neighbours, "
        "which is what ferroelectric polarisation is."
    ),
}


# -- from layers -----------------------------------------------------------------------------------


def spatial(layer: Layer) -> dict[str, Any]:
    """Where a layer's pixels are: keyword arguments for a layer that lies exactly on it."""
    place = {name: getattr(layer, name) for name in SPATIAL}
    place["affine"] = layer.affine.affine_matrix  # not the object: two layers would share it
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in place.items()
    }


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
    from pathlib import Path

    path = Path(layer.source.path) if layer.source.path else None
    return path if path is not None and path.exists() else None


def image_from_layer(layer: Image, in_file: Calibration | None = None) -> MicroscopeImage:
    """Take the image of a layer as the analysis wants it.

    Parameters
    ----------
    layer : napari.layers.Image
    in_file : Calibration, optional
        What the file says about the size of a pixel, used where the layer has no physical units.

    Returns
    -------
    MicroscopeImage
        Its pixels are those of the layer, not a copy; dask and zarr arrays stay what they are.

    Raises
    ------
    InputError
        The layer is RGB or not two-dimensional.
    """
    if layer.rgb:
        raise InputError(
            f"'{layer.name}' is an RGB image; right-click it in the layer list, choose Split RGB, "
            "and take one of the channels."
        )
    if layer.ndim != 2:
        raise InputError(
            f"'{layer.name}' has {layer.ndim} dimensions; take one 2-D image of it, "
            "for example with right click, Slice to 2D or viewer.add_image(layer.data[0])."
        )
    size = pixel_size_nm(layer)
    return MicroscopeImage(
        data=layer.data[0] if layer.multiscale else layer.data,
        name=layer.name,
        path=source_path(layer),
        calibration=Calibration(pixel_size_nm=size) if size is not None else in_file,
    )


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


# -- to layers -------------------------------------------------------------------------------------


def atoms_layer(picks: Picks, name: str, place: Mapping[str, Any]) -> LayerDataTuple:
    """Show picks as open circles.

    Parameters
    ----------
    picks : Picks
    name : str
        Name of the image.
    place : Mapping
        From `spatial`.

    Returns
    -------
    LayerData of a Points layer named ``<image> atoms``.
    """
    return (
        picks.positions_yx,
        {
            "name": f"{name} atoms",
            "features": {"by_hand": picks.by_hand},
            "size": dot_size_px(picks.positions_yx),
            "face_color": "transparent",
            "border_color": ring_colours(picks.by_hand, None),
            "border_width": 0.16,
            **place,
        },
        "points",
    )


def dot_size_px(positions_yx: NDArray[np.float64]) -> float:
    """Diameter of an atom's dot [px] that leaves its neighbours visible."""
    from napari_shiftvae.core.lattice import neighbour_distance

    if len(positions_yx) < 3:
        return 8.0
    return max(2.0, 0.4 * neighbour_distance(positions_yx))


def ring_colours(
    by_hand: NDArray[np.bool_], set_aside: NDArray[np.str_] | None
) -> NDArray[np.float32]:
    """Border colour (N, 4) of each atom: found, made by hand, or set aside."""
    from napari.utils.color import ColorValue

    colours = np.where(by_hand[:, None], ColorValue(HAND_COLOUR), ColorValue(FOUND_COLOUR))
    if set_aside is not None:
        colours[set_aside != ""] = ColorValue(ASIDE_COLOUR)
    return colours.astype(np.float32)


def latent_limits(values: ArrayLike) -> tuple[float, float]:
    """Limits for a colour scale that outliers do not stretch: 1st and 99th percentile."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(finite, (1, 99)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def latent_colours(values: ArrayLike, limits: tuple[float, float] | None = None) -> NDArray:
    """Colours (N, 4) of a latent on the colour map all of its layers use; clear where NaN."""
    from napari.utils.colormaps import ensure_colormap

    low, high = limits or latent_limits(values)
    scaled = (np.asarray(values, dtype=float) - low) / (high - low)
    index = np.rint(np.clip(np.nan_to_num(scaled), 0, 1) * 255)
    table = np.asarray(ensure_colormap(LATENT_COLORMAP).map(np.linspace(0, 1, 256)))
    colours = table[index.astype(np.uint8)]
    colours[~np.isfinite(scaled)] = 0
    return colours.astype(np.float32)


def arrows(atoms: pd.DataFrame, reading: Reading) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Displacements of the atoms as arrows.

    Parameters
    ----------
    atoms : DataFrame
        `Run.atoms`.
    reading : str
        One of `READINGS`.

    Returns
    -------
    vectors : (N, 2, 2) array
        Start (y, x) and displacement (y, x) of each arrow [px].
    rows : (N,) int array
        Row of the table that each arrow belongs to; atoms set aside have none.
    """
    pick = atoms[["y_px", "x_px"]].to_numpy(dtype=float)
    shift = atoms[["shift_y_px", "shift_x_px"]].to_numpy(dtype=float)
    atom = atoms[["atom_y_px", "atom_x_px"]].to_numpy(dtype=float)
    along = {
        "whole pattern": shift,
        "central atom": atom - pick,
        "against its cage": atom - pick - shift,
    }[reading]
    rows = np.flatnonzero(np.isfinite(along).all(axis=1))
    return np.stack([pick[rows], along[rows]], axis=1), rows


def longest_arrow(atoms: pd.DataFrame, reading: Reading) -> float:
    """Upper end of the arrows' colour scale [px]: the 99th percentile of their lengths."""
    vectors, _ = arrows(atoms, reading)
    if not len(vectors):
        return 1.0
    return max(1e-9, float(np.percentile(np.linalg.norm(vectors[:, 1], axis=1), 99)))


def arrows_layer(
    atoms: pd.DataFrame, name: str, place: Mapping[str, Any], reading: Reading, gain: float
) -> LayerDataTuple:
    """Displacements as a Vectors layer named ``<image> shift``, coloured by their length."""
    vectors, _ = arrows(atoms, reading)
    length = np.linalg.norm(vectors[:, 1], axis=1)
    return (
        vectors,
        {
            "name": f"{name} shift",
            "features": {"length_px": length},
            "edge_color": "length_px",
            "edge_colormap": ARROW_COLORMAP,
            "edge_contrast_limits": (0.0, longest_arrow(atoms, reading)),
            "edge_width": 0.25 * dot_size_px(vectors[:, 0]),
            "length": gain,
            "vector_style": "arrow",
            "metadata": {"reading": reading},
            **place,
        },
        "vectors",
    )


def default_gain(atoms: pd.DataFrame, reading: Reading) -> float:
    """Magnification at which the longest arrows are as long as atoms are apart."""
    from napari_shiftvae.core.lattice import neighbour_distance

    vectors, _ = arrows(atoms, reading)
    if len(vectors) < 3:
        return 1.0
    longest = float(np.percentile(np.linalg.norm(vectors[:, 1], axis=1), 95))
    ratio = 0.8 * neighbour_distance(vectors[:, 0]) / max(longest, 1e-6)
    return float(np.clip(ratio, 1, 200))


def run_features(run: Run) -> dict[str, Any]:
    """Look of the atoms layer of a finished analysis: keyword arguments of a Points layer."""
    values = run.atoms["z1"].to_numpy(dtype=float)
    return {
        "features": run.atoms,
        "face_color": "z1",
        "face_colormap": LATENT_COLORMAP,
        "face_contrast_limits": latent_limits(values),
    }


def run_layers(run: Run, name: str, place: Mapping[str, Any]) -> list[LayerDataTuple]:
    """Atoms, latent maps and arrows of a finished analysis, from bottom to top.

    Parameters
    ----------
    run : Run
    name : str
        Name of the image the layers are for.
    place : Mapping
        From `spatial`, so that they lie on that image.

    Returns
    -------
    list of LayerData
        Image layers ``<image> z1`` ..., Points ``<image> atoms``, Vectors ``<image> shift``; each
        has the run in its metadata.
    """
    atoms = run.atoms
    positions = atoms[["y_px", "x_px"]].to_numpy(dtype=float)
    set_aside = atoms["set_aside"].to_numpy(dtype=str)
    gain = default_gain(atoms, "against its cage")
    made = [
        *map_layers(run, name, place),
        (
            positions,
            {
                "name": f"{name} atoms",
                "size": dot_size_px(positions),
                "border_color": ring_colours(np.zeros(len(atoms), dtype=bool), set_aside),
                "border_width": 0.0,
                **run_features(run),
                **place,
            },
            "points",
        ),
        arrows_layer(atoms, name, place, "against its cage", gain),
    ]
    for _, kwargs, _ in made:
        kwargs["metadata"] = {**kwargs.get("metadata", {}), RUN: run}
    return made


def map_layers(run: Run, name: str, place: Mapping[str, Any]) -> list[LayerDataTuple]:
    """Latent maps as Image layers ``<image> z1`` ..., not visible at first."""
    return [
        (
            values,
            {
                "name": f"{name} {latent}",
                "colormap": LATENT_COLORMAP,
                "contrast_limits": latent_limits(run.atoms[latent]),
                "blending": "translucent",
                "opacity": 0.7,
                "visible": False,
                "metadata": {"latent": latent},
                **place,
            },
            "image",
        )
        for latent, values in run.maps.items()
    ]


def run_to_layer_data(run: Run) -> list[LayerDataTuple]:
    """Layers of a finished analysis that stand on their own, as the reader of run files gives them.

    Calibrated runs are placed in nm with the first pixel's centre at the origin, others in pixels.
    """
    size = run.image.pixel_size_nm
    place: dict[str, Any] = {} if size is None else {"scale": size, "units": ("nm", "nm")}
    return run_layers(run, run.image.name, place)
