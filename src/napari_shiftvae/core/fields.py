"""Fields on the atoms: maps on the pixels of the image, displacement from the lattice."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay, KDTree, QhullError

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lattice import Lattice

BLOCK_PX = 1 << 20  # pixels looked up at a time: bounds the memory on large images
TILE_PX = 4  # small against the distance between atoms, so that few tiles see a border


def pixel_maps(
    positions_yx: ArrayLike,
    values: ArrayLike,
    shape: tuple[int, int],
    *,
    longest_edge_px: float | None = None,
    nearest: bool = False,
) -> NDArray[np.float32]:
    """Draw values given at atoms onto the pixels of the image.

    The atoms are joined to triangles (Delaunay), which are looked up once for all maps. Within a
    triangle values are interpolated linearly, which suits what varies smoothly from atom to atom;
    or each pixel takes the value of the nearest atom, which suits what may differ between
    sublattices: nothing is drawn there that no atom has.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Positions (y, x) [px].
    values : (N, K) array-like
        K quantities at each. Rows with a NaN, here or in the positions, are left out.
    shape : (int, int)
        Height and width of the image [px].
    longest_edge_px : float, optional
        Triangles with a longer edge stay NaN: holes larger than this are not bridged. By default
        all are filled.

    Returns
    -------
    (K, H, W) float32 array
        NaN outside the convex hull of the atoms; all NaN, with a warning, where fewer than three
        atoms, or atoms on one line only, are left.

    Examples
    --------
    >>> corners = [(0, 0), (0, 2), (2, 0), (2, 2)]
    >>> pixel_maps(corners, [[0], [2], [0], [2]], (3, 4))[0, 1]
    array([ 0.,  1.,  2., nan], dtype=float32)
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    quantities = np.asarray(values, dtype=np.float64)
    if quantities.ndim != 2 or len(quantities) != len(positions):
        raise InputError(
            f"values has the shape {quantities.shape}; give one row for each of the "
            f"{len(positions)} positions."
        )
    maps = np.full((quantities.shape[1], *shape), np.nan, dtype=np.float32)
    valid = np.isfinite(positions).all(axis=1) & np.isfinite(quantities).all(axis=1)
    positions, quantities = positions[valid], quantities[valid]
    triangles = _triangulate(positions)
    if triangles is None:
        warnings.warn(
            f"The maps are empty: {len(positions)} atoms with values span no triangle.",
            stacklevel=2,
        )
        return maps

    interpolate = LinearNDInterpolator(triangles, quantities)
    tree = KDTree(positions)
    too_long = np.zeros(len(triangles.simplices) + 1, dtype=bool)
    too_long[-1] = True  # looked up by -1: in no triangle
    if longest_edge_px is not None:
        corners = positions[triangles.simplices]  # (T, 3, 2)
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
        too_long[:-1] = edges.max(axis=1) > longest_edge_px
    rows = max(1, BLOCK_PX // shape[1])
    for first in range(0, shape[0], rows):
        pixels = np.mgrid[first : min(first + rows, shape[0]), : shape[1]]
        pixels = np.moveaxis(pixels, 0, -1).astype(np.float64)  # (rows, W, 2)
        triangle = triangles.find_simplex(pixels)  # (rows, W)
        drawn = quantities[_nearest(tree, pixels)] if nearest else interpolate(pixels)
        drawn[too_long[triangle]] = np.nan
        maps[:, first : first + rows] = np.moveaxis(drawn, -1, 0)
    return maps


def displacement(positions_yx: ArrayLike, lattice: Lattice) -> NDArray[np.float64]:
    """Position of each atom minus its place on the ideal lattice.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        The positions that the lattice was fitted to, in their order, or better ones of the same
        atoms (y, x) [px].
    lattice : Lattice

    Returns
    -------
    (N, 2) array
        (y, x) [px]; NaN for atoms that are not on the lattice.
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    if len(positions) != len(lattice.reference_yx):
        raise InputError(
            f"The lattice was fitted to {len(lattice.reference_yx)} atoms, not to "
            f"{len(positions)}; fit it to these positions first."
        )
    return positions - lattice.reference_yx


def _nearest(tree: KDTree, pixels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nearest point (H, W) of each of adjoining pixels (H, W, 2).

    All that is nearest to one point is convex: a tile whose corners are is so as a whole.
    """
    height, width = pixels.shape[:2]
    rows, columns = (-(-length // TILE_PX) for length in (height, width))
    corners = TILE_PX * np.mgrid[: rows + 1, : columns + 1] + pixels[0, 0][:, None, None]
    owner = np.asarray(tree.query(np.moveaxis(corners, 0, -1))[1])
    first = owner[:-1, :-1]
    whole = (first == owner[1:, 1:]) & (first == owner[1:, :-1]) & (first == owner[:-1, 1:])

    def spread(tiles: NDArray[Any]) -> NDArray[Any]:
        each = tiles.repeat(TILE_PX, axis=0).repeat(TILE_PX, axis=1)
        return each[:height, :width]

    found: NDArray[np.int64] = spread(first)
    mixed = ~spread(whole)
    found[mixed] = tree.query(pixels[mixed])[1]
    return found


def _triangulate(positions: NDArray[np.float64]) -> Delaunay | None:
    if len(positions) < 3:
        return None
    # Qhull takes points for a plane figure where rounding alone moves them off a line.
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    if spread[1] <= 1e-6 * spread[0]:
        return None
    try:
        return Delaunay(positions)
    except QhullError:
        return None
