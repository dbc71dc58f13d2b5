"""What a run says about its sample: vectors and scalars at every atom, with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from napari_shiftvae.core.displacement import Displacement, from_neighbours, from_reference
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lattice import Lattice, fit_lattice
from napari_shiftvae.core.lengths import PIXELS, Ruler, Unit
from napari_shiftvae.core.polarisation import (
    Polarisation,
    against_cage,
    against_neighbours,
    decoded,
    polar_deviation,
)
from napari_shiftvae.core.reference import Reference, image_reference, region_reference
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.scalars import Scalar, of_strain, of_table, of_vectors
from napari_shiftvae.core.strain import strain
from napari_shiftvae.core.trend import Kind as TrendKind
from napari_shiftvae.core.trend import remove_trend
from napari_shiftvae.core.vector_field import VectorField

VectorKind = Literal[
    "shift from the pick",
    "displacement from the lattice",
    "displacement from the neighbours",
    "polar displacement in the cage",
    "polar displacement between sublattices",
]
Position = Literal["whole pattern", "central atom"]

FARTHEST = 0.25  # of the distance to its cage: an atom this far from its middle is in no cage

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Options:
    """From which positions, and against what.

    Attributes
    ----------
    vectors : str
        What is measured from what; one of `VectorKind`.
    position : {"whole pattern", "central atom"}
        Which reading of the atoms' positions.
    trend : {"shift", "rigid", "affine", "rows"} or None
        What is removed from displacements, as `trend.remove_trend` takes it.
    """

    vectors: VectorKind = "polar displacement in the cage"
    position: Position = "central atom"
    trend: TrendKind | None = None

    def __post_init__(self) -> None:
        for name, kind in (("vectors", VectorKind), ("position", Position)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}: choose one of {', '.join(get_args(kind))}."
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class Readout:
    """Vectors and scalars of one run with one set of options.

    Attributes
    ----------
    options : Options
    field : VectorField
    scalars : dict of str to Scalar
        By name: components and length of the vectors, strain, rotation, latents, residual. Lengths
        are in pixels; where these are oblong, in square ones of the same area.
    sentences : tuple of str
        What was measured from what.
    """

    options: Options
    field: VectorField
    scalars: dict[str, Scalar]
    sentences: tuple[str, ...]


def read_out(
    run: Run,
    options: Options,
    *,
    inside: NDArray[np.bool_] | None = None,
    sublattice: NDArray[np.object_] | None = None,
    pixel_size_nm: tuple[float, float] | None = None,
    unit: Unit = "px",
) -> Readout:
    """Work out vectors and scalars at every atom.

    Parameters
    ----------
    run : Run
    options : Options
    inside : (N,) bool array, optional
        Atoms of a reference region, whose lattice counts as undisplaced and unstrained; by default
        the lattice of all atoms does.
    sublattice : (N,) array of str, optional
        Names of the atoms' sublattices, "" for none.
    pixel_size_nm : tuple of float, optional
        Height and width (y, x) of a pixel; by default what the run knows. Only their ratio counts
        here: lengths, directions, shear and rotation are those of the sample.
    unit : {"px", "pm", "nm", "angstrom"}
        Of lengths in the sentences; pixels where their size is not known.

    Returns
    -------
    Readout

    Raises
    ------
    InputError
        The quantity needs a lattice, or sublattices, and there are none.
    """
    positions, sd = _positions(run, options.position)
    reference, why = _reference(positions, _contrast(run, sublattice), inside)
    pixel_size_nm = pixel_size_nm or run.image.pixel_size_nm
    square, ruler = _square(pixel_size_nm), Ruler.of(unit, pixel_size_nm)
    found = replace(
        _vectors(run, options, reference, why, sublattice, ruler=ruler), square_yx=square
    )
    sentences = [found.sentence]
    if options.trend is not None:
        trend = remove_trend(
            found.start_yx * square,
            found.true_yx_px,
            options.trend,
            sd_yx_px=_known(found.true_sd_yx_px),
            ruler=ruler,
        )
        found = replace(
            found,
            yx_px=trend.yx_px / square,
            sd_yx_px=trend.sd_yx_px / square,
            sentence=f"{found.sentence} {trend.sentence}",
        )
        sentences.append(trend.sentence)
    scalars = of_vectors(found)
    if reference is not None:
        known = replace(reference, vectors_yx=reference.vectors_yx * square)
        strained = strain(positions * square, known, sd_yx_px=_known(sd) * square)
        sentences.append(strained.sentence)
        scalars += of_strain(strained)
    else:
        sentences.append(f"No strain: {why}.")
    scalars += of_table(run)
    return Readout(
        options=options,
        field=found,
        scalars={scalar.name: scalar for scalar in scalars},
        sentences=tuple(sentences),
    )


def _square(pixel_size_nm: tuple[float, float] | None) -> tuple[float, float]:
    """Height and width of a pixel over their geometric mean."""
    if pixel_size_nm is None:
        return 1.0, 1.0
    y, x = pixel_size_nm
    return (y / x) ** 0.5, (x / y) ** 0.5


def _positions(run: Run, position: Position) -> tuple[Floats, Floats]:
    """Positions and standard deviations, (N, 2) each [px]."""
    if position == "central atom":
        return run.atom_yx, _columns(run, "atom_y_sd_px", "atom_x_sd_px")
    shift = _columns(run, "shift_y_px", "shift_x_px")
    return run.picks_yx + shift, _columns(run, "shift_y_sd_px", "shift_x_sd_px")


def _polar_sd(run: Run, sublattice: NDArray[np.object_] | None) -> Floats:
    """Standard deviations of central atoms against their cages, (N, 2) [px]."""
    if "polar_y_px" in run.atoms:
        return _columns(run, "polar_y_sd_px", "polar_x_sd_px")
    # files of earlier versions, whose deviations hold no error of the decoder
    if "polar_y_sd_px" in run.atoms:
        sd = _columns(run, "polar_y_sd_px", "polar_x_sd_px")
        return polar_deviation(sd, run.model.config.latent_dim, sublattice=sublattice)
    # as if the two were independent, which is on the safe side
    return np.hypot(*(_positions(run, which)[1] for which in get_args(Position)))


def _columns(run: Run, *names: str) -> Floats:
    return run.atoms[list(names)].to_numpy(dtype=np.float64)


def _contrast(run: Run, sublattice: NDArray[np.object_] | None) -> Floats | None:
    """What tells sublattices apart, (N,) above zero: their names, else the image at the picks."""
    names = [] if sublattice is None else sorted(set(sublattice.tolist()) - {""})
    if sublattice is not None and len(names) > 1:
        ranks = {name: 2.0 ** (len(names) - rank) for rank, name in enumerate(names)}
        return np.array([ranks.get(name, 1.0) for name in sublattice.tolist()])
    if run.training is None:
        return None
    patches = run.training.patches
    y, x = np.rint(patches.pick_yx).astype(int).T
    bright = patches.frames[patches.frame, y, x].astype(np.float64)
    bright = -bright if run.config.dark else bright
    contrast = np.full(len(run.atoms), np.nan)
    contrast[patches.index] = bright - bright.min() + np.ptp(bright) / 10 + 1e-12
    return contrast


def _reference(
    positions: Floats, contrast: Floats | None, inside: NDArray[np.bool_] | None
) -> tuple[Reference | None, str]:
    """Return the reference lattice, or None and why there is none."""
    usable = positions
    if contrast is not None:
        usable = np.where(np.isfinite(contrast)[:, None], positions, np.nan)
        contrast = np.where(np.isfinite(contrast), contrast, 1.0)
    lattice = fit_lattice(usable, amplitude=contrast)
    if not isinstance(lattice, Lattice):
        return None, lattice.reason
    if inside is None:
        return image_reference(positions, lattice), ""
    return region_reference(positions, lattice, inside), ""


def _vectors(
    run: Run,
    options: Options,
    reference: Reference | None,
    why: str,
    sublattice: NDArray[np.object_] | None,
    *,
    ruler: Ruler,
) -> VectorField:
    positions, sd = _positions(run, options.position)
    cage, _ = _positions(run, "whole pattern")
    found: Displacement | Polarisation
    if options.vectors == "shift from the pick":
        sentence = f"Shift of the {options.position} from the pick."
        return VectorField(
            start_yx=run.picks_yx, yx_px=positions - run.picks_yx, sd_yx_px=sd, sentence=sentence
        )
    if options.vectors == "polar displacement in the cage":
        found = polar_in_cage(run, sublattice, ruler)
        positions = cage
    elif options.vectors == "polar displacement between sublattices":
        found = _between(positions, sd, sublattice)
    elif reference is None:
        raise InputError(f"There is no {options.vectors}: {why}.")
    elif options.vectors == "displacement from the lattice":
        found = from_reference(positions, reference, sd_yx_px=_known(sd))
        assert reference.places_yx is not None  # noqa: S101 - both references have places
        positions = reference.places_yx
    else:
        found = from_neighbours(positions, reference.vectors_yx, sd_yx_px=_known(sd))
    start = np.where(np.isfinite(positions), positions, run.picks_yx)
    return VectorField(
        start_yx=start, yx_px=found.yx_px, sd_yx_px=found.sd_yx_px, sentence=found.sentence
    )


def polar_in_cage(
    run: Run, sublattice: NDArray[np.object_] | None = None, ruler: Ruler = PIXELS
) -> Polarisation:
    """Central atoms in their cages: by geometry where most windows hold these whole.

    Parameters
    ----------
    run : Run
        Of N atoms.
    sublattice : (N,) array of str, optional
        Names of the atoms' sublattices, "" for none.
    ruler : Ruler
        In which unit the sentence has lengths.

    Returns
    -------
    Polarisation
    """
    polar = run.polar_yx
    known = np.isfinite(polar).all(axis=1)
    if known.sum() > 0.5 * np.isfinite(run.atom_yx).all(axis=1).sum():
        names = [f"polar_{axis}_shared_sd_px" for axis in "yx"]
        shared = run.atoms.reindex(columns=names).to_numpy(dtype=np.float64)
        return decoded(polar, _polar_sd(run, sublattice), shared, ruler=ruler)
    sd = _known(_polar_sd(run, sublattice))
    cage, _ = _positions(run, "whole pattern")
    found = against_cage(run.atom_yx, cage, sublattice=sublattice, sd_yx_px=sd, ruler=ruler)
    why = (
        "The run is of an earlier version, whose zero is no property of the image."
        if "polar_y_px" not in run.atoms
        else "The windows do not hold the nearest neighbours of most atoms whole: a zero that is a "
        f"property of the image may come with patches of {2 * round(1.25 * run.separation_px)} px "
        "and own patterns for the sublattices."
    )
    return replace(found, sentence=f"{found.sentence} {why}")


def _between(positions: Floats, sd: Floats, sublattice: NDArray[np.object_] | None) -> Polarisation:
    names = [] if sublattice is None else sorted(set(sublattice.tolist()) - {""})
    if len(names) < 2 or sublattice is None:
        raise InputError(
            "There are no two sublattices: press Group in the Atoms tab, or name some atoms there."
        )
    cage = sublattice == names[0]
    inside = np.isin(sublattice, names[1:])
    finite = np.isfinite(positions).all(axis=1)
    cage, inside = cage & finite, inside & finite
    part = against_neighbours(
        positions[inside], positions[cage], sd_yx_px=sd[inside], cage_sd_yx_px=sd[cage]
    )
    nearest = np.median(KDTree(positions[cage]).query(positions[inside])[0])
    away = np.nanmedian(np.linalg.norm(part.yx_px, axis=1)) / nearest
    if away > FARTHEST:
        raise InputError(
            f"The atoms of {names[0]} do not surround the others, which lie {away:.0%} of their "
            "distance from the middle of the nearest ones: give all atoms that make the cages one "
            "name, the first in the alphabet, in the Atoms tab."
        )
    vectors, deviations = np.full_like(positions, np.nan), np.full_like(positions, np.nan)
    vectors[inside], deviations[inside] = part.yx_px, part.sd_yx_px
    return replace(part, yx_px=vectors, sd_yx_px=deviations)


def _known(sd: Floats) -> Floats:
    """Standard deviations with those that are missing as large as the largest."""
    finite = sd[np.isfinite(sd)]
    return np.where(np.isfinite(sd), sd, finite.max(initial=0.0))
