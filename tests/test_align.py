"""Windows cut anywhere end on one motif, one window on each, with no period missed."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_shiftvae.core.align import align, sample_positions
from napari_shiftvae.core.patches import default_patch_size
from napari_shiftvae.core.rendering import hexagonal_vectors, rotated_axes
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
    inside = np.prod(np.array(SHAPE) - size) / abs(np.linalg.det(vectors))
    assert len(found) > 0.8 * inside
    nearest = cKDTree(found).query(found, k=2)[0][:, 1]
    assert nearest.min() > 0.9 * np.linalg.norm(vectors, axis=1).min()  # each place once


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
    counts = [len(centres) for centres in rounds]
    assert counts == sorted(counts, reverse=True)  # windows that meet become one


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
