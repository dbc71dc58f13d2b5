"""Find atomic columns in a stack of images, frame by frame."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.atoms import (
    Candidates,
    FoundAtoms,
    automatic_threshold,
    candidates,
    select,
)
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import read_pixels
from napari_shiftvae.core.separation import estimate_separation

__all__ = ["StackAtoms", "all_frames", "find_atoms_in_stack"]

SAMPLED = 5  # frames that the settings of all are taken from


@dataclass(frozen=True, kw_only=True, eq=False)
class StackAtoms:
    """Columns found in all frames of a stack.

    Attributes
    ----------
    frame : (N,) int array
        Frame of each column, ascending.
    positions_yx : (N, 2) array
        Sub-pixel positions (y, x) [px], sorted by y, then x, within a frame.
    amplitude : (N,) array
        As `FoundAtoms` has it, in the units of the images' intensity: it shows fading.
    """

    frame: NDArray[np.int64]
    positions_yx: NDArray[np.float64]
    amplitude: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frame)


def find_atoms_in_stack(
    images: Sequence[ArrayLike] | NDArray[np.generic],
    *,
    separation_px: float | None = None,
    threshold: float | None = None,
    dark: bool = False,
    region: ArrayLike | None = None,
) -> Generator[FoundAtoms, None, None]:
    """Find atomic columns in each frame; to cancel, stop iterating.

    All frames are searched with one distance between columns and one threshold, so that a column
    comes or goes by its own strength and not because another threshold was chosen. The threshold
    is a fraction of a typical column of the same frame: a movie that fades as a whole keeps its
    columns, and `amplitude` tells how it fades.

    Parameters
    ----------
    images : (T, H, W) array or sequence of (H, W) arrays
        Also a dask or zarr array: frames are read one at a time.
    separation_px, threshold : float, optional
        As `find_atoms` takes them; by default the medians of what is chosen for five frames
        spread over the stack.
    dark, region
        As `find_atoms` takes them, for all frames.

    Yields
    ------
    FoundAtoms
        Of one frame after the other.

    Raises
    ------
    InputError
        The stack is empty, or a frame cannot be analysed; the message names it.

    Examples
    --------
    >>> y, x = np.mgrid[:90, :120]
    >>> image = np.cos(2 * np.pi * y / 15) + np.cos(2 * np.pi * (x - 7.3) / 15)
    >>> atoms = all_frames(find_atoms_in_stack([image, 0.5 * image]))
    >>> np.bincount(atoms.frame)
    array([40, 40])
    """
    if not len(images):
        raise InputError("The stack has no frame; choose one that has.")
    sample = np.unique(np.linspace(0, len(images) - 1, SAMPLED).round().astype(int))
    if separation_px is None:
        separation_px = _median_separation(images, sample, dark=dark, region=region)
    if threshold is None:
        chosen = [
            automatic_threshold(_candidates(images, index, separation_px, dark, region))
            for index in sample
        ]
        threshold = float(np.median(chosen))
    for index in range(len(images)):
        yield select(_candidates(images, index, separation_px, dark, region), threshold)


def all_frames(found: Iterable[FoundAtoms]) -> StackAtoms:
    """Put what was found frame by frame into one set of records.

    Parameters
    ----------
    found : iterable of FoundAtoms
        Of each frame, such as `find_atoms_in_stack` yields.

    Returns
    -------
    StackAtoms
    """
    frames = list(found)
    if not frames:
        raise InputError("There is no frame to put together; find atoms in at least one.")
    return StackAtoms(
        frame=np.repeat(np.arange(len(frames)), [len(one) for one in frames]),
        positions_yx=np.concatenate([one.positions_yx for one in frames]),
        amplitude=np.concatenate([one.amplitude for one in frames]),
    )


def _median_separation(
    images: Sequence[ArrayLike] | NDArray[np.generic],
    sample: NDArray[np.int64],
    *,
    dark: bool,
    region: ArrayLike | None,
) -> float:
    estimates, reason = [], None
    for index in sample:
        try:
            frame = read_pixels(images, index)
            estimates.append(estimate_separation(frame, dark=dark, region=region))
        except InputError as error:  # a blank frame at the end says nothing of the others
            reason = error
    if not estimates:
        raise InputError(f"In none of {len(sample)} frames looked at: {reason}") from reason
    return float(np.median(estimates))


def _candidates(
    images: Sequence[ArrayLike] | NDArray[np.generic],
    index: int,
    separation_px: float,
    dark: bool,
    region: ArrayLike | None,
) -> Candidates:
    try:
        return candidates(
            read_pixels(images, index), separation_px=separation_px, dark=dark, region=region
        )
    except InputError as error:
        raise InputError(f"Frame {index}: {error}") from None
