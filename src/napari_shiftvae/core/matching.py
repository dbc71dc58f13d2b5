"""Where in an image a pattern is found: correlation that looks at the middle of a window most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial import cKDTree

__all__ = ["Matcher", "best_first"]

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matcher:
    """An image prepared for correlation with patterns of one size.

    Attributes
    ----------
    shape : (int, int)
        Of the map of scores: one score for each place of a window that is wholly in the image.
    padded : (int, int)
        Of the Fourier transforms.
    spectrum : complex array
        Fourier transform of the image, its mean taken off.
    spread : (h, w) float32 array
        Weighted standard deviation of the image in each window.
    weight : (P, P) float32 array
        Of the pixels of a window; they sum to 1.
    """

    shape: tuple[int, int]
    padded: tuple[int, int]
    spectrum: NDArray[np.complex64]
    spread: FloatImage
    weight: FloatImage

    @classmethod
    def of(cls, image: FloatImage, size_px: int, sigma_px: float) -> Matcher:
        """Prepare an image.

        Parameters
        ----------
        image : (H, W) float32 array
            Without NaN.
        size_px : int
            Side P of the windows [px].
        sigma_px : float
            Standard deviation of the Gaussian weight about the middle of a window [px].

        Returns
        -------
        Matcher
        """
        pixel = np.arange(size_px) - (size_px - 1) / 2
        along = np.exp(-(pixel**2) / (2 * sigma_px**2))
        along = (along / along.sum()).astype(np.float32)
        flat = image - image.mean(dtype=np.float64).astype(np.float32)
        flat /= flat.std() or 1
        first = (size_px - 1) // 2
        height, width = (length - size_px + 1 for length in image.shape)
        windows = np.s_[first : first + height, first : first + width]
        origin = 0 if size_px % 2 else -1  # an even filter's middle lies after its window's
        mean, square = (
            ndimage.correlate1d(
                ndimage.correlate1d(each, along, axis=0, origin=origin),
                along,
                axis=1,
                origin=origin,
            )[windows]
            for each in (flat, flat**2)
        )
        padded = (fft.next_fast_len(image.shape[0], True), fft.next_fast_len(image.shape[1], True))
        return cls(
            shape=(height, width),
            padded=padded,
            spectrum=fft.rfft2(flat, padded),
            spread=np.sqrt(np.maximum(square - mean**2, 1e-6)),
            weight=np.outer(along, along),
        )

    def score(self, pattern: FloatImage) -> FloatImage:
        """Correlation coefficient, with the weights, of a pattern and the window at each place.

        Parameters
        ----------
        pattern : (P, P) float32 array

        Returns
        -------
        (h, w) float32 array
            -1 to 1; entry (y, x) belongs to the window whose first pixel is (y, x).
        """
        varies = pattern - (self.weight * pattern).sum()
        kernel = self.weight * varies
        product = self.spectrum * np.conj(fft.rfft2(kernel, self.padded))
        overlap = fft.irfft2(product, self.padded)[: self.shape[0], : self.shape[1]]
        length = np.sqrt((kernel * varies).sum()) or 1
        return np.asarray(overlap / (length * self.spread), dtype=np.float32)


def best_first(score: FloatImage, apart_px: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positive maxima, each farther than some distance from all better ones.

    Parameters
    ----------
    score : (h, w) array
    apart_px : float
        The distance [px].

    Returns
    -------
    places : (M, 2) int array
        (y, x) [px], the best first; none on the border, where the score may still rise beyond it.
    value : (M,) array
        The score there.
    """
    highest = ndimage.maximum_filter(score, size=2 * max(1, int(apart_px / 2)) + 1) == score
    highest[[0, -1]] = False
    highest[:, [0, -1]] = False
    places = np.argwhere(highest & (score > 0))
    order = np.argsort(-score[tuple(places.T)], kind="stable")
    places = places[order]
    keep = np.ones(len(places), dtype=bool)
    if len(places):
        pairs = cKDTree(places).query_pairs(apart_px, output_type="ndarray")
        for better, worse in pairs[np.argsort(pairs[:, 0], kind="stable")]:
            if keep[better]:
                keep[worse] = False
    return places[keep], score[tuple(places[keep].T)]
