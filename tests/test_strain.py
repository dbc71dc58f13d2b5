"""Strain, displacement and trends from positions with known truth."""

import numpy as np
import pytest

from napari_shiftvae.core.displacement import from_neighbours, from_reference, significance
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lattice import fit_lattice
from napari_shiftvae.core.neighbours import lattice_neighbours
from napari_shiftvae.core.reference import Reference, image_reference, region_reference
from napari_shiftvae.core.rendering import hexagonal_vectors, rotated_axes
from napari_shiftvae.core.strain import strain

SPACING = 16.0
SQUARE = np.stack(rotated_axes(0.07))[::-1] * SPACING
HEXAGONAL = hexagonal_vectors(0.2) * SPACING
OBLONG = np.array([(0.0, 11.0), (19.0, 2.0)])
BASES = {
    "square": (SQUARE, [(0, 0)]),
    "perovskite": (SQUARE * 1.5, [(0, 0), (0.5, 0.5)]),
    "hexagonal": (HEXAGONAL, [(0, 0)]),
    "honeycomb": (HEXAGONAL * 1.6, [(0, 0), (1 / 3, 1 / 3)]),
    "oblong": (OBLONG, [(0, 0)]),
}
lattices = pytest.mark.parametrize("name", BASES)


def crystal(name, cells=20):
    """Lattice vectors and the sites (N, 2) of a crystal in no order."""
    vectors, basis = BASES[name]
    index = np.stack(np.mgrid[:cells, :cells], axis=-1).reshape(-1, 1, 2)
    sites = (index + np.array(basis)).reshape(-1, 2) @ vectors
    return vectors, np.random.default_rng(9).permutation(sites)


def known(vectors):
    return Reference(vectors_yx=np.asarray(vectors), sentence="known vectors")


def gradient(exx=0.0, eyy=0.0, exy=0.0, rotation=0.0):
    """Of small strain, d u_i / d x_j in the order (y, x)."""
    return np.array([[eyy, exy + rotation], [exy - rotation, exx]])


def interior(positions, margin):
    low, high = positions.min(axis=0) + margin, positions.max(axis=0) - margin
    return ((positions > low) & (positions < high)).all(axis=1)


@lattices
@pytest.mark.parametrize("component", ["exx", "eyy", "exy", "rotation"])
def test_each_uniform_strain_is_recovered_and_no_other(name, component):
    vectors, sites = crystal(name, 8)
    g = gradient(**{component: 0.01})
    found = strain(sites @ (np.eye(2) + g).T, known(vectors))
    for each in ("exx", "eyy", "exy", "rotation"):
        column = getattr(found, "rotation_rad" if each == "rotation" else each)
        assert np.isfinite(column).mean() > 0.9
        truth = 0.01 if each == component else 0.0
        np.testing.assert_allclose(column[np.isfinite(column)], truth, atol=1e-10)


@pytest.mark.parametrize("seed", [101, 102])
@lattices
def test_one_percent_is_recovered_within_a_fiftieth_with_noise(name, seed):
    """The mean over the image within 0.02 % strain, every deviation as large as stated."""
    vectors, sites = crystal(name, 30)
    rng = np.random.default_rng(seed)
    sd = rng.uniform(0.03, 0.15, sites.shape)
    noisy = sites @ (np.eye(2) + gradient(0.01, -0.004, 0.003, 0.002)).T
    noisy = noisy + sd * rng.standard_normal(sites.shape)
    found = strain(noisy, known(vectors), sd_yx_px=sd)
    truth = {"exx": 0.01, "eyy": -0.004, "exy": 0.003, "rotation_rad": 0.002}
    for each, value in truth.items():
        column = getattr(found, each)
        column_sd = getattr(found, {"rotation_rad": "rotation_sd_rad"}.get(each, f"{each}_sd"))
        finite = np.isfinite(column)
        mean = np.average(column[finite], weights=column_sd[finite] ** -2.0)
        assert abs(mean - value) < 2e-4
        ratio = (column - value)[finite] / column_sd[finite]
        assert ratio.std() == pytest.approx(1, abs=0.1)


def test_without_deviations_one_is_estimated():
    vectors, sites = crystal("hexagonal")
    noisy = sites + np.random.default_rng(5).normal(0, 0.1, sites.shape)
    noisy[50] += 3.0
    found = strain(noisy, known(vectors))
    assert found.position_sd_px == pytest.approx(0.1, rel=0.07)
    inside = interior(sites, 2 * SPACING)
    assert np.nanstd(found.exx[inside] / found.exx_sd[inside]) == pytest.approx(1, abs=0.15)


def test_deviations_weight_the_fit():
    """Where half of the atoms are ten times worse, weights make strain better."""
    vectors, sites = crystal("square")
    rng = np.random.default_rng(7)
    sd = np.where(rng.random(len(sites)) < 0.5, 0.05, 0.5)[:, None] * np.ones(2)
    noisy = sites + sd * rng.standard_normal(sites.shape)
    weighted, even = strain(noisy, known(vectors), sd_yx_px=sd), strain(noisy, known(vectors))
    assert np.nanmedian(np.abs(weighted.exx)) < 0.7 * np.nanmedian(np.abs(even.exx))


def test_strain_follows_a_wave():
    vectors, sites = crystal("square", 30)
    wave = 2 * np.pi / (20 * SPACING)
    moved = sites + np.column_stack(
        [np.zeros(len(sites)), 0.01 / wave * np.sin(wave * sites[:, 1])]
    )
    found = strain(moved, known(vectors))
    inside = interior(sites, 4 * SPACING)
    error = found.exx - 0.01 * np.cos(wave * sites[:, 1])
    # Differences over two spacings see sin(k a) / (k a) of a wave: 0.984 here.
    assert np.abs(error[inside]).max() < 0.0002
    assert np.abs(found.eyy[inside]).max() < 1e-9


def edge_dislocation(places, burgers, poisson=0.3):
    """Displacement (N, 2) along y and x of an edge dislocation at 0, its Burgers vector along x.

    Isotropic elasticity: J. P. Hirth, J. Lothe, Theory of Dislocations, 2nd ed. (1982), eq. 3-45.
    """
    y, x = places.T
    square = x**2 + y**2
    along = np.arctan2(y, x) + x * y / (2 * (1 - poisson) * square)
    across = (1 - 2 * poisson) / (4 * (1 - poisson)) * np.log(square)
    across += (x**2 - y**2) / (4 * (1 - poisson) * square)
    return burgers / (2 * np.pi) * np.column_stack([-across, along])


def distortion(places, burgers):
    """Displacement gradient (N, 2, 2) at some places, d u_i / d x_j, without the cut's jump."""
    slope = []
    for to in 1e-3 * burgers * np.eye(2):
        ahead, behind = (edge_dislocation(places + d, burgers) for d in (to, -to))
        jump = ahead - behind
        slope.append((jump - np.rint(jump / burgers) * burgers) / (2e-3 * burgers))
    return np.stack(slope, axis=2)


def dislocated(cells):
    """Square crystal with a dislocation at 0: positions, and the truth at each.

    The field is that at the place where an atom comes to lie, so that both sides of the cut fit.
    """
    index = np.stack(np.mgrid[-cells:cells, -cells : cells + 1], axis=-1).reshape(-1, 2)
    sites = (index + np.array([0.5, 0.25])) * SPACING
    positions = sites
    for _ in range(200):
        positions = (positions + sites + edge_dislocation(positions, SPACING)) / 2
    assert np.abs(positions - sites - edge_dislocation(positions, SPACING)).max() < 1e-6
    deformed = np.linalg.inv(np.eye(2) - distortion(positions, SPACING)) - np.eye(2)
    truth = {
        "exx": deformed[:, 1, 1],
        "eyy": deformed[:, 0, 0],
        "exy": (deformed[:, 0, 1] + deformed[:, 1, 0]) / 2,
        "rotation_rad": (deformed[:, 0, 1] - deformed[:, 1, 0]) / 2,
    }
    return positions, truth


def test_a_dislocation_disturbs_its_core_only():
    positions, truth = dislocated(15)
    found = strain(positions, known(np.eye(2)[::-1] * SPACING))
    finite = np.isfinite(found.exx)
    assert finite.mean() > 0.98
    away = finite & (np.linalg.norm(positions, axis=1) > 4 * SPACING)
    away &= interior(positions, 2.5 * SPACING)
    assert away.sum() > 400
    for each, value in truth.items():
        error = getattr(found, each) - value
        assert np.sqrt(np.mean(error[away] ** 2)) < 5e-4
        assert np.abs(error[away]).max() < 0.004
        assert np.abs(getattr(found, each)[finite]).max() < 0.2
    # Where the displacement jumps by a spacing, nothing of it shows.
    cut = away & (np.abs(positions[:, 0]) < SPACING) & (positions[:, 1] < 0)
    assert cut.sum() > 10
    assert np.abs(found.exy[cut] - truth["exy"][cut]).max() < 0.002


@pytest.mark.parametrize("misfit", [0.05, 0.1])
def test_a_misfit_interface_keeps_the_strain_of_both_crystals(misfit):
    """One crystal on another of a larger spacing, nothing relaxed: a row of dislocations."""
    wide = SPACING * (1 + misfit)
    y, x = np.mgrid[:14, :40].reshape(2, -1)
    upper = np.column_stack([y * SPACING, x * SPACING])
    lower = np.column_stack([(14 + y) * SPACING, x * wide])
    found = strain(np.vstack([upper, lower]), known(np.eye(2)[::-1] * SPACING))
    row = np.r_[y, 14 + y]
    assert np.nanmax(np.abs(found.exx)) < 0.3
    around = lattice_neighbours(np.vstack([upper, lower]), np.eye(2)[::-1] * SPACING)
    one, number = np.nonzero(around.partner >= 0)
    step = np.vstack([upper, lower])[around.partner[one, number]] - np.vstack([upper, lower])[one]
    assert np.linalg.norm(step - around.ideal_yx[number], axis=1).max() < 0.31 * SPACING
    top, bottom = (row < 13) & np.isfinite(found.exx), (row > 14) & np.isfinite(found.exx)
    np.testing.assert_allclose(found.exx[top], 0, atol=1e-9)
    np.testing.assert_allclose(found.exx[bottom], misfit, atol=1e-9)
    assert min(top.mean(), bottom.mean()) > 0.4


def test_vacancies_and_borders_have_fewer_neighbours_and_say_so():
    vectors, sites = crystal("square", 9)
    g = gradient(0.02, 0.01, -0.01, 0.01)
    middle = np.argmin(np.linalg.norm(sites - sites.mean(axis=0), axis=1))
    positions = sites @ (np.eye(2) + g).T
    positions[middle] = np.nan
    found = strain(positions, known(vectors))
    assert np.isnan(found.exx[middle])
    rest = np.arange(len(sites)) != middle
    np.testing.assert_allclose(found.exx[rest], 0.02, atol=1e-9)
    beside = np.linalg.norm(sites - sites[middle], axis=1) < 1.1 * SPACING
    assert set(found.neighbours[beside & rest]) == {7}
    corners = np.sort(found.neighbours[rest])[:4]
    assert list(corners) == [3, 3, 3, 3]
    assert (found.exx_sd[found.neighbours == 3] > found.exx_sd[found.neighbours == 8].max()).all()
    # A lone row has no strain across it.
    row = strain(np.arange(12)[:, None] * vectors[0], known(vectors))
    assert np.isnan(row.exx).all()
    assert "12 of 12 atoms have fewer than 3 neighbours" in row.sentence


@pytest.mark.parametrize("seed", [3, 4])
@lattices
def test_neighbours_are_of_one_sublattice_and_mutual(name, seed):
    """Whatever is missing, however displaced, and with atoms too many."""
    vectors, sites = crystal(name, 10)
    rng = np.random.default_rng(seed)
    sites = sites[rng.random(len(sites)) > 0.25]
    false = sites[rng.permutation(len(sites))[:15]] + rng.normal(0, 1.5, (15, 2))
    positions = np.vstack([sites + rng.normal(0, 0.3, sites.shape), false])
    around = lattice_neighbours(positions, vectors)
    one, number = np.nonzero(around.partner >= 0)
    other = around.partner[one, number]
    assert (around.partner[other, len(around.cells) - 1 - number] == one).all()
    true = (one < len(sites)) & (other < len(sites))
    assert true.sum() > 2 * len(sites)
    ideal = sites[one[true]] + around.ideal_yx[number[true]]
    np.testing.assert_allclose(sites[other[true]], ideal, atol=1e-9)


def test_moving_and_reordering_the_atoms_changes_nothing():
    vectors, sites = crystal("honeycomb", 9)
    positions = sites + np.random.default_rng(1).normal(0, 0.2, sites.shape)
    order = np.random.default_rng(2).permutation(len(sites))
    one = strain(positions, known(vectors)).table().to_numpy()
    other = strain(positions[order] + (31.7, -8.2), known(vectors)).table().to_numpy()
    np.testing.assert_allclose(other, one[order], atol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_atoms_have_no_strain(count):
    found = strain(np.zeros((count, 2)) + np.arange(count)[:, None], known(SQUARE))
    assert len(found.exx) == count
    assert np.isnan(found.exx).all()


def test_wrong_input_is_told():
    with pytest.raises(InputError, match="not parallel"):
        lattice_neighbours(np.zeros((4, 2)), [(0, 10), (0, 20)])
    with pytest.raises(InputError, match="one pair"):
        strain(np.zeros((4, 2)), known(SQUARE), sd_yx_px=np.ones(4))
    with pytest.raises(InputError, match="tolerance_px is 0"):
        lattice_neighbours(np.zeros((4, 2)), SQUARE, tolerance_px=0)


# Displacement


def test_strain_and_displacement_from_a_region():
    """The lower half is drawn out by 1 %; the upper half is the reference."""
    vectors, sites = crystal("perovskite", 24)
    rng = np.random.default_rng(31)
    below = np.maximum(sites[:, 0] - np.median(sites[:, 0]), 0)
    truth = np.column_stack([0.01 * below, np.zeros(len(sites))])
    positions = sites + truth + rng.normal(0, 0.05, sites.shape)
    amplitude = np.where(
        np.isclose(np.rint((sites @ np.linalg.inv(vectors)) * 2) % 2, 0).all(1), 2, 1
    )
    lattice = fit_lattice(positions, amplitude=amplitude)
    reference = region_reference(positions, lattice, below == 0)
    assert "atoms in the reference region" in reference.sentence
    found = from_reference(positions, reference, sd_yx_px=0.05)
    error = (found.yx_px - truth)[below > 0]
    assert np.abs(error.mean(axis=0)).max() < 0.05
    # Twice the error of the reference grows away from it, and is stated.
    assert (found.sd_yx_px[below > 0] > 0.05).all()
    stretched = strain(positions, reference)
    deep = (below > 3 * SPACING) & np.isfinite(stretched.eyy)
    assert stretched.eyy[deep].mean() == pytest.approx(0.01, abs=2e-4)
    flat = (sites[:, 0] < np.median(sites[:, 0]) - 3 * SPACING) & np.isfinite(stretched.eyy)
    assert stretched.eyy[flat].mean() == pytest.approx(0, abs=2e-4)


def test_deviation_of_a_reference_grows_away_from_its_region_as_errors_do():
    _, sites = crystal("square", 14)
    lattice = fit_lattice(sites)
    inside = np.linalg.norm(sites - sites.mean(axis=0), axis=1) < 4 * SPACING
    outside = ~inside
    ratios = []
    for seed in range(40):
        noisy = sites + np.random.default_rng(seed).normal(0, 0.2, sites.shape)
        found = from_reference(noisy, region_reference(noisy, lattice, inside), sd_yx_px=0.2)
        ratios.append((found.yx_px / found.sd_yx_px)[outside])
    assert np.std(ratios) == pytest.approx(1, abs=0.08)
    far = np.argmax(np.linalg.norm(sites - sites.mean(axis=0), axis=1))
    assert found.sd_yx_px[far, 0] > 0.23


@lattices
def test_displacement_from_the_neighbours_sees_no_strain(name):
    vectors, sites = crystal(name, 9)
    odd = np.argmin(np.linalg.norm(sites - sites.mean(axis=0), axis=1))
    bent = sites @ (np.eye(2) + gradient(0.04, -0.03, 0.02, 0.03)).T
    bent[odd] += (0.9, -0.4)
    found = from_neighbours(bent, vectors, sd_yx_px=0.1)
    np.testing.assert_allclose(found.yx_px[odd], (0.9, -0.4), atol=1e-9)
    near = lattice_neighbours(bent, vectors).partner[odd]
    others = np.setdiff1d(np.arange(len(sites)), [*near, odd])
    known_ones = others[np.isfinite(found.yx_px[others, 0])]
    assert len(known_ones) > 0.7 * len(sites)
    np.testing.assert_allclose(found.yx_px[known_ones], 0, atol=1e-9)
    count = (near >= 0).sum()
    np.testing.assert_allclose(found.sd_yx_px[odd], 0.1 * np.sqrt(1 + 1 / count))


def test_central_atoms_take_the_reference_of_whole_patterns():
    """Positions other than those the lattice was fitted to: each sublattice has its own mean."""
    _, sites = crystal("square", 9)
    lattice = fit_lattice(sites)
    central = sites + np.array([0.5, -0.25])
    central[3] += (1.0, 0.0)
    central[7] = np.nan
    found = from_reference(central, image_reference(central, lattice))
    np.testing.assert_allclose(found.yx_px[3], (1.0, 0.0), atol=0.01)
    assert np.isnan(found.yx_px[7]).all()
    assert np.isnan(found.sd_yx_px[7]).all()


def test_a_region_must_hold_enough_atoms():
    vectors, sites = crystal("square", 8)
    lattice = fit_lattice(sites)
    with pytest.raises(InputError, match="0 atoms of the lattice are in the reference region"):
        region_reference(sites, lattice, np.zeros(len(sites), bool))
    row = np.rint(sites @ np.linalg.inv(vectors))[:, 0] == 2
    with pytest.raises(InputError, match="form one row"):
        region_reference(sites, lattice, row)
    with pytest.raises(InputError, match="inside has the shape"):
        region_reference(sites, lattice, np.ones(5, bool))
    with pytest.raises(InputError, match="without places"):
        from_reference(sites, known(vectors))
    with pytest.raises(InputError, match="is of 64 atoms, not of 63"):
        from_reference(sites[1:], image_reference(sites, lattice))


def test_significance_is_that_along_the_vector():
    np.testing.assert_allclose(
        significance([(2.0, 0.0), (0.0, 2.0), (0.0, 0.0)], [(1.0, 4.0)] * 3), [2.0, 0.5, 0.0]
    )
