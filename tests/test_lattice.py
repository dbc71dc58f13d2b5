import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.fields import displacement
from napari_shiftvae.core.lattice import NoLattice, fit_lattice, neighbour_distance
from napari_shiftvae.core.simulate import perovskite

CRYSTALS = {
    # lattice vectors (y, x) [px] and places of the atoms in the cell, as fractions of them
    "square": ([[14, 0], [0, 14]], [(0, 0)]),
    "hexagonal": ([[0, 15], [13, 7.5]], [(0, 0)]),
    "oblique": ([[2, 17], [11, 6]], [(0, 0)]),
    "honeycomb": ([[0, 24], [20.8, 12]], [(0, 0), (1 / 3, 1 / 3)]),
    "abf perovskite": ([[0, 42], [29.5, 0]], [(0, 0), (0.5, 0), (0.5, 0.45)]),
}


def crystal(name, *, cells=12, deform=((1, 0), (0, 1)), origin=(200.3, 180.8)):
    """Vectors, cell (N, 2), place (N,) and position (N, 2) of all atoms of a patch of crystal."""
    vectors, basis = CRYSTALS[name]
    vectors = np.asarray(vectors, dtype=float) @ np.asarray(deform)
    half = cells // 2
    cell = np.stack(np.mgrid[-half:half, -half:half], axis=-1).reshape(-1, 2)
    cell = np.tile(cell, (len(basis), 1))
    place = np.repeat(np.arange(len(basis)), cells**2)
    positions = (cell + np.array(basis)[place]) @ vectors + origin
    return vectors, cell, place, positions


def turn(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def assert_same_lattice(lattice, vectors, tolerance):
    """The found vectors are whole multiples of the true ones and span a cell as large."""
    found = np.stack([lattice.a_yx, lattice.b_yx])
    multiples = found @ np.linalg.inv(vectors)
    np.testing.assert_allclose(multiples, np.rint(multiples), atol=tolerance)
    assert abs(np.linalg.det(np.rint(multiples))) == pytest.approx(1)


def assert_indexed(lattice, cell, place, vectors, rows):
    """The atoms `rows` sit in the cells and on the sublattices that they were made with."""
    on = lattice.basis[rows] >= 0
    # one sublattice to each place
    pairs = np.unique(np.column_stack([lattice.basis[rows], place[rows]])[on], axis=0)
    assert len(pairs) == len(np.unique(place))
    found = np.stack([lattice.a_yx, lattice.b_yx])
    change = np.rint(found @ np.linalg.inv(vectors))
    for kind in np.unique(place):
        chosen = rows[on & (place[rows] == kind)]
        offsets = cell[chosen] - lattice.index[chosen] @ change
        assert len(np.unique(offsets, axis=0)) == 1


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.3])
def test_perfect_crystal_is_recovered(name, angle):
    vectors, cell, place, positions = crystal(name, deform=turn(angle))
    lattice = fit_lattice(positions)
    assert lattice.fraction == 1
    assert_same_lattice(lattice, vectors, 1e-9)
    assert_indexed(lattice, cell, place, vectors, np.arange(len(positions)))
    np.testing.assert_allclose(lattice.reference_yx, positions, atol=1e-9)
    assert lattice.rms_px == pytest.approx(0, abs=1e-9)
    # the index, the place in the cell and the vectors say where an atom is
    rebuilt = (
        lattice.origin_yx
        + lattice.index @ np.stack([lattice.a_yx, lattice.b_yx])
        + lattice.basis_yx[lattice.basis]
    )
    np.testing.assert_allclose(rebuilt, lattice.reference_yx)


def test_vectors_are_the_shortest_and_have_fixed_directions():
    for angle in np.linspace(0, 2 * np.pi, 9):
        lattice = fit_lattice(crystal("oblique", deform=turn(angle))[3])
        a, b = lattice.a_yx, lattice.b_yx
        lengths = sorted(np.linalg.norm(v) for v in (a, b))
        assert lengths == pytest.approx([np.hypot(9, -11), np.hypot(11, 6)], rel=1e-6) or (
            lengths[0] <= np.linalg.norm(a + b) and lengths[1] <= np.linalg.norm(a - b)
        )
        assert a[1] > 0
        assert b[0] > 0


@pytest.mark.parametrize("name", CRYSTALS)
def test_uniform_strain_is_in_the_vectors(name):
    strain = np.array([[0.03, 0.012], [-0.008, -0.02]])
    rest = fit_lattice(crystal(name)[3])
    _, cell, place, positions = crystal(name, deform=np.eye(2) + strain)
    strained = fit_lattice(positions)
    assert_indexed(
        strained, cell, place, crystal(name)[0] @ (np.eye(2) + strain), np.arange(len(cell))
    )
    before = np.stack([rest.a_yx, rest.b_yx])
    after = np.stack([strained.a_yx, strained.b_yx])
    change = np.rint(after @ np.linalg.inv(before))
    np.testing.assert_allclose(
        np.linalg.solve(change @ before, after), np.eye(2) + strain, atol=1e-9
    )


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("seed", range(3))
def test_vacancies_and_wrong_atoms_are_coped_with(name, seed):
    rng = np.random.default_rng(seed)
    vectors, cell, place, ideal = crystal(name, cells=16, deform=turn(rng.uniform(0, 3)))
    near = neighbour_distance(ideal)
    kept = np.flatnonzero(rng.random(len(ideal)) > 0.1)
    jitter = 0.03 * near * rng.standard_normal((len(kept), 2))
    wrong = rng.uniform(ideal.min(axis=0), ideal.max(axis=0), (len(kept) // 10, 2))
    lattice = fit_lattice(np.concatenate([ideal[kept] + jitter, wrong]))
    assert_same_lattice(lattice, vectors, 0.01)
    right = np.arange(len(kept))
    assert (lattice.basis[right] >= 0).mean() > 0.99
    assert (lattice.basis[len(kept) :] >= 0).mean() < 0.35  # those that fell on vacancies
    assert_indexed(lattice, cell[kept], place[kept], vectors, right)
    on = lattice.basis[right] >= 0
    error = lattice.reference_yx[right][on] - ideal[kept][on]
    assert np.sqrt(np.mean(error**2)) < 0.012 * near
    off = lattice.basis < 0
    assert np.isnan(lattice.reference_yx[off]).all()
    assert (lattice.index[off] == 0).all()
    assert lattice.fraction == pytest.approx(1 - off.mean())


@pytest.mark.parametrize("name", CRYSTALS)
def test_lattice_that_bends_is_indexed_to_the_end(name):
    rng = np.random.default_rng(0)
    vectors, cell, place, straight = crystal(name, cells=24)
    size = np.ptp(straight, axis=0)
    u = (straight - straight.mean(axis=0)) / size
    # lattice planes turned by up to 6 degrees and stretched by up to 5 % towards the border
    bend = size * np.column_stack(
        [0.1 * u[:, 1] ** 2, 0.05 * u[:, 1] ** 2 - 0.1 * u[:, 0] * u[:, 1]]
    )
    positions = straight + bend + 0.02 * neighbour_distance(straight) * rng.standard_normal(u.shape)
    kept = np.flatnonzero(rng.random(len(positions)) > 0.05)
    assert np.abs(bend).max() > 0.4 * np.linalg.norm(vectors, axis=1).min()
    lattice = fit_lattice(positions[kept])
    assert lattice.fraction > 0.99
    assert_indexed(lattice, cell[kept], place[kept], vectors, np.arange(len(kept)))


def test_island_behind_a_gap_is_indexed():
    vectors, cell, place, positions = crystal("square", cells=20)
    kept = np.flatnonzero(np.abs(positions[:, 1] - positions[:, 1].mean()) > 2 * 14)
    lattice = fit_lattice(positions[kept])
    assert lattice.fraction == 1
    assert_indexed(lattice, cell[kept], place[kept], vectors, np.arange(len(kept)))


def test_contrast_tells_sublattices_apart_that_positions_cannot():
    vectors, _, _, a = crystal("square")
    positions = np.concatenate([a, a + vectors.sum(axis=0) / 2])
    contrast = np.repeat([1.0, 0.4], len(a)) * np.random.default_rng(0).uniform(
        0.9, 1.1, 2 * len(a)
    )
    blind, seeing = fit_lattice(positions), fit_lattice(positions, amplitude=contrast)
    assert np.linalg.det([blind.a_yx, blind.b_yx]) == pytest.approx(-(14**2) / 2)
    assert blind.basis.max() == 0
    assert_same_lattice(seeing, vectors, 1e-9)
    assert len(np.unique(seeing.basis[: len(a)])) == 1
    assert len(np.unique(seeing.basis[len(a) :])) == 1
    assert seeing.basis[0] != seeing.basis[-1]


def test_polar_domains_keep_one_sublattice_and_give_their_displacement():
    vectors, _, _, a = crystal("square", cells=20)
    b = a + vectors.sum(axis=0) / 2
    # a domain in the middle of another one: not to be mistaken for a strain
    polar = np.where(np.abs(b[:, 1:] - b[:, 1].mean()) > 70, 1.0, -1.0) * [2.2, 0]
    positions = np.concatenate([a, b + polar])
    lattice = fit_lattice(positions, amplitude=np.repeat([1.0, 0.4], len(a)))
    assert lattice.fraction == 1
    assert lattice.basis.max() == 1
    moved = displacement(positions, lattice)
    np.testing.assert_allclose(moved[len(a) :], polar, atol=0.15)
    np.testing.assert_allclose(moved[: len(a)], 0, atol=0.15)


def test_vacancies_and_extra_atoms_are_listed():
    vectors, cell, place, ideal = crystal("honeycomb", cells=16, deform=turn(0.3))
    inner = np.flatnonzero((np.abs(cell + 0.5) < 5.5).all(axis=1))
    gone = np.random.default_rng(0).choice(inner, 12, replace=False)
    # the lattice is bent, so that the ideal one is far from where vacancies are
    u = (ideal - ideal.mean(axis=0)) / np.ptp(ideal, axis=0)
    bent = ideal + 12.0 * np.column_stack([u[:, 1] ** 2, -u[:, 0] * u[:, 1]])
    middles = bent[inner[:3]] + np.array([2 / 3, 2 / 3]) @ vectors  # of hexagons
    keep = np.delete(np.arange(len(ideal)), gone)
    atoms = np.concatenate([bent[keep], middles, [[np.nan, 1.0]]])
    lattice = fit_lattice(atoms)
    assert lattice.extra.tolist() == [len(keep), len(keep) + 1, len(keep) + 2]
    assert lattice.vacancy_yx.shape == (12, 2)
    order = cKDTree(lattice.vacancy_yx).query(bent[gone])[1]
    assert sorted(order) == list(range(12))
    np.testing.assert_allclose(lattice.vacancy_yx[order], bent[gone], atol=0.5)
    ideal_place = (
        lattice.origin_yx
        + lattice.vacancy_index @ np.stack([lattice.a_yx, lattice.b_yx])
        + lattice.basis_yx[lattice.vacancy_basis]
    )
    assert np.linalg.norm(ideal_place[order] - bent[gone], axis=1).max() > 0.8
    # the same sublattice as the atoms that were taken away
    sublattice = {place[k]: b for k, b in zip(keep, lattice.basis, strict=False)}
    assert [sublattice[k] for k in place[gone]] == lattice.vacancy_basis[order].tolist()


def test_neither_holes_at_the_border_nor_a_slanted_border_are_vacancies():
    _, _, _, positions = crystal("hexagonal", cells=24, deform=turn(0.2))
    low, high = positions.mean(axis=0) - 110, positions.mean(axis=0) + 110
    inside = positions[((positions > low) & (positions < high)).all(axis=1)]
    assert len(fit_lattice(inside).vacancy_yx) == 0
    edge = np.argsort(inside[:, 0])[[3, 7]]
    lattice = fit_lattice(np.delete(inside, edge, axis=0))
    assert len(lattice.vacancy_yx) == 0
    assert len(lattice.extra) == 0


def test_neighbouring_vacancies_count_each():
    _, _, _, positions = crystal("square", cells=14)
    middle = np.argsort(np.linalg.norm(positions - positions.mean(axis=0), axis=1))[:4]
    lattice = fit_lattice(np.delete(positions, middle, axis=0))
    found = lattice.vacancy_yx[np.lexsort(lattice.vacancy_yx.T)]
    np.testing.assert_allclose(found, positions[middle][np.lexsort(positions[middle].T)], atol=1e-6)


def test_order_of_the_atoms_does_not_matter():
    _, _, _, positions = crystal("honeycomb")
    shuffled = np.random.default_rng(0).permutation(len(positions))
    one, other = fit_lattice(positions), fit_lattice(positions[shuffled])
    np.testing.assert_allclose(other.reference_yx, one.reference_yx[shuffled], atol=1e-9)


def test_rows_with_nan_are_on_no_lattice():
    _, _, _, positions = crystal("square")
    with_gaps = np.insert(positions, [3, 50], np.nan, axis=0)
    lattice = fit_lattice(with_gaps)
    gaps = np.isnan(with_gaps[:, 0])
    assert (lattice.basis[gaps] == -1).all()
    np.testing.assert_allclose(lattice.reference_yx[~gaps], positions, atol=1e-9)


@pytest.mark.parametrize("count", [9, 60, 1500])
@pytest.mark.parametrize("seed", range(3))
def test_random_atoms_have_no_lattice(count, seed):
    assert isinstance(
        fit_lattice(np.random.default_rng(seed).uniform(0, 500, (count, 2))), NoLattice
    )


def test_liquid_has_no_lattice():
    rng = np.random.default_rng(0)
    kept = np.empty((0, 2))
    for place in rng.uniform(0, 400, (6000, 2)):
        if not len(kept) or np.hypot(*(kept - place).T).min() > 14:
            kept = np.vstack([kept, place])
    assert fit_lattice(kept).reason.startswith("no lattice: no two translations")


@pytest.mark.parametrize("name", ["square", "hexagonal", "honeycomb"])
@pytest.mark.parametrize("angle", [0.3, 0.38, 0.5, 0.62])
def test_two_grains_are_not_one_lattice(name, angle):
    # near some of these angles the grains have a larger cell in common
    _, _, _, one = crystal(name, cells=30)
    _, _, _, other = crystal(name, cells=30, deform=turn(angle))
    border = one[:, 1].mean()
    positions = [one[one[:, 1] < border - 5], other[other[:, 1] > border + 5]]
    assert isinstance(fit_lattice(np.concatenate(positions)), NoLattice)


def grains(name, degrees, *, shape, noise, seed=0, stretch=1.0):
    """Two crystals in a square of 360 px, half of it each or one in a corner of 16 %."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 1)
    sides = []
    for extra, scale in ((0.0, 1.0), (np.deg2rad(degrees), stretch)):
        origin = rng.uniform(180, 194, 2)
        sides.append(crystal(name, cells=60, deform=scale * turn(angle + extra), origin=origin)[3])
    if shape == "half":
        across = turn(rng.uniform(0, 2 * np.pi))[0]
        depth = [(each - 180) @ across for each in sides]
    else:
        depth = [each.max(axis=1) - 0.4 * 360 for each in sides]
    atoms = np.concatenate([sides[0][depth[0] > 3.5], sides[1][depth[1] < -3.5]])
    atoms = atoms[((atoms >= 0) & (atoms < 360)).all(axis=1)]
    return atoms + noise * 14 * rng.standard_normal(atoms.shape)


@pytest.mark.parametrize("name", ["square", "hexagonal"])
@pytest.mark.parametrize("shape", ["half", "corner"])
@pytest.mark.parametrize(
    ("degrees", "noise"), [(3, 0.03), (6, 0.05), (10, 0.02), (20, 0.05), (30, 0.02)]
)
def test_two_grains_are_named_with_their_angle(name, shape, degrees, noise):
    fitted = fit_lattice(grains(name, degrees, shape=shape, noise=noise))
    assert isinstance(fitted, NoLattice)
    words = fitted.reason.split()
    assert words[:4] == ["two", "grains,", "rotated", "by"]
    assert float(words[4]) == pytest.approx(degrees, abs=max(1, 0.15 * degrees))


@pytest.mark.parametrize("stretch", [1.1, 1.35, 1.6])
@pytest.mark.parametrize("shape", ["half", "corner"])
def test_two_spacings_are_named(shape, stretch):
    fitted = fit_lattice(grains("square", 0, shape=shape, noise=0.03, stretch=stretch))
    words = fitted.reason.split()
    assert words[:2] == ["two", "lattices,"]
    assert float(words[-2]) == pytest.approx(14 * stretch, rel=0.04)


@pytest.mark.parametrize("name", ["square", "hexagonal"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("cells", [12, 28])
@pytest.mark.parametrize("how", ["bent", "wave", "misfit", "gap", "vacancies", "stray"])
def test_one_crystal_is_one(name, noise, cells, how):
    rng = np.random.default_rng(1)
    atoms = crystal(name, cells=cells, deform=turn(0.3))[3]
    size = np.ptp(atoms, axis=0)
    y, x = ((atoms - atoms.mean(axis=0)) / size).T
    bend = np.deg2rad(6) * size
    if how == "bent":
        atoms = atoms + bend * np.column_stack([x * x / 2, -y * x])
    elif how == "wave":
        atoms = atoms + bend / np.pi * np.column_stack([np.sin(np.pi * x), 0 * x])
    elif how == "misfit":  # an interface of two materials, 3 % apart
        atoms = atoms + 0.03 * size * np.column_stack([np.maximum(y, 0), 0 * y])
    elif how == "gap":
        atoms = atoms[np.abs(x) > 0.04]
    elif how == "vacancies":
        atoms = atoms[rng.random(len(atoms)) > 0.1]
    stray = rng.uniform(atoms.min(axis=0), atoms.max(axis=0), (len(atoms) // 10, 2))
    atoms = atoms + noise * 14 * rng.standard_normal(atoms.shape)
    if how == "stray":
        atoms = np.concatenate([atoms, stray])
    fitted = fit_lattice(atoms)
    assert not isinstance(fitted, NoLattice), fitted.reason
    assert fitted.fraction > 0.85


@pytest.mark.parametrize("sublattice", ["A", "B", "both"])
def test_ferroelectric_domains_are_one_crystal(sublattice):
    truth = perovskite(rng=np.random.default_rng(2), shape=(400, 400), displacement_nm=0.05).truth
    rows = np.ones(len(truth), dtype=bool)
    if sublattice != "both":
        rows = (truth["sublattice"] == sublattice).to_numpy()
    fitted = fit_lattice(truth.loc[rows, ["y_px", "x_px"]])
    assert not isinstance(fitted, NoLattice), fitted.reason


@pytest.mark.parametrize(
    "positions",
    [
        np.empty((0, 2)),
        [(1.0, 2.0)],
        [(0.0, 10.0 * i) for i in range(40)],
        [(3.0 * i, 10.0 * i) for i in range(40)],
        [(5.0, 5.0)] * 30,
        np.full((30, 2), np.nan),
    ],
    ids=["none", "one", "row", "slanted row", "all in one place", "nan"],
)
def test_too_little_for_a_lattice(positions):
    if np.isfinite(positions).all(axis=-1).sum() < 8:
        assert fit_lattice(positions).reason == "no lattice: fewer than 8 atoms"
    assert isinstance(fit_lattice(positions), NoLattice)


def test_repeated_atoms_count_once():
    _, _, _, positions = crystal("square")
    assert neighbour_distance(np.repeat(positions, 2, axis=0)) == pytest.approx(14)
    lattice = fit_lattice(np.concatenate([positions, positions[:20]]))
    assert lattice.fraction == pytest.approx(144 / 164)


@pytest.mark.parametrize(
    ("amplitude", "message"),
    [(np.ones(3), r"shape \(3,\)"), (np.zeros(144), "not above zero")],
)
def test_bad_amplitude_gets_a_sentence(amplitude, message):
    with pytest.raises(InputError, match=message):
        fit_lattice(crystal("square")[3], amplitude=amplitude)


def test_neighbour_distance_is_the_median():
    assert neighbour_distance([(0, 0), (0, 3), (0, 7), (0, 12), (np.nan, 1)]) == pytest.approx(3.5)
    assert np.isnan(neighbour_distance([(0, 0)]))
    assert np.isnan(neighbour_distance(np.empty((0, 2))))
