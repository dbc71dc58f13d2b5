"""A vector at every atom, with its true length and direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.displacement import significance

__all__ = ["VectorField"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorField:
    """A vector at every atom of a run.

    Attributes
    ----------
    start_yx, yx_px, sd_yx_px : (N, 2) arrays
        Where the atoms are, the vectors and their standard deviations (y, x) [px]; NaN where a
        vector is not known.
    sentence : str
        What it was measured from, what was removed.
    square_yx : tuple of float
        Height and width of a pixel over their geometric mean; (1, 1) where pixels are square.
    """

    start_yx: Floats
    yx_px: Floats
    sd_yx_px: Floats
    sentence: str
    square_yx: tuple[float, float] = (1.0, 1.0)

    @property
    def true_yx_px(self) -> Floats:
        """The vectors (N, 2) in square pixels of the same area: true lengths and directions."""
        return self.yx_px * self.square_yx

    @property
    def true_sd_yx_px(self) -> Floats:
        """Standard deviations (N, 2) of the vectors in square pixels."""
        return self.sd_yx_px * self.square_yx

    @property
    def length_px(self) -> Floats:
        """Lengths (N,) [square pixels]."""
        return np.asarray(np.linalg.norm(self.true_yx_px, axis=1))

    @property
    def angle_rad(self) -> Floats:
        """Directions (N,) from x towards y, from -pi to pi."""
        y, x = self.true_yx_px.T
        return np.asarray(np.arctan2(y, x))

    @property
    def significance(self) -> Floats:
        """Lengths (N,) over the standard deviation along them."""
        return significance(self.true_yx_px, self.true_sd_yx_px)
