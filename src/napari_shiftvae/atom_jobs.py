"""How atoms are found for the Atoms tab and the command line, in an image or frame by frame. No Qt.

A job that goes through many frames is a generator that yields how far it is, so that it can be
cancelled between two frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image, read_pixels
from napari_shiftvae.picks import Picks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.atoms import Candidates, FoundAtoms
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.settings import FindSettings

Region = "NDArray[np.bool_] | None"


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a job is: done frames of all."""

    done: int
    frames: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Atoms found, in an image, in one frame, or in all frames of a stack.

    Attributes
    ----------
    picks : Picks
    separation_px, threshold : float
        That were used.
    frame : int or None
        The only one that was looked at, None where all were.
    possible : Candidates or None
        What a threshold can choose among without looking at the image again.
    """

    picks: Picks
    separation_px: float
    threshold: float
    frame: int | None
    possible: Candidates | None


def frame_of(image: MicroscopeImage, t: int) -> NDArray[np.float32]:
    """Return an image, or one frame of a stack, as the core takes it."""
    return as_float_image(image.data if image.data.ndim == 2 else read_pixels(image.data, t))


def find(
    image: MicroscopeImage, settings: FindSettings, region: Region, frame: int | None
) -> Generator[Step, None, Found]:
    """Find atoms in an image or a frame of a stack; in all its frames where `frame` is None."""
    from napari_shiftvae.core.atoms import candidates

    if image.data.ndim == 2 or frame is not None:
        t = frame or 0
        possible = candidates(
            frame_of(image, t),
            separation_px=settings.separation_px,
            dark=settings.dark,
            region=region,
        )
        yield Step(done=1, frames=1)
        return choose(possible, settings.threshold, t)
    return (yield from _find_in_all(image, settings, region))


def _find_in_all(
    image: MicroscopeImage, settings: FindSettings, region: Region
) -> Generator[Step, None, Found]:
    from napari_shiftvae.core.stacks import find_atoms_in_stack

    frames: list[FoundAtoms] = []
    parts = []
    with _quietly():
        for found in find_atoms_in_stack(
            image.data,
            separation_px=settings.separation_px,
            threshold=settings.threshold,
            dark=settings.dark,
            region=region,
        ):
            parts.append(Picks.of(found.positions_yx, by_hand=False, t=len(frames)))
            frames.append(found)
            yield Step(done=len(frames), frames=len(image.data))
    table = pd.concat([part.table for part in parts], ignore_index=True)
    return Found(
        picks=Picks(table=table),
        separation_px=frames[0].separation_px,
        threshold=float(np.median([found.threshold for found in frames])),
        frame=None,
        possible=None,
    )


def choose(possible: Candidates, threshold: float | None, t: int) -> Found:
    """Choose among the places found; fast enough to follow a slider."""
    from napari_shiftvae.core.atoms import select

    with _quietly():  # an empty result is said in the dock
        found = select(possible, threshold)
    return Found(
        picks=Picks.of(found.positions_yx, by_hand=False, t=t),
        separation_px=found.separation_px,
        threshold=found.threshold,
        frame=t,
        possible=possible,
    )


def check_frames(image: MicroscopeImage, picks: Picks) -> None:
    """Refuse positions of frames that an image has not."""
    frames = 1 if image.data.ndim == 2 else len(image.data)
    last = int(picks.t.max(initial=0))
    if last >= frames or int(picks.t.min(initial=0)) < 0:
        raise InputError(
            f"The positions belong to frames up to {last}, and '{image.name}' has "
            f"{frames} frame{'s' if frames > 1 else ''}: choose the stack that they are of."
        )


class _quietly(warnings.catch_warnings):  # noqa: N801 - used like a function
    """While entered, warnings are not shown: what they are about is said in the dock."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
