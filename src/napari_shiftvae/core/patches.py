"""Square windows of an image, cut on whole pixels and gathered batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_shiftvae.core.errors import InputError

Normalisation = Literal["flat", "global", "patch"]

SMALLEST_PATCH_PX = 6
DUPLICATE_PX = 0.5
MOST_MASKED = 0.2  # of a window: with more, what is left does not tell a pattern
FAR_PX = 1e9  # beyond any image, and still a whole number


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """Where the windows of an analysis lie; their pixels stay in the image.

    Attributes
    ----------
    frames : (T, H, W) float32 array
        The image, or the frames of a stack, in its own intensity unit.
    frame : (N,) int array
        Frame of each window.
    corner_yx : (N, 2) int array
        First pixel (y, x) of each window.
    remainder_yx_px : (N, 2) float array
        Pick minus centre of its window, (y, x) pixels, within half a pixel.
    patch_size_px : int
        Side of the windows in pixels.
    index : (N,) int array
        Row of the pick that each window belongs to.
    set_aside : (M,) str array
        For each of the M picks, why it has no window: ``"border"``, ``"masked"`` (more than a fifth
        is NaN), ``"duplicate"``, or ``""`` for the N picks that have one.
    offset, scale : (N,) float32 arrays
        Intensities are handed out as ``(pixel - offset) / scale``.
    given : (N, C) float32 tensor or None
        Given class of each window, 1 in the column of its own.
    masked : (T, H, W) bool array or None
        Pixels that do not count; `frames` holds there what is nearest. None where all count.
    """

    frames: NDArray[np.float32]
    frame: NDArray[np.int64]
    corner_yx: NDArray[np.int64]
    remainder_yx_px: NDArray[np.float64]
    patch_size_px: int
    index: NDArray[np.int64]
    set_aside: NDArray[np.str_]
    offset: NDArray[np.float32]
    scale: NDArray[np.float32]
    given: torch.Tensor | None = None
    masked: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def weight(self) -> None:
        """All pixels count alike."""
        return

    @property
    def centre_yx(self) -> NDArray[np.float64]:
        """Centres of the windows, (N, 2) pixels (y, x)."""
        return self.corner_yx.astype(np.float64) + (self.patch_size_px - 1) / 2

    @property
    def pick_yx(self) -> NDArray[np.float64]:
        """Picks that the windows were cut around, (N, 2) pixels (y, x)."""
        return self.centre_yx + self.remainder_yx_px

    def weigh(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Tell which pixels of some windows count, (B, P, P) bool; None where all do."""
        if self.masked is None:
            return None
        masked = self._windows(self.masked, rows.numpy())
        return torch.from_numpy(~masked) if masked.any() else None

    def beyond(self, rows: torch.Tensor) -> None:
        """Windows hold all their values."""

    def _windows(self, of: NDArray[Any], rows: NDArray[np.int64] | slice) -> NDArray[Any]:
        """Copy windows (B, P, P) of something on the pixels of the frames."""
        size = self.patch_size_px
        view = np.lib.stride_tricks.sliding_window_view(of, (size, size), axis=(1, 2))
        y, x = self.corner_yx[rows].T
        return np.asarray(view[self.frame[rows], y, x])

    def gather(self, rows: ArrayLike | slice = slice(None)) -> torch.Tensor:
        """Copy the normalised pixels of some windows.

        Parameters
        ----------
        rows : (B,) int array-like or slice
            Which windows.

        Returns
        -------
        (B, P, P) float32 tensor
        """
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        pixels = self._windows(self.frames, rows)
        pixels -= self.offset[rows, None, None]
        pixels /= self.scale[rows, None, None]
        return torch.from_numpy(pixels)


def default_patch_size(separation_px: float) -> int:
    """Window that holds an atom and the ring of its nearest neighbours.

    Parameters
    ----------
    separation_px : float
        Nearest-neighbour distance in pixels.

    Returns
    -------
    int
        Even number of pixels.

    Examples
    --------
    >>> default_patch_size(19.0)
    40
    """
    return max(8, 2 * round(1.05 * separation_px))


def one_atom_patch_size(separation_px: float) -> int:
    """Window that holds an atom and none of its neighbours, to tell what kind it is.

    Parameters
    ----------
    separation_px : float
        Nearest-neighbour distance in pixels.

    Returns
    -------
    int
        Even number of pixels.

    Examples
    --------
    >>> one_atom_patch_size(19.0)
    16
    """
    return max(SMALLEST_PATCH_PX, 2 * round(0.42 * separation_px))


def extract_patches(
    image: NDArray[np.float32],
    positions_yx: ArrayLike,
    patch_size_px: int,
    *,
    normalisation: Normalisation = "flat",
) -> Patches:
    """Cut a window around each pick.

    Windows lie on whole pixels; the sub-pixel rest of the pick is kept in ``remainder_yx_px``.
    Picks whose window leaves the image, is NaN for more than a fifth, or which repeat an earlier
    pick are set aside with the reason. Pixels that are NaN in the other windows do not count.

    Parameters
    ----------
    image : (H, W) float32 array
        NaN marks pixels to leave out.
    positions_yx : (M, 2) array-like
        Picks (y, x) in pixels; (0, 0) is the centre of the first pixel.
    patch_size_px : int
        Side of the windows in pixels, even or odd.
    normalisation : {"flat", "global", "patch"}
        ``"flat"`` takes the slow background (wider than a window) off the image, so that
        contamination and thickness do not drown the atoms, and uses one scale for all windows;
        ``"global"`` uses one offset and scale and leaves the background; ``"patch"`` gives each
        window its own offset and scale, and differences of contrast are lost.

    Returns
    -------
    Patches

    Raises
    ------
    InputError
        If the window does not fit the image, a position is not finite, or no window is left.

    Examples
    --------
    >>> image = np.arange(400.0, dtype=np.float32).reshape(20, 20)
    >>> patches = extract_patches(image, [[9.7, 10.0], [1.0, 1.0]], 7)
    >>> len(patches), patches.set_aside.tolist()
    (1, ['', 'border'])
    """
    height, width = image.shape
    if not SMALLEST_PATCH_PX <= patch_size_px <= min(height, width):
        raise InputError(
            f"The patch size of {patch_size_px} px does not fit: choose one between "
            f"{SMALLEST_PATCH_PX} and {min(height, width)} px for this image of "
            f"{height} x {width} px."
        )
    picks = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(picks).all():
        first = int(np.isfinite(picks).all(axis=1).argmin()) + 1
        raise InputError(f"Position {first} is not finite: give every atom a finite y and x.")
    picks = picks.clip(-FAR_PX, FAR_PX)
    corner = np.rint(picks - (patch_size_px - 1) / 2).astype(np.int64)
    remainder = picks - (corner + (patch_size_px - 1) / 2)
    set_aside = _reasons(image, picks, corner, patch_size_px)
    index = np.flatnonzero(set_aside == "")
    if not len(index):
        raise InputError(_nothing_left(set_aside, patch_size_px))
    count = len(index)
    if normalisation == "flat":
        image = image - slow_background(image, patch_size_px)
    image, masked = _filled(image)
    patches = Patches(
        frames=image[np.newaxis],
        masked=None if masked is None else masked[np.newaxis],
        frame=np.zeros(count, dtype=np.int64),
        corner_yx=corner[index],
        remainder_yx_px=remainder[index],
        patch_size_px=patch_size_px,
        index=index,
        set_aside=set_aside,
        offset=np.zeros(count, dtype=np.float32),
        scale=np.ones(count, dtype=np.float32),
    )
    _normalise(patches, normalisation)
    return patches


def _filled(
    image: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Give masked pixels the nearest value, which is harmless to an encoder, and say which."""
    masked = ~np.isfinite(image)
    if not masked.any():
        return image, None
    at = ndimage.distance_transform_edt(masked, return_distances=False, return_indices=True)
    return image[tuple(at)], masked


def slow_background(image: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Smooth an image with three box filters, near enough to a Gaussian.

    Parameters
    ----------
    image : (H, W) float32 array
        NaN is left out of the averages.
    sigma_px : float
        Standard deviation of the Gaussian [px].

    Returns
    -------
    (H, W) float32 array
    """
    valid = np.isfinite(image)
    middle = np.median(image[valid])
    smooth = np.where(valid, image - middle, 0).astype(np.float32)
    weight = valid.astype(np.float32)
    width = max(1, round(2 * sigma_px))  # three boxes of width w have variance (w^2 - 1) / 4
    for _ in range(3):
        smooth = ndimage.uniform_filter(smooth, width)
        weight = ndimage.uniform_filter(weight, width)
    return np.asarray(smooth / np.maximum(weight, 1e-6) + middle, dtype=np.float32)


def stack_patches(stack: NDArray[np.float32]) -> Patches:
    """Take ready-made windows, all picked at their centres.

    Parameters
    ----------
    stack : (N, P, P) float32 array
        The windows.

    Returns
    -------
    Patches
    """
    count, height, width = stack.shape
    if height != width:
        raise InputError(
            f"The patches are {height} x {width} px: cut square ones, for example "
            f"{min(height, width)} x {min(height, width)} px."
        )
    patches = Patches(
        frames=stack,
        frame=np.arange(count),
        corner_yx=np.zeros((count, 2), dtype=np.int64),
        remainder_yx_px=np.zeros((count, 2)),
        patch_size_px=width,
        index=np.arange(count),
        set_aside=np.full(count, "", dtype="<U9"),
        offset=np.zeros(count, dtype=np.float32),
        scale=np.ones(count, dtype=np.float32),
    )
    _normalise(patches, "global")
    return patches


def _reasons(
    image: NDArray[np.float32],
    picks: NDArray[np.float64],
    corner: NDArray[np.int64],
    size: int,
) -> NDArray[np.str_]:
    reasons = np.full(len(picks), "", dtype="<U9")
    if not len(picks):
        return reasons
    outside = (corner < 0).any(axis=1) | (corner + size > image.shape).any(axis=1)
    reasons[outside] = "border"
    invalid = ~np.isfinite(image)
    if invalid.any():
        # Integral image: NaN pixels in any window by four look-ups.
        total = np.pad(invalid.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        y, x = corner[~outside].T
        inside = total[y + size, x + size] - total[y, x + size] - total[y + size, x] + total[y, x]
        reasons[np.flatnonzero(~outside)[inside > MOST_MASKED * size**2]] = "masked"
    for earlier, later in sorted(cKDTree(picks).query_pairs(DUPLICATE_PX)):
        if not reasons[earlier]:
            reasons[later] = "duplicate"
    return reasons


def _nothing_left(set_aside: NDArray[np.str_], size: int) -> str:
    if not len(set_aside):
        return "There are no atoms to cut patches around: find atoms or click some first."
    if (set_aside == "border").all():
        return (
            f"All {len(set_aside)} atoms lie too near the border for patches of {size} px: "
            "choose a smaller patch size."
        )
    return (
        f"None of the {len(set_aside)} atoms has a patch of {size} px inside the image and with "
        "few masked pixels: choose a smaller patch size or other atoms."
    )


def _normalise(patches: Patches, normalisation: Normalisation) -> None:
    """Fill offset and scale, reading the windows in pieces."""
    count = len(patches)
    mean = np.empty(count)
    variance = np.empty(count)
    for rows in np.array_split(np.arange(count), -(-count // 1024)):
        window = patches.gather(rows).to(torch.float64)
        mean[rows] = window.mean(dim=(1, 2)).numpy()
        variance[rows] = window.var(dim=(1, 2), correction=0).numpy()
    if normalisation != "patch":
        variance[:] = variance.mean() + mean.var()
        mean[:] = mean.mean()
    scale = np.sqrt(variance)
    if not scale.min() > 0:
        raise InputError(
            "Some patches are flat, with one value in all pixels: choose atoms inside the "
            "structure, or use global normalisation."
        )
    patches.offset[:] = mean
    patches.scale[:] = scale
