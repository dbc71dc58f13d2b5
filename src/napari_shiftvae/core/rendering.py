"""Drawing atoms into an image: what all simulated images have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError

__all__ = [
    "Scan",
    "Simulation",
    "assemble",
    "draw_gaussians",
    "hexagonal_vectors",
    "lattice_sites",
    "rotated_axes",
    "site_table",
]

REACH = 5.0  # radius of the window in which an atom is drawn [sigma]; 4e-6 of its height outside
CHUNK_PIXELS = 2_000_000  # pixels drawn at once: bounds memory whatever the number of atoms


TRUTH_COLUMNS = [
    "y_px",
    "x_px",
    "site_y_px",
    "site_x_px",
    "sublattice",
    "intensity",
    "displacement_y_px",
    "displacement_x_px",
    "kind",
]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A simulated image and the truth behind it.

    Attributes
    ----------
    image : (H, W) float32 ndarray
        An atom of intensity 1 has height 1 above the background.
    truth : pandas.DataFrame
        One row per site in the image, sorted by position: `y_px, x_px` where the atom is;
        `site_y_px, site_x_px` where it would be undisplaced; `sublattice`; `intensity`;
        `displacement_y_px, displacement_x_px`; `kind`. A vacancy has a row too, with intensity 0.
    noise_sigma : float
        Standard deviation of the noise [intensity].
    separation_px : float
        Distance of nearest neighbours in the undisplaced lattice [px].
    pixel_size_nm : float
        Size of one pixel, the same along y and x [nm].
    """

    image: NDArray[np.float32]
    truth: pd.DataFrame
    noise_sigma: float
    separation_px: float
    pixel_size_nm: float


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the slow scan does to an image.

    Attributes
    ----------
    jitter_px : float
        Standard deviation of a random offset of each row along x [px]. It is part of the noise:
        true positions do not hold it.
    drift_yx_px : (float, float)
        Drift of the sample from the first row to the last [px], at constant speed. True positions
        and sites drift along: they say where things are in the image.
    row_level : float
        Standard deviation of a random offset of each row's level [intensity], as a scanning tip
        makes it. It is part of the noise, on top of `Simulation.noise_sigma`.
    """

    jitter_px: float = 0.0
    drift_yx_px: tuple[float, float] = (0.0, 0.0)
    row_level: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter_px", "row_level"):
            value = getattr(self, name)
            if not value >= 0:
                raise InputError(f"{name} is {value}; give zero or a positive number.")


def lattice_sites(
    shape: tuple[int, int],
    vectors_yx: ArrayLike,
    basis: ArrayLike,
    origin_yx: ArrayLike,
    margin_px: float,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Every site of a lattice in an image and in a margin around it.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image [px].
    vectors_yx : (2, 2) array_like
        Lattice vectors, one a row, ``(y, x)`` [px].
    basis : (B, 2) array_like
        Places of the sites in the unit cell, in fractions of the two vectors.
    origin_yx : (2,) array_like
        Where the lattice has its origin [px].
    margin_px : float
        Width of the margin [px].

    Returns
    -------
    positions_yx : (N, 2) ndarray
        Positions [px].
    index : (N,) ndarray
        Row of `basis` each site belongs to.
    """
    vectors, origin = np.asarray(vectors_yx, dtype=float), np.asarray(origin_yx, dtype=float)
    low, high = -margin_px - 0.5, np.asarray(shape) - 0.5 + margin_px
    corners = np.array([(y, x) for y in (low, high[0]) for x in (low, high[1])])
    cells = (corners - origin) @ np.linalg.inv(vectors)  # (4, 2)
    first, last = np.floor(cells.min(axis=0)) - 1, np.ceil(cells.max(axis=0)) + 1
    i, j = (np.arange(a, b + 1) for a, b in zip(first, last, strict=True))
    grid = np.stack(np.meshgrid(i, j, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    fractions = grid + np.asarray(basis, dtype=float)  # (cells, B, 2)
    index = np.broadcast_to(np.arange(fractions.shape[1]), fractions.shape[:2]).ravel()
    positions = fractions.reshape(-1, 2) @ vectors + origin
    inside = np.all((positions >= low) & (positions < high), axis=1)
    return positions[inside], index[inside]


def rotated_axes(rotation_rad: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn the axes from x towards y [rad]; unit vectors (y, x) along y and along x."""
    cosine, sine = np.cos(rotation_rad), np.sin(rotation_rad)
    return np.array([cosine, -sine]), np.array([sine, cosine])


def hexagonal_vectors(rotation_rad: float) -> NDArray[np.float64]:
    """Make two unit vectors (y, x) at 60 degrees, one a row, the first along the turned x axis."""
    along_y, along_x = rotated_axes(rotation_rad)
    return np.stack([along_x, along_x / 2 + along_y * np.sqrt(3) / 2])


def draw_gaussians(
    shape: tuple[int, int],
    positions_yx: ArrayLike,
    height: ArrayLike,
    sigma_px: float,
    row_offset_px: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Sum of 2D Gaussians, each drawn only where it matters.

    Parameters
    ----------
    shape : (int, int)
        Height H and width W of the image [px].
    positions_yx : (N, 2) array_like
        Centres [px]; those outside the image count as far as they reach into it.
    height : (N,) array_like or float
        Height of each.
    sigma_px : float
        Standard deviation of all of them [px].
    row_offset_px : (H,) array_like or float
        Offset of each row's content along x [px].

    Returns
    -------
    (H, W) ndarray

    Examples
    --------
    >>> image = draw_gaussians((21, 21), [(10.0, 10.5)], 2.0, 1.5)
    >>> image.shape, round(float(image.sum() / (2 * np.pi * 1.5**2)), 3)
    ((21, 21), 2.0)
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    height = np.broadcast_to(np.asarray(height, dtype=np.float64), len(positions))
    offset = np.broadcast_to(np.asarray(row_offset_px, dtype=np.float64), shape[0])
    reach = int(np.ceil(REACH * sigma_px + np.abs(offset).max()))
    # Drawn on a frame as wide as one window on every side, so that no window needs cutting.
    padded = np.pad(np.zeros(shape), 2 * reach)
    offset = np.pad(offset, 2 * reach)
    corner = np.rint(positions).astype(np.intp) + reach  # (N, 2) in the padded frame
    fits = np.all((corner >= 0) & (corner + 2 * reach < padded.shape), axis=1)
    steps = np.arange(2 * reach + 1)
    rows = np.flatnonzero(fits)
    for part in np.array_split(rows, 1 + len(rows) * len(steps) ** 2 // CHUNK_PIXELS):
        y = corner[part, :1] + steps  # (n, w)
        x = corner[part, 1:] + steps
        to_y = y - 2 * reach - positions[part, :1]
        to_x = (x - 2 * reach - positions[part, 1:])[:, None, :] - offset[y][:, :, None]
        atoms = np.exp((to_y[:, :, None] ** 2 + to_x**2) * (-0.5 / sigma_px**2))  # (n, w, w)
        atoms *= height[part, None, None]
        flat = y[:, :, None] * padded.shape[1] + x[:, None, :]
        np.add.at(padded.ravel(), flat.ravel(), atoms.ravel())
    return padded[2 * reach : 2 * reach + shape[0], 2 * reach : 2 * reach + shape[1]]


def site_table(
    sites: NDArray[np.float64], *, displacement: NDArray[np.float64], **columns: object
) -> pd.DataFrame:
    """Make the table for `assemble` from (N, 2) positions (y, x) [px] and further columns."""
    positions = {
        "site_y_px": sites[:, 0],
        "site_x_px": sites[:, 1],
        "displacement_y_px": displacement[:, 0],
        "displacement_x_px": displacement[:, 1],
    }
    return pd.DataFrame({**positions, **columns})


def assemble(
    sites: pd.DataFrame,
    *,
    rng: np.random.Generator,
    shape: tuple[int, int],
    noise: float,
    separation_px: float,
    pixel_size_nm: float,
    background: float,
    scan: Scan | None = None,
) -> Simulation:
    """Draw the image of a table of sites and keep the truth.

    Parameters
    ----------
    sites : pandas.DataFrame
        Columns `site_y_px, site_x_px, displacement_y_px, displacement_x_px, intensity, sigma_px,
        sublattice, kind`; sites outside the image are drawn but not in the truth.
    rng : numpy.random.Generator
        Source of the noise.
    shape : (int, int)
        Height and width of the image [px].
    noise : float
        Standard deviation of the noise, as a fraction of the height of an atom of intensity 1.
    separation_px, pixel_size_nm : float
        Kept in the result.
    background : float
        Level between the atoms.
    scan : Scan, optional
        Row jitter and drift.

    Returns
    -------
    Simulation
    """
    if not noise >= 0:
        raise InputError(f"noise is {noise}; give zero or a positive fraction of the peak.")
    scan = Scan() if scan is None else scan
    sites = sites.copy()
    time = sites["site_y_px"] / max(shape[0] - 1, 1)  # 0 at the first row, 1 at the last
    for axis, drift in zip("yx", scan.drift_yx_px, strict=True):
        sites[f"site_{axis}_px"] += drift * time
        sites[f"{axis}_px"] = sites[f"site_{axis}_px"] + sites[f"displacement_{axis}_px"]
    positions = sites[["y_px", "x_px"]].to_numpy()
    jitter = rng.normal(0, 1, shape[0]) * scan.jitter_px
    sigma, height = sites["sigma_px"].to_numpy(), sites["intensity"].to_numpy()
    image = background + scan.row_level * rng.standard_normal((shape[0], 1))
    image = image + noise * rng.standard_normal(shape)
    for width in np.unique(sigma):
        rows = sigma == width
        image += draw_gaussians(shape, positions[rows], height[rows], float(width), jitter)
    inside = np.all((positions >= -0.5) & (positions < np.asarray(shape) - 0.5), axis=1)
    truth = sites.loc[inside, TRUTH_COLUMNS].sort_values(["y_px", "x_px"], ignore_index=True)
    return Simulation(
        image=image.astype(np.float32),
        truth=truth,
        noise_sigma=float(noise),
        separation_px=float(separation_px),
        pixel_size_nm=float(pixel_size_nm),
    )
