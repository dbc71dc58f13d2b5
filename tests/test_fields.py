import numpy as np
import pytest
from scipy.spatial import cKDTree

from napari_shiftvae.core import fields
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.fields import displacement, pixel_maps
from napari_shiftvae.core.lattice import fit_lattice


def scattered(count=300, size=100, seed=0):
    return np.random.default_rng(seed).uniform(5, size - 5, (count, 2))


def planes(positions):
    y, x = positions[..., 0], positions[..., 1]
    return np.stack([0.3 * y - 2 * x + 5, x + 100, 0 * y - 7], axis=-1)


def test_planes_are_drawn_as_planes():
    positions = scattered()
    maps = pixel_maps(positions, planes(positions), (100, 120))
    assert maps.shape == (3, 100, 120)
    assert maps.dtype == np.float32
    pixels = np.moveaxis(np.mgrid[:100, :120], 0, -1)
    truth = np.moveaxis(planes(pixels), -1, 0)
    inside = np.isfinite(maps)
    assert (inside == inside[0]).all()
    np.testing.assert_allclose(maps[inside], truth[inside], atol=1e-3)


def test_value_stands_on_the_pixel_of_its_atom():
    positions = np.array([(10, 10), (10, 40), (35, 10), (35, 40), (20, 25)])
    drawn = pixel_maps(positions, np.arange(5.0)[:, None], (50, 60))[0]
    np.testing.assert_allclose(drawn[tuple(positions.T)], np.arange(5), atol=1e-5)


def test_outside_the_hull_is_nan():
    corners = [(10, 10), (10, 40), (35, 10), (35, 40)]
    drawn = pixel_maps(corners, np.ones((4, 1)), (50, 60))[0]
    inside = np.zeros((50, 60), dtype=bool)
    inside[10:36, 10:41] = True
    np.testing.assert_array_equal(np.isfinite(drawn), inside)


def test_rows_with_nan_are_left_out():
    positions = scattered()
    values = planes(positions)
    values[5, 1] = np.nan
    values[9, 0] = np.inf
    positions[7] = np.nan
    kept = np.delete(np.arange(len(positions)), [5, 7, 9])
    np.testing.assert_array_equal(
        pixel_maps(positions, values, (100, 100)),
        pixel_maps(positions[kept], values[kept], (100, 100)),
    )


def test_blocks_of_rows_make_no_difference(monkeypatch):
    positions = scattered()
    whole = pixel_maps(positions, planes(positions), (100, 90), longest_edge_px=25)
    monkeypatch.setattr(fields, "BLOCK_PX", 700)
    np.testing.assert_array_equal(
        pixel_maps(positions, planes(positions), (100, 90), longest_edge_px=25), whole
    )


def test_holes_larger_than_the_longest_edge_are_not_bridged():
    y, x = (axis.ravel() for axis in np.mgrid[0:100:5, 0:100:5].astype(float))
    kept = np.hypot(y - 50, x - 50) > 18
    positions = np.column_stack([y, x])[kept]
    bridged = pixel_maps(positions, positions, (96, 96))[0]
    holed = pixel_maps(positions, positions, (96, 96), longest_edge_px=12)[0]
    assert np.isfinite(bridged).all()
    assert np.isnan(holed[50, 50])
    assert np.isnan(holed).sum() == pytest.approx(np.pi * 18**2, rel=0.35)


@pytest.mark.parametrize(
    "positions",
    [
        np.empty((0, 2)),
        [(3.0, 4.0)],
        [(3.0, 4.0), (8.0, 9.0)],
        [(1.0, 2.0 * i) for i in range(20)],
        [(0.1 * i, 0.3 * i) for i in range(20)],
        [(2.0, 2.0)] * 9,
        np.full((9, 2), np.nan),
    ],
    ids=["none", "one", "two", "row", "slanted row", "one place", "nan"],
)
def test_no_triangle_gives_empty_maps_and_a_warning(positions):
    with pytest.warns(UserWarning, match="The maps are empty"):
        maps = pixel_maps(positions, np.zeros((len(positions), 2)), (20, 30))
    assert maps.shape == (2, 20, 30)
    assert np.isnan(maps).all()


def test_no_values_give_no_maps():
    assert pixel_maps(scattered(), np.empty((300, 0)), (100, 100)).shape == (0, 100, 100)


@pytest.mark.parametrize("shape", [(299, 1), (300,), (300, 2, 2)])
def test_one_row_of_values_for_each_position(shape):
    with pytest.raises(InputError, match="one row for each of the 300 positions"):
        pixel_maps(scattered(), np.zeros(shape), (100, 100))


def test_displacement_is_zero_on_the_lattice_and_the_shift_off_it():
    i, j = np.mgrid[:9, :11].reshape(2, -1, 1)
    positions = 20 + i * np.array([15, 1]) + j * np.array([-2, 16])
    lattice = fit_lattice(positions)
    np.testing.assert_allclose(displacement(positions, lattice), 0, atol=1e-9)
    moved = positions + np.random.default_rng(0).standard_normal(positions.shape)
    np.testing.assert_allclose(displacement(moved, lattice), moved - positions, atol=1e-9)
    with pytest.raises(InputError, match="fitted to 99 atoms, not to 98"):
        displacement(positions[1:], lattice)


def test_displacement_is_nan_off_the_lattice():
    i, j = np.mgrid[:9, :11].reshape(2, -1, 1)
    positions = np.vstack([20 + i * np.array([15, 0]) + j * np.array([0, 16]), [(27.0, 28.0)]])
    moved = displacement(positions, fit_lattice(positions))
    assert np.isnan(moved[-1]).all()
    assert np.isfinite(moved[:-1]).all()


def test_nearest_gives_each_pixel_the_value_of_its_nearest_atom():
    """On a square lattice, too, where triangles could be drawn either way."""
    positions = np.stack(np.mgrid[5:60:9.0, 5:60:9.0], axis=-1).reshape(-1, 2)
    positions += np.random.default_rng(2).normal(0, 0.4, positions.shape)
    pixels = np.stack(np.mgrid[:64, :64], axis=-1).reshape(-1, 2)
    nearest = cKDTree(positions).query(pixels)[1].reshape(64, 64)
    drawn = pixel_maps(positions, np.arange(len(positions))[:, None], (64, 64), nearest=True)[0]
    inside = np.isfinite(drawn)
    assert inside.sum() > 2000
    assert (drawn[inside] == nearest[inside]).all()
    linear = pixel_maps(positions, positions, (64, 64))[0]
    assert (np.isfinite(linear) == inside).all()
