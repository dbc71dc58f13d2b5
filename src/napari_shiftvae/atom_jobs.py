"""What the Atoms tab has done in a thread: the core's calls on an image or frame by frame. No Qt.

A job that goes through many frames is a generator that yields how far it is, so that it can be
cancelled between two frames.
"""

from __future__ import annotations

import string
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image
from napari_shiftvae.picks import SUBLATTICE, Picks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.atoms import Candidates, FoundAtoms
    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.similar import Similar
    from napari_shiftvae.core.sublattices import Criterion
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Changed:
    """Picks after a step, and a sentence about it."""

    picks: Picks
    sentence: str


def frame_of(image: MicroscopeImage, t: int) -> NDArray[np.float32]:
    """Return an image, or one frame of a stack, as the core takes it."""
    return as_float_image(image.data if image.data.ndim == 2 else np.asarray(image.data[t]))


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
            **({} if region is None else {"region": region}),
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


def refine(
    image: MicroscopeImage, picks: Picks, separation_px: float | None, dark: bool
) -> Generator[Step, None, Changed]:
    """Fit a Gaussian to every atom."""
    new = yield from _refined(image, picks, separation_px, dark)
    flagged = int((new.table["flag"] != "").sum())
    sentence = f"Refined {len(new) - flagged} of {len(new)} atoms"
    sd = new.table.loc[new.table["flag"] == "", ["y_sd_px", "x_sd_px"]].to_numpy(dtype=float)
    if len(sd):
        sentence += f" to {np.sqrt((np.median(sd, axis=0) ** 2).mean()):.3f} px (median, per axis)"
    if flagged:
        sentence += f"; {flagged} stay where they were, marked with the reason"
    return Changed(picks=new, sentence=f"{sentence}.")


def _refined(
    image: MicroscopeImage, picks: Picks, separation_px: float | None, dark: bool
) -> Generator[Step, None, Picks]:
    from napari_shiftvae.core.gaussians import refine_gaussians

    frames = np.unique(picks.t)
    parts = []
    for done, t in enumerate(frames, start=1):
        rows = np.flatnonzero(picks.t == t)
        fits = refine_gaussians(
            frame_of(image, t), picks.positions_yx[rows], separation_px=separation_px, dark=dark
        )
        parts.append(fits.table().set_axis(rows))
        yield Step(done=done, frames=len(frames))
    return picks.with_measured(pd.concat(parts).sort_index())


def group(
    image: MicroscopeImage,
    picks: Picks,
    separation_px: float | None,
    dark: bool,
    by: Sequence[Criterion],
) -> Generator[Step, None, Changed]:
    """Sort the atoms of each frame into sublattices A, B, ..., from the strongest one on."""
    from napari_shiftvae.core.sublattices import group_atoms

    measured = yield from _measured(image, picks, separation_px, dark)
    names = np.full(len(measured), "", dtype=object)
    told = ""
    for t in np.unique(measured.t):
        rows = np.flatnonzero(measured.t == t)
        groups = group_atoms(measured.table.iloc[rows].reset_index(drop=True), by=by)
        named = groups.label >= 0
        names[rows[named]] = [letter(number) for number in groups.label[named]]
        told = groups.reason
    new = measured.with_measured(pd.DataFrame({SUBLATTICE: names}))
    counts = ", ".join(f"{name} {int((names == name).sum())}" for name in new.sublattices)
    return Changed(picks=new, sentence=f"Sublattices by {told}: {counts or 'none'}.")


def beneath(
    image: MicroscopeImage, picks: Picks, separation_px: float | None, dark: bool
) -> Generator[Step, None, Changed]:
    """Find the weaker sublattice that is left when the atoms known so far are taken out."""
    from napari_shiftvae.core.sublattices import find_beneath

    new = yield from _measured(image, picks, separation_px, dark)
    table = new.table
    if not new.sublattices:
        new = Picks(table=table.assign(**{SUBLATTICE: letter(0)}))
    name, count = free_letter(new), 0
    for t in np.unique(picks.t):
        known = new.table[new.t == t]
        found = find_beneath(frame_of(image, t), known, dark=dark)
        more = Picks.of(found.positions_yx, by_hand=False, t=t, sublattice=name)
        count += len(more)
        new = new.with_more(more, 1.0)
    if not count:
        return Changed(picks=picks, sentence="Nothing was found beneath the atoms there are.")
    return Changed(picks=new, sentence=f"Found {count} weaker atoms beneath: sublattice {name}.")


def _measured(
    image: MicroscopeImage, picks: Picks, separation_px: float | None, dark: bool
) -> Generator[Step, None, Picks]:
    """Return the picks with fitted Gaussians, anew where some have none."""
    table = picks.table
    if {"amplitude", "flag"} <= set(table) and not (
        table["amplitude"].isna() & (table["flag"] == "")
    ).any():
        return picks
    return (yield from _refined(image, picks, separation_px, dark))


def similar(
    image: MicroscopeImage,
    t: int,
    examples_yx: NDArray[np.float64],
    separation_px: float | None,
) -> Similar:
    """Find all places of a frame that look like the examples."""
    from napari_shiftvae.core.similar import find_similar

    return find_similar(frame_of(image, t), examples_yx, separation_px=separation_px)


def letter(number: int) -> str:
    """Name the sublattices A, B, ..., Z, A1, B1, ...

    Examples
    --------
    >>> letter(0), letter(27)
    ('A', 'B1')
    """
    again, place = divmod(number, 26)
    return string.ascii_uppercase[place] + (str(again) if again else "")


def free_letter(picks: Picks) -> str:
    """Return the first letter that no sublattice has."""
    names = set(picks.sublattices)
    return next(name for name in map(letter, range(len(names) + 1)) if name not in names)


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
