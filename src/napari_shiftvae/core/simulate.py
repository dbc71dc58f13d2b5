"""Simulated images and patches with known truth: for tests, demonstrations and benchmarks.

Lengths of the sample are in nm, lengths in the image in px; positions are (y, x), y pointing down.
The noise is Gaussian, its standard deviation a fraction of the height of an ordinary atom.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial import KDTree

from napari_shiftvae.core.bounds import cramer_rao
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.factors import FactorPatches, Motif, factor_patches
from napari_shiftvae.core.rendering import (
    Scan,
    Simulation,
    assemble,
    hexagonal_vectors,
    lattice_sites,
    rotated_axes,
    site_table,
)

__all__ = [
    "SIMULATIONS",
    "FactorPatches",
    "Motif",
    "Scan",
    "Simulation",
    "cramer_rao",
    "factor_patches",
    "graphene",
    "perovskite",
    "stm_superlattice",
]

MARGIN_NM = 0.6  # sites this far outside the image still reach into it


def perovskite(
    *,
    rng: np.random.Generator,
    shape: tuple[int, int] = (512, 512),
    pixel_size_nm: float = 0.015,
    noise: float = 0.08,
    rotation_rad: float = 0.03,
    displacement_nm: float = 0.03,
    domain_width_nm: float = 3.0,
    wall_width_nm: float = 0.8,
    interface: float | None = None,
    scan: Scan | None = None,
) -> Simulation:
    """HAADF-STEM image of a perovskite with ferroelectric 180-degree domains.

    Bright A columns and weaker B columns in the middle of four of them. Along the polar axis (y, up
    to the rotation) the B columns are displaced against their cage; across domain walls the
    displacement changes sign as ``tanh(2 u / wall_width_nm)``, u being the distance from the wall
    (kink solution of Landau theory; A. K. Tagantsev, L. E. Cross, J. Fousek, *Domains in Ferroic
    Crystals and Thin Films*, 2010, chapter 6).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; the same state gives the same image.
    shape : (int, int)
        Height and width of the image [px].
    pixel_size_nm : float
        Size of a pixel [nm].
    noise : float
        Standard deviation of the noise, as a fraction of the height of an A column.
    rotation_rad : float
        Rotation of the lattice from the image's axes, from x towards y [rad].
    displacement_nm : float
        Displacement of B against its cage deep in a domain [nm]; B moves two thirds of it, the
        A columns the last third the other way.
    domain_width_nm, wall_width_nm : float
        Distance of the domain walls; their thickness [nm].
    interface : float, optional
        Where a second, unpolar composition with weaker A and stronger B columns begins, as a
        fraction of the image's height; none by default.
    scan : Scan, optional
        Row jitter and drift; none by default.

    Returns
    -------
    Simulation
        Sublattices `A`, `B`; kinds `ferroelectric`, `metal` (beyond the interface).

    Examples
    --------
    >>> simulation = perovskite(rng=np.random.default_rng(0), shape=(128, 128))
    >>> simulation.image.shape, sorted(set(simulation.truth["sublattice"]))
    ((128, 128), ['A', 'B'])
    """
    _check(
        pixel_size_nm=pixel_size_nm, domain_width_nm=domain_width_nm, wall_width_nm=wall_width_nm
    )
    lattice_nm = 0.40
    along_y, along_x = rotated_axes(rotation_rad)
    vectors = np.stack([along_y, along_x]) * lattice_nm / pixel_size_nm
    centre = (np.asarray(shape) - 1) / 2
    sites, basis = lattice_sites(
        shape,
        vectors,
        [(0, 0), (0.5, 0.5)],
        centre + rng.random(2) @ vectors,
        MARGIN_NM / pixel_size_nm,
    )
    is_b = basis == 1
    # u runs across the walls, v along the polar axis, from the image's centre [nm]
    v, u = ((sites - centre) @ np.stack([along_y, along_x]).T).T * pixel_size_nm
    u = u - rng.uniform(0, domain_width_nm)
    nearest_wall = np.rint(u / domain_width_nm)
    from_wall = u - nearest_wall * domain_width_nm
    polarisation = (-1) ** nearest_wall * np.tanh(2 * from_wall / wall_width_nm)
    metal = np.zeros(len(sites), dtype=bool)
    if interface is not None:
        into_metal = v - (interface - 0.5) * shape[0] * pixel_size_nm
        metal = into_metal > 0
        polarisation *= 0.5 * (1 - np.tanh(2 * into_metal / wall_width_nm))
    share = np.where(is_b, 2 / 3, -1 / 3) * displacement_nm / pixel_size_nm
    intensity = np.select([~metal & ~is_b, ~metal, ~is_b], [1.0, 0.4, 0.75], default=0.55)
    table = site_table(
        sites,
        displacement=(share * polarisation)[:, None] * along_y,
        sublattice=np.where(is_b, "B", "A"),
        # columns differ a little: thickness and surface vary
        intensity=intensity * (1 + 0.03 * rng.standard_normal(len(sites))),
        sigma_px=np.where(is_b, 0.048, 0.054) / pixel_size_nm,
        kind=np.where(metal, "metal", "ferroelectric"),
    )
    return assemble(
        table,
        rng=rng,
        shape=shape,
        noise=noise,
        separation_px=lattice_nm / np.sqrt(2) / pixel_size_nm,
        pixel_size_nm=pixel_size_nm,
        background=0.2,
        scan=scan,
    )


def graphene(
    *,
    rng: np.random.Generator,
    shape: tuple[int, int] = (512, 512),
    pixel_size_nm: float = 0.012,
    noise: float = 0.15,
    rotation_rad: float = 0.1,
    dopant_fraction: float = 0.02,
    vacancy_fraction: float = 0.01,
    relaxation_nm: float = 0.012,
    scan: Scan | None = None,
) -> Simulation:
    """STEM image of graphene with substitutional dopants and vacancies.

    Around each dopant and vacancy the atoms are pushed outward: the nearest neighbours by
    `relaxation_nm`, those farther away exponentially less.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; the same state gives the same image.
    shape : (int, int)
        Height and width of the image [px].
    pixel_size_nm : float
        Size of a pixel [nm].
    noise : float
        Standard deviation of the noise, as a fraction of the height of a carbon atom.
    rotation_rad : float
        Rotation of the lattice from the image's axes, from x towards y [rad].
    dopant_fraction, vacancy_fraction : float
        Fractions of the sites in the image that hold a dopant, twice as bright as carbon, or no
        atom.
    relaxation_nm : float
        Outward displacement of a defect's nearest neighbours [nm].
    scan : Scan, optional
        Row jitter and drift; none by default.

    Returns
    -------
    Simulation
        Sublattices `A`, `B`; kinds `carbon`, `dopant`, `vacancy`.

    Examples
    --------
    >>> simulation = graphene(rng=np.random.default_rng(0), shape=(256, 256), vacancy_fraction=0.0)
    >>> sorted(set(simulation.truth["kind"]))
    ['carbon', 'dopant']
    """
    _check(pixel_size_nm=pixel_size_nm)
    if not (dopant_fraction >= 0 and vacancy_fraction >= 0):
        raise InputError("dopant_fraction and vacancy_fraction are fractions; give 0 or more.")
    if dopant_fraction + vacancy_fraction > 1:
        raise InputError(
            "dopant_fraction and vacancy_fraction exceed 1 together; lower one of them."
        )
    bond_px = 0.142 / pixel_size_nm
    vectors = hexagonal_vectors(rotation_rad) * np.sqrt(3) * bond_px
    centre = (np.asarray(shape) - 1) / 2
    sites, basis = lattice_sites(
        shape,
        vectors,
        [(0, 0), (1 / 3, 1 / 3)],
        centre + rng.random(2) @ vectors,
        MARGIN_NM / pixel_size_nm,
    )
    # A defect within one relaxation of the border could be pushed out of the image, and the truth.
    border = 2 * abs(relaxation_nm) / pixel_size_nm
    high = np.asarray(shape) - 1 - border
    inside = np.flatnonzero(np.all((sites > border) & (sites < high), axis=1))
    counts = [round(fraction * len(inside)) for fraction in (dopant_fraction, vacancy_fraction)]
    dopants, vacancies, _ = np.split(rng.permutation(inside), np.cumsum(counts))
    kind = np.full(len(sites), "carbon", dtype=object)
    kind[dopants], kind[vacancies] = "dopant", "vacancy"
    intensity = np.select([kind == "dopant", kind == "vacancy"], [2.0, 0.0], default=1.0)
    defects = np.concatenate([dopants, vacancies])
    # Beyond six bonds an atom moves by less than a hundredth of the relaxation.
    pairs = KDTree(sites[defects]).sparse_distance_matrix(
        KDTree(sites), 6 * bond_px, output_type="coo_matrix"
    )
    away = sites[pairs.col] - sites[defects[pairs.row]]
    distance = np.maximum(pairs.data, 1e-9)  # a defect does not move itself: there `away` is zero
    push = relaxation_nm / pixel_size_nm * np.exp(1 - distance / bond_px) / distance
    displacement = np.zeros_like(sites)
    np.add.at(displacement, pairs.col, away * push[:, None])
    displacement[vacancies] = 0
    table = site_table(
        sites,
        displacement=displacement,
        sublattice=np.where(basis == 1, "B", "A"),
        intensity=intensity,
        sigma_px=np.full(len(sites), 0.04 / pixel_size_nm),
        kind=kind,
    )
    return assemble(
        table,
        rng=rng,
        shape=shape,
        noise=noise,
        separation_px=bond_px,
        pixel_size_nm=pixel_size_nm,
        background=0.1,
        scan=scan,
    )


def stm_superlattice(
    *,
    rng: np.random.Generator,
    shape: tuple[int, int] = (512, 512),
    pixel_size_nm: float = 0.02,
    noise: float = 0.04,
    rotation_rad: float = 0.15,
    modulation: float = 0.4,
    distortion_nm: float = 0.012,
    defect_count: tuple[int, int] = (6, 6),
    scan: Scan | None = None,
) -> Simulation:
    """STM topograph of a hexagonal surface with a superlattice, adatoms and vacancies.

    The superlattice is that of 1T-TaS2, sqrt(13) x sqrt(13), ``3 a + b`` (J. A. Wilson, F. J. Di
    Salvo, S. Mahajan, *Adv. Phys.* 24, 117 (1975), doi:10.1080/00018737500101391). Three waves at
    120 degrees modulate the height of the atoms and displace them towards the maxima.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; the same state gives the same image.
    shape : (int, int)
        Height and width of the image [px].
    pixel_size_nm : float
        Size of a pixel [nm].
    noise : float
        Standard deviation of the noise, as a fraction of the height of an unmodulated atom.
    rotation_rad : float
        Rotation of the lattice from the image's axes, from x towards y [rad].
    modulation : float
        Added height of an atom at the superlattice's maxima; minima are half as deep.
    distortion_nm : float
        Amplitude of each of the three displacement waves [nm].
    defect_count : (int, int)
        Number of adatoms (each on top of a surface atom, which it hides) and of vacancies.
    scan : Scan, optional
        Row jitter, row levels and drift; none by default.

    Returns
    -------
    Simulation
        Sublattice `surface`; kinds `surface`, `adatom`, `vacancy`.

    Examples
    --------
    >>> simulation = stm_superlattice(rng=np.random.default_rng(0), defect_count=(3, 2))
    >>> int((simulation.truth["kind"] == "adatom").sum())
    3
    """
    _check(pixel_size_nm=pixel_size_nm)
    spacing_px = 0.336 / pixel_size_nm
    vectors = hexagonal_vectors(rotation_rad) * spacing_px
    centre = (np.asarray(shape) - 1) / 2
    origin = centre + rng.random(2) @ vectors
    sites, _ = lattice_sites(shape, vectors, [(0, 0)], origin, MARGIN_NM / pixel_size_nm)
    # `3 a + b` and the same turned by 60 degrees; b turned by 60 degrees is b - a
    waves = 2 * np.pi * np.linalg.inv(np.array([[3, 1], [-1, 4]]) @ vectors).T
    waves = np.vstack([waves, -waves.sum(axis=0)])  # (3, 2), at 120 degrees
    phase = (sites - origin) @ waves.T  # (N, 3)
    unit = waves / np.linalg.norm(waves, axis=1, keepdims=True)
    intensity = 1 + modulation * np.cos(phase).mean(axis=1)
    displacement = -distortion_nm / pixel_size_nm * np.sin(phase) @ unit
    low, high = spacing_px, np.asarray(shape) - 1 - spacing_px
    free = rng.permutation(np.flatnonzero(np.all((sites > low) & (sites < high), axis=1)))
    if sum(defect_count) > len(free):
        raise InputError(f"defect_count {defect_count} exceeds the number of sites; ask for less.")
    kind = np.full(len(sites), "surface", dtype=object)
    adatoms, vacancies, _ = np.split(free, np.cumsum(defect_count))
    kind[adatoms], kind[vacancies] = "adatom", "vacancy"
    intensity[adatoms], intensity[vacancies] = 2.2, 0.0
    displacement[vacancies] = 0
    table = site_table(
        sites,
        displacement=displacement,
        sublattice=np.full(len(sites), "surface"),
        intensity=intensity,
        sigma_px=np.where(kind == "adatom", 0.4, 0.25) * spacing_px,
        kind=kind,
    )
    return assemble(
        table,
        rng=rng,
        shape=shape,
        noise=noise,
        separation_px=spacing_px,
        pixel_size_nm=pixel_size_nm,
        background=0.0,
        scan=scan,
    )


SIMULATIONS: dict[str, Callable[..., Simulation]] = {
    "perovskite": perovskite,
    "graphene": graphene,
    "stm": stm_superlattice,
}


def _check(**lengths: float) -> None:
    for name, value in lengths.items():
        if not value > 0:
            raise InputError(f"{name} is {value}; give a positive length in nm.")
