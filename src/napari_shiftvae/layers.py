"""Core records to napari layers. No Qt.

Functions that make a layer take the `place` of its image, from `placement.spatial`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_shiftvae.core.palettes import LENGTHS
from napari_shiftvae.picks import Picks

if TYPE_CHECKING:
    import pandas as pd
    from napari.types import LayerDataTuple
    from napari.utils.colormaps import Colormap
    from numpy.typing import ArrayLike, NDArray

    from napari_shiftvae.core.runs import Run

RUN = "shiftvae_run"  # key of a layer's metadata
LATENT_COLORMAP = "viridis"
CLASS = "class"  # column of the atoms' table
# Colours that colour-blind people tell apart: M. Okabe, K. Ito, "Color Universal Design" (2008);
# then white and two of P. Tol, "Colour Schemes", SRON/EPS/TN/09-002 (2021).
CLASS_COLOURS = (
    *("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2"),
    *("#ffffff", "#aa4499", "#999933"),
)
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


def atoms_layer(
    picks: Picks,
    name: str,
    place: Mapping[str, Any],
    colour_of: Callable[[str], str] = lambda _: FOUND_COLOUR,
) -> LayerDataTuple:
    """Show picks as open circles.

    Parameters
    ----------
    picks : Picks
    name : str
        Name of the image.
    place : Mapping
        From `spatial`; that of a stack where it has three dimensions.
    colour_of : callable
        Gives the colour of a sublattice.

    Returns
    -------
    LayerData of a Points layer named ``<image> atoms``.
    """
    return (
        layer_positions(picks, place),
        {
            "name": f"{name} atoms",
            "features": pick_features(picks),
            "size": dot_size_px(picks.positions_yx),
            "face_color": "transparent",
            "border_color": ring_colours(picks, None, colour_of),
            "border_width": 0.16,
            **place,
        },
        "points",
    )


def layer_positions(picks: Picks, place: Mapping[str, Any]) -> NDArray[np.float64]:
    """Positions as the layer of an image (y, x) or of a stack (t, y, x) has them."""
    return picks.positions_tyx if len(place.get("scale", (1, 1))) == 3 else picks.positions_yx


def pick_features(picks: Picks, set_aside: NDArray[np.str_] | None = None) -> pd.DataFrame:
    """What is known of each pick beside its position, for the layer's table of features."""
    features = picks.table.drop(columns=["t", "y_px", "x_px"])
    return features if set_aside is None else features.assign(set_aside=set_aside.astype(object))


def vacancies_layer(
    places_yx: NDArray[np.float64], frame: int, name: str, place: Mapping[str, Any]
) -> LayerDataTuple:
    """Mark lattice sites without an atom by crosses, in a layer named ``<image> vacancies``."""
    picks = Picks.of(places_yx, by_hand=False, t=frame)
    look = {"symbol": "cross", "face_color": ASIDE_COLOUR, "border_width": 0.0}
    size = max(4.0, dot_size_px(places_yx))
    return (
        layer_positions(picks, place),
        {"name": f"{name} vacancies", "size": size, **look, **place},
        "points",
    )


def dot_size_px(positions_yx: NDArray[np.float64], separation_px: float | None = None) -> float:
    """Diameter of an atom's dot [px] that leaves its neighbours visible."""
    from napari_shiftvae.core.lattice import neighbour_distance

    if len(positions_yx) < 3:
        return 8.0
    return max(2.0, 0.4 * (separation_px or neighbour_distance(positions_yx)))


def ring_colours(
    picks: Picks,
    set_aside: NDArray[np.str_] | None,
    colour_of: Callable[[str], str] = lambda _: FOUND_COLOUR,
) -> NDArray[np.float32]:
    """Border colour (N, 4) of each atom: that of its sublattice, by hand, or set aside."""
    from napari.utils.color import ColorValue

    colours = np.tile(np.asarray(ColorValue(FOUND_COLOUR)), (len(picks), 1))
    for name in picks.sublattices:
        colours[picks.sublattice == name] = ColorValue(colour_of(name))
    colours[picks.by_hand & (picks.sublattice == "")] = ColorValue(HAND_COLOUR)
    aside = np.zeros(len(picks), dtype=bool) if set_aside is None else set_aside != ""
    if "flag" in picks.table:
        aside = aside | (picks.table["flag"] != "").to_numpy()
    colours[aside] = ColorValue(ASIDE_COLOUR)
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


def as_colormap(name: str, colours: Sequence[str]) -> Colormap:
    """Make a colour map of hexadecimal colours."""
    from napari.utils.colormaps import Colormap

    rgb = [[int(one[i : i + 2], 16) / 255 for i in (0, 2, 4)] for one in colours]
    return Colormap(rgb, name=name, display_name=name)


def arrow_colormap() -> Colormap:
    """Make the colour map of arrow lengths."""
    return as_colormap("arrow length", LENGTHS)


def arrows_layer(
    atoms: pd.DataFrame,
    name: str,
    place: Mapping[str, Any],
    reading: Reading,
    gain: float,
    *,
    spacing_px: float | None = None,
) -> LayerDataTuple:
    """Displacements as a Vectors layer named ``<image> shift``, coloured by their length.

    The distance of neighbouring atoms, where it is known, need not be worked out again.
    """
    vectors, _ = arrows(atoms, reading)
    length = np.linalg.norm(vectors[:, 1], axis=1)
    return (
        vectors,
        {
            "name": f"{name} shift",
            "features": {"length_px": length},
            "edge_color": "length_px",
            "edge_colormap": arrow_colormap(),
            "edge_contrast_limits": (0.0, longest_arrow(atoms, reading)),
            "edge_width": 0.25 * dot_size_px(vectors[:, 0], spacing_px),
            "length": gain,
            "vector_style": "arrow",
            "metadata": {"reading": reading},
            **place,
        },
        "vectors",
    )


def default_gain(atoms: pd.DataFrame, reading: Reading, spacing_px: float | None = None) -> float:
    """Magnification at which the longest arrows are as long as atoms are apart."""
    from napari_shiftvae.core.lattice import neighbour_distance

    vectors, _ = arrows(atoms, reading)
    if len(vectors) < 3:
        return 1.0
    longest = float(np.percentile(np.linalg.norm(vectors[:, 1], axis=1), 95))
    ratio = 0.8 * (spacing_px or neighbour_distance(vectors[:, 0])) / max(longest, 1e-6)
    return float(np.clip(ratio, 1, 200))


def run_table(run: Run, picks: Picks | None) -> pd.DataFrame:
    """Return the table of a run, with what else is known of its picks (the same rows)."""
    if picks is None or len(picks) != len(run.atoms):
        return run.atoms
    more = pick_features(picks)
    new = more.columns.difference(run.atoms.columns, sort=False)
    return run.atoms.assign(**{name: more[name].to_numpy() for name in new})


def run_features(run: Run, picks: Picks | None = None) -> dict[str, Any]:
    """Look of the atoms layer of a finished analysis: keyword arguments of a Points layer."""
    values = run.atoms["z1"].to_numpy(dtype=float)
    return {
        "features": run_table(run, picks),
        "face_color": "z1",
        "face_colormap": LATENT_COLORMAP,
        "face_contrast_limits": latent_limits(values),
    }


def run_layers(
    run: Run, name: str, place: Mapping[str, Any], picks: Picks | None = None
) -> list[LayerDataTuple]:
    """Atoms, latent maps and arrows of a finished analysis, from bottom to top.

    Parameters
    ----------
    run : Run
    name : str
        Name of the image the layers are for.
    place : Mapping
        From `spatial`, so that they lie on that image.
    picks : Picks, optional
        Those that were analysed; what was measured of them goes into the atoms' features.

    Returns
    -------
    list of LayerData
        Image layers ``<image> z1`` ..., Points ``<image> atoms``, Vectors ``<image> shift``; each
        has the run in its metadata.
    """
    from napari_shiftvae.core.lattice import neighbour_distance

    atoms = run.atoms
    positions = atoms[["y_px", "x_px"]].to_numpy(dtype=float)
    set_aside = atoms["set_aside"].to_numpy(dtype=str)
    spacing = neighbour_distance(positions)
    gain = default_gain(atoms, "against its cage", spacing)
    made = [
        *map_layers(run, name, place),
        (
            positions,
            {
                "name": f"{name} atoms",
                "size": dot_size_px(positions, spacing),
                "border_color": ring_colours(Picks.of(positions, by_hand=False), set_aside),
                "border_width": 0.0,
                **run_features(run, picks),
                **place,
            },
            "points",
        ),
        arrows_layer(atoms, name, place, "against its cage", gain, spacing_px=spacing),
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
