"""What the Atoms tab and the command line have measured of atoms that were found. No Qt.

Like `atom_jobs`, these go frame by frame and yield how far they are.
"""

from __future__ import annotations

import string
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from napari_shiftvae.atom_jobs import Step, frame_of
from napari_shiftvae.picks import SUBLATTICE, Picks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.images import Calibration, MicroscopeImage
    from napari_shiftvae.core.lattice import Lattice
    from napari_shiftvae.core.similar import Similar
    from napari_shiftvae.core.sublattices import Criterion

# Columns of the atoms' table that say where they are on the lattice; NaN where they are on none.
ON_LATTICE = ("lattice_a", "lattice_b", "basis", "reference_y_px", "reference_x_px")


@dataclass(frozen=True, kw_only=True, eq=False)
class Changed:
    """Picks after a step, and a sentence about it."""

    picks: Picks
    sentence: str


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
    *,
    stay: bool = False,
) -> Generator[Step, None, Changed]:
    """Sort the atoms of each frame into sublattices A, B, ..., from the strongest one on.

    Where they are to `stay`, such as those of a run, whose layer they share, they are named where
    they are, and what was measured for it is forgotten.
    """
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
    new = (picks if stay else measured).with_measured(pd.DataFrame({SUBLATTICE: names}))
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


@dataclass(frozen=True, kw_only=True, eq=False)
class OnLattice:
    """Picks with their places on the lattice.

    Attributes
    ----------
    picks : Picks
    sentence : str
        The lattice in words, or why there is none.
    vacancies_yx : (V, 2) array
        Sites without an atom [px].
    frame : int
    """

    picks: Picks
    sentence: str
    vacancies_yx: NDArray[np.float64]
    frame: int


def lattice(
    image: MicroscopeImage, picks: Picks, separation_px: float | None, dark: bool, frame: int
) -> Generator[Step, None, OnLattice]:
    """Fit a lattice to the atoms of one frame; those that cannot be refined do not count."""
    from napari_shiftvae.core.lattice import NoLattice, fit_lattice

    picks = yield from _measured(image, picks, separation_px, dark)
    amplitude = picks.table["amplitude"].to_numpy()
    here = np.flatnonzero(picks.t == frame)
    rows = here[amplitude[here] > 0]
    fitted = fit_lattice(picks.positions_yx[rows], amplitude=amplitude[rows])
    columns = np.full((len(picks), len(ON_LATTICE)), np.nan)
    if isinstance(fitted, NoLattice):
        sentence, vacancies = f"{fitted.reason.capitalize()}.", np.empty((0, 2))
    else:
        on = fitted.basis >= 0
        columns[rows[on]] = np.column_stack(
            [fitted.index[on], fitted.basis[on], fitted.reference_yx[on]]
        )
        vacancies = _empty(fitted.vacancy_yx, picks.positions_yx[here])
        sentence = _describe(fitted, len(vacancies), image.calibration)
    return OnLattice(
        picks=picks.with_measured(pd.DataFrame(columns, columns=list(ON_LATTICE))),
        sentence=sentence,
        vacancies_yx=vacancies,
        frame=frame,
    )


def _empty(sites_yx: NDArray[np.float64], atoms_yx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sites without an atom; those of atoms that could not be fitted are no vacancies."""
    from napari_shiftvae.core.lattice import neighbour_distance

    distance = np.asarray(KDTree(atoms_yx).query(sites_yx)[0])
    return sites_yx[distance > 0.5 * neighbour_distance(atoms_yx)]


def _describe(lattice: Lattice, vacancies: int, calibration: Calibration | None) -> str:
    """Say a lattice in words, with lengths in nm where the size of a pixel is known."""
    lengths = [f"{np.linalg.norm(vector):.2f} px" for vector in (lattice.a_yx, lattice.b_yx)]
    a, b = lattice.a_yx, lattice.b_yx
    rms = f"{lattice.rms_px:.2f} px"
    if calibration is not None:
        size = np.array(calibration.pixel_size_nm)
        a, b = a * size, b * size
        lengths = [
            f"{text} ({np.linalg.norm(vector):.4f} nm)"
            for text, vector in zip(lengths, (a, b), strict=True)
        ]
    angle = np.rad2deg(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    atoms = len(lattice.basis_yx)
    return (
        f"a = {lengths[0]}, b = {lengths[1]}, angle {angle:.2f}°, {atoms} "
        f"atom{'s' if atoms > 1 else ''} per cell; atoms lie {rms} from their sites (RMS). "
        f"Vacancies: {vacancies}; atoms on no site: {len(lattice.extra)}."
    )


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
