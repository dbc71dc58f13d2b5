"""Windows cut anywhere end on one motif, one window on each, with no period missed."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_shiftvae.core.align import align, sample_positions
from napari_shiftvae.core.matching import Matcher, best_first
from napari_shiftvae.core.patches import default_patch_size
from napari_shiftvae.core.rendering import (
    draw_gaussians,
    hexagonal_vectors,
    lattice_sites,
    rotated_axes,
)
from napari_shiftvae.core.simulate import graphene, perovskite

SHAPE = (300, 280)


def make(kind, *, noise=0.08, seed=0):
    """Image of a perfect crystal, its two lattice vectors, distance between its atoms [px]."""
    rng = np.random.default_rng(seed)
    if kind == "perovskite":  # two sublattices, the window reaches over more than a unit cell
        made = perovskite(rng=rng, shape=SHAPE, displacement_nm=0.0, noise=noise)
        vectors = np.stack(rotated_axes(0.03)) * 0.40 / 0.015
    else:  # two sites of one kind, turned against one another
        made = graphene(rng=rng, shape=SHAPE, dopant_fraction=0, vacancy_fraction=0, noise=noise)
        vectors = hexagonal_vectors(0.1) * made.separation_px * np.sqrt(3)
    return made.image, vectors, made.separation_px


def off_lattice(positions, vectors):
    """Distances from the lattice with the best constant part [px]."""
    fraction = positions @ np.linalg.inv(vectors)
    phase = np.exp(2j * np.pi * fraction).mean(axis=0)
    rest = fraction - np.angle(phase) / (2 * np.pi)
    return np.hypot(*((rest - np.rint(rest)) @ vectors).T)


def in_image(positions, size):
    """Which windows lie in the image with a pixel to spare, so that a maximum can be one."""
    half = (size - 1) / 2 + 1
    return ((positions >= half) & (positions <= np.array(SHAPE) - 1 - half)).all(axis=1)


def motif_sites(found, vectors):
    """All places of the motif that the windows are on."""
    phase = np.exp(2j * np.pi * found @ np.linalg.inv(vectors)).mean(axis=0)
    return lattice_sites(SHAPE, vectors, [(0, 0)], np.angle(phase) / (2 * np.pi) @ vectors, 0)[0]


def hexagonal_image(noise, seed=0):
    """One atom in the cell, distance 18 px."""
    rng = np.random.default_rng(seed)
    vectors = hexagonal_vectors(0.2) * 18.0
    sites, _ = lattice_sites(SHAPE, vectors, [(0, 0)], rng.random(2) @ vectors, 20)
    image = draw_gaussians(SHAPE, sites, 1.0, 3.0) + noise * rng.standard_normal(SHAPE)
    return image.astype(np.float32), vectors, sites


@pytest.mark.parametrize("noise", [0.02, 0.2])
@pytest.mark.parametrize("sampling", ["random", "grid"])
@pytest.mark.parametrize("kind", ["perovskite", "graphene"])
def test_windows_end_on_one_site_of_every_cell(kind, sampling, noise):
    image, vectors, separation = make(kind, noise=noise)
    size = default_patch_size(separation)
    start = sample_positions(SHAPE, size, sampling, 600, np.random.default_rng(1))
    assert np.mean(off_lattice(start, vectors) > 3) > 0.5  # anywhere in the cell
    *_, found = align(image, start, size, separation)
    off = off_lattice(found, vectors)
    assert off.max() < 1.0  # no period jump, no other sublattice
    assert np.sqrt(np.mean(off**2)) < 0.3
    sites = motif_sites(found, vectors)
    inside = in_image(sites, size)
    nearest = cKDTree(sites).query(found)[1]
    assert set(np.flatnonzero(inside)) <= set(nearest)  # every cell has its window
    assert len(set(nearest)) == len(found)  # and one only


@pytest.mark.parametrize("seed", range(3))
def test_noise_as_high_as_a_third_of_the_atoms_misleads_no_window(seed):
    image, vectors, sites = hexagonal_image(0.35, seed)
    size = default_patch_size(18.0)
    for sampling in ("random", "grid"):
        start = sample_positions(SHAPE, size, sampling, 600, np.random.default_rng(seed))
        *_, found = align(image, start, size, 18.0)
        assert off_lattice(found, vectors).max() < 1.5
        assert len(found) >= in_image(sites, size).sum()


@pytest.mark.parametrize("dark", [False, True])
def test_windows_are_centred_on_atoms(dark):
    """Else they have no central atom; of two sublattices it is the stronger one."""
    rng = np.random.default_rng(0)
    made = perovskite(rng=rng, shape=SHAPE, displacement_nm=0.0)
    size = default_patch_size(made.separation_px)
    start = sample_positions(SHAPE, size, "random", 600, rng)
    image = -made.image if dark else made.image
    *_, found = align(image, start, size, made.separation_px, dark=dark)
    truth = made.truth[["y_px", "x_px"]].to_numpy()
    distance, row = cKDTree(truth).query(found)
    assert distance.max() < 0.1 * made.separation_px
    assert set(made.truth["sublattice"].to_numpy()[row]) == {"A"}


def test_fewer_windows_than_cells_all_find_a_place():
    image, vectors, _ = hexagonal_image(0.1)
    size = default_patch_size(18.0)
    start = sample_positions(SHAPE, size, "random", 60, np.random.default_rng(1))
    *_, found = align(image, start, size, 18.0)
    assert len(found) == 60
    assert off_lattice(found, vectors).max() < 0.5
    assert cKDTree(found).query(found, k=2)[0][:, 1].min() > 17
    # most stay near; only those that met another were sent to what no window had reached
    assert (cKDTree(start).query(found)[0] < 11).mean() > 0.8


def test_atoms_that_differ_periodically_are_one_motif():
    """A superlattice of heights is content, not a larger cell."""
    rng = np.random.default_rng(0)
    vectors = hexagonal_vectors(0.1) * 17.0
    sites, _ = lattice_sites(SHAPE, vectors, [(0, 0)], (3, 4), 20)
    cell = np.rint((sites - (3, 4)) @ np.linalg.inv(vectors)).astype(int)
    height = np.where((cell % 3 == 0).all(axis=1), 1.6, 1.0)
    image = draw_gaussians(SHAPE, sites, height, 3.0) + 0.05 * rng.standard_normal(SHAPE)
    size = default_patch_size(17.0)
    start = sample_positions(SHAPE, size, "random", 600, rng)
    *_, found = align(image.astype(np.float32), start, size, 17.0)
    reached = cKDTree(sites).query(found)[1]
    assert set(np.flatnonzero(in_image(sites, size))) <= set(reached)


def test_each_round_gives_windows_inside_the_image():
    image, _, separation = make("graphene")
    size = default_patch_size(separation)
    start = sample_positions(SHAPE, size, "random", 100, np.random.default_rng(1))
    rounds = list(align(image, start, size, separation))
    assert 2 <= len(rounds) <= 11
    for centres in rounds:
        corner = centres - (size - 1) / 2
        assert corner.min() >= -0.5
        assert (corner + size <= np.array(SHAPE) + 0.5).all()
        assert len(centres) <= len(start)
        assert len(np.unique(centres, axis=0)) == len(centres)


def test_windows_as_large_as_the_image_stay():
    image, _, separation = make("graphene")
    size = min(SHAPE)
    start = sample_positions(SHAPE, size, "random", 40, np.random.default_rng(1))
    *_, found = align(image, start, size, separation)
    assert 1 <= len(found) <= 40
    np.testing.assert_allclose(found[:, 1], (size - 1) / 2)


def test_masked_pixels_disturb_only_their_own_windows():
    image, vectors, separation = make("perovskite")
    size = default_patch_size(separation)
    image[100:130, 60:90] = np.nan
    start = sample_positions(SHAPE, size, "grid", 600, np.random.default_rng(1))
    *_, found = align(image, start, size, separation)
    away = np.abs(found - (114.5, 74.5)).max(axis=1) > 15 + size / 2
    assert away.sum() > 40
    assert off_lattice(found[away], vectors).max() < 1.0


def test_unit_of_the_image_does_not_matter():
    image, _, separation = make("perovskite")
    size = default_patch_size(separation)
    start = sample_positions(SHAPE, size, "random", 300, np.random.default_rng(1))
    *_, plain = align(image, start, size, separation)
    *_, other = align(image * 1000 + 300, start, size, separation)
    assert len(plain) == len(other)
    np.testing.assert_allclose(plain, other, atol=0.02)


# --- matching ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9, 12])
def test_score_is_the_weighted_correlation_coefficient(size):
    rng = np.random.default_rng(0)
    image = (40 + 5 * rng.standard_normal((31, 40))).astype(np.float32)
    matcher = Matcher.of(image, size, 3.0)
    pixel = np.arange(size) - (size - 1) / 2
    weight = np.exp(-(pixel[:, None] ** 2 + pixel**2) / (2 * 3.0**2))
    pattern = rng.standard_normal((size, size)).astype(np.float32)
    score = matcher.score(pattern)
    assert score.shape == (31 - size + 1, 40 - size + 1)
    for y, x in ((0, 0), (7, 3), (31 - size, 40 - size)):
        window = image[y : y + size, x : x + size]
        covariance = np.cov(window.ravel(), pattern.ravel(), aweights=weight.ravel())
        expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert score[y, x] == pytest.approx(expected, abs=1e-4)


def test_better_maxima_keep_worse_ones_at_a_distance():
    score = np.zeros((30, 60), dtype=np.float32)
    score[10, 10], score[10, 16], score[10, 22], score[20, 50], score[0, 40] = 0.9, 0.8, 0.7, 0.6, 1
    places, value = best_first(score, 8.0)
    # 22 is near to 16 alone, which is itself too near to a better one
    assert places.tolist() == [[10, 10], [10, 22], [20, 50]]
    np.testing.assert_allclose(value, [0.9, 0.7, 0.6])


# --- where windows start -----------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["grid", "random"])
@pytest.mark.parametrize("size", [10, 15, 60])
def test_sampled_windows_lie_in_the_image_and_reach_its_edges(sampling, size):
    positions = sample_positions((60, 200), size, sampling, 500, np.random.default_rng(0))
    low = (size - 1) / 2
    high = np.array([60, 200]) - 1 - low
    assert ((positions >= low) & (positions <= high)).all()
    if size < 60:
        assert len(positions) == pytest.approx(500, rel=0.1)
    assert (positions.max(axis=0) > high - 3).all()
    assert (positions.min(axis=0) < low + 3).all()


def test_grid_is_square_and_random_follows_its_generator():
    grid = sample_positions((100, 300), 10, "grid", 400, np.random.default_rng(0))
    y, x = (np.unique(axis) for axis in grid.T)
    assert np.diff(y).mean() == pytest.approx(np.diff(x).mean(), rel=0.1)
    first, again, other = (
        sample_positions((100, 300), 10, "random", 400, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
