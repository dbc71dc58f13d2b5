"""Colours of maps and arrows, the same on the canvas and in figures."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ANGLES", "DIVERGING", "GREY", "LENGTHS", "VIRIDIS", "coloured", "limits_of", "wheel"]

# Matplotlib's viridis (S. van der Walt, N. Smith, CC0) at 17 places.
VIRIDIS: tuple[str, ...] = (
    *("440154", "48186a", "472d7b", "424086", "3b528b", "33638d"),
    *("2c728e", "26818e", "21908c", "1f9f88", "28ae80", "3ebc74"),
    *("5dc963", "82d34c", "abdc32", "d5e21a", "fde725"),
)
GREY = ("000000", "ffffff")
# ColorBrewer's PuOr (C. Brewer, Apache 2.0), which colour-blind people can read: orange to violet.
DIVERGING: tuple[str, ...] = (
    *("7f3b08", "b35806", "e08214", "fdb863", "fee0b6", "f7f7f7"),
    *("d8daeb", "b2abd2", "8073ac", "542788", "2d004b"),
)
# Matplotlib's magma without its dark end, which images hide.
LENGTHS: tuple[str, ...] = (
    *("782281", "992d80", "bb3878", "db486a", "f2645c"),
    *("fc8a62", "feb179", "fed799", "fcfdbf"),
)
# Directions from 0 (along x) in steps of 22.5 degrees towards y. In lightness and blue-yellow,
# which is what most colour-blind people see, they still go round a circle, so that none looks
# like another (in OKLab: lightness 0.74 - 0.14 sin t, a 0.14 sin t, b 0.13 cos t).
ANGLES: tuple[str, ...] = (
    *("cba63a", "d18833", "cf6e44", "c95c5e", "c1587d", "b85f9f", "ad70c2", "9f89e3"),
    *("8ba6fd", "6fc3ff", "4cddff", "37eff9", "50f5db", "7af0b3", "9fdf86", "bbc55b"),
)
HOLE = 0.25  # radius of the hole in the wheel, over its own


def coloured(
    values: ArrayLike, limits: tuple[float, float], colours: tuple[str, ...]
) -> NDArray[np.uint8]:
    """Colours of values.

    Parameters
    ----------
    values : (...) array-like
    limits : tuple of float
        Values of the first and the last colour.
    colours : tuple of str
        From low to high, hexadecimal.

    Returns
    -------
    (..., 4) uint8 array
        Red, green, blue, opacity; clear where a value is NaN.

    Examples
    --------
    >>> coloured([0.0, 0.5, np.nan], (0, 1), GREY).tolist()
    [[0, 0, 0, 255], [128, 128, 128, 255], [0, 0, 0, 0]]
    """
    palette = np.array([[int(one[i : i + 2], 16) for i in (0, 2, 4)] for one in colours])
    level = (np.asarray(values, dtype=np.float64) - limits[0]) / (limits[1] - limits[0])
    there = np.isfinite(level)
    level = np.where(there, level, 0).clip(0, 1)
    made = np.zeros((*level.shape, 4), dtype=np.uint8)
    for channel in range(3):
        ends = np.linspace(0, 1, len(palette))
        made[..., channel] = np.rint(np.interp(level, ends, palette[:, channel]))
    made[..., 3] = 255 * there
    return made


def limits_of(values: ArrayLike, *, signed: bool = False) -> tuple[float, float]:
    """Limits for colours that outliers do not stretch: 1st and 99th percentile.

    Parameters
    ----------
    values : array-like
    signed : bool
        Whether zero is to lie in the middle.

    Examples
    --------
    >>> limits_of(np.arange(101.0))
    (1.0, 99.0)
    >>> limits_of(np.arange(-50.0, 101.0), signed=True)
    (-98.5, 98.5)
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if signed:
        most = float(np.percentile(np.abs(known), 99)) if len(known) else 1.0
        return -max(most, 1e-12), max(most, 1e-12)
    low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def wheel(size: int, shown: ArrayLike | None = None) -> NDArray[np.uint8]:
    """Draw the wheel of colours of directions.

    Parameters
    ----------
    size : int
        Height and width [px].
    shown : (2, 2) array-like, optional
        Direction (y, x) on the screen for each direction (y, x) that has the colours; by default
        they are the same.

    Returns
    -------
    (size, size, 4) uint8 array
        Clear outside the wheel.

    Examples
    --------
    >>> made = wheel(65)
    >>> [bytes(made[place][:3]).hex() for place in ((32, 60), (60, 32), (32, 4), (4, 32))]
    ['cba63a', 'c1587d', '8ba6fd', '50f5db']
    """
    at = (np.mgrid[:size, :size] - (size - 1) / 2) / ((size - 1) / 2)  # (2, S, S)
    radius = np.linalg.norm(at, axis=0)
    turned = np.eye(2) if shown is None else np.asarray(shown, dtype=np.float64)
    y, x = np.tensordot(np.linalg.inv(turned), at, axes=1)
    made = coloured(np.arctan2(y, x) % (2 * np.pi), (0, 2 * np.pi), (*ANGLES, ANGLES[0]))
    edge = (size - 1) / 2
    inside = np.minimum(1 - radius, radius - HOLE) * edge + 0.5
    made[..., 3] = np.rint(255 * inside.clip(0, 1))
    return made
