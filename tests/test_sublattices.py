"""Kinds of atoms against the truth of simulated crystals."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import KDTree

from napari_shiftvae.core.atoms import find_atoms
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gaussians import refine_gaussians
from napari_shiftvae.core.rendering import draw_gaussians
from napari_shiftvae.core.simulate import graphene, perovskite
from napari_shiftvae.core.sublattices import find_beneath, group_atoms, subtract_columns


def measured(image, positions):
    return refine_gaussians(image, positions).table()


def truth_of(made, table, column):
    """What the truth says of each atom that was found."""
    sites = made.truth[made.truth["intensity"] > 0]
    _, row = KDTree(sites[["y_px", "x_px"]]).query(table[["y_px", "x_px"]])
    return sites[column].to_numpy()[row]


@pytest.fixture(scope="module")
def crystal():
    made = perovskite(rng=np.random.default_rng(5), shape=(300, 320), pixel_size_nm=0.02)
    return made, measured(made.image, find_atoms(made.image).positions_yx)


@pytest.mark.parametrize("by", [["place"], ["intensity"], ["place", "intensity"]])
def test_a_and_b_columns_of_a_perovskite(crystal, by):
    made, table = crystal
    groups = group_atoms(table, by=by)
    inner = groups.label >= 0
    assert inner.mean() > 0.85
    expected = np.where(truth_of(made, table, "sublattice") == "A", 0, 1)
    assert len(groups) == 2
    assert np.mean(groups.label[inner] == expected[inner]) > 0.995


def test_an_interface_splits_places_by_intensity():
    made = perovskite(
        rng=np.random.default_rng(6),
        shape=(300, 320),
        pixel_size_nm=0.02,
        noise=0.02,
        interface=0.5,
    )
    table = measured(made.image, find_atoms(made.image).positions_yx)
    groups = group_atoms(table, by=["place", "intensity"])
    assert len(groups) == 4
    kind = truth_of(made, table, "sublattice") + truth_of(made, table, "kind")
    inner = groups.label >= 0
    table = pd.crosstab(kind[inner], groups.label[inner]).to_numpy()
    assert table.max(axis=1).sum() / table.sum() > 0.98


def test_dopants_of_graphene_stand_out_by_intensity():
    made = graphene(rng=np.random.default_rng(2), shape=(300, 300), noise=0.03)
    table = measured(made.image, find_atoms(made.image).positions_yx)
    groups = group_atoms(table, by=["intensity"])
    assert len(groups) == 2
    dopant = truth_of(made, table, "kind") == "dopant"
    known = groups.label >= 0
    np.testing.assert_array_equal(groups.label[known] == 0, dopant[known])


def test_one_kind_with_scattered_intensity_stays_one():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :20].reshape(2, -1) * 12.0
    for spread in (0.02, 0.1, 0.3):
        amplitude = np.exp(spread * rng.standard_normal(len(y)))
        atoms = pd.DataFrame({"y_px": y, "x_px": x, "amplitude": amplitude})
        assert len(group_atoms(atoms, by=["intensity"])) == 1


def test_shape_tells_wide_columns_from_narrow_ones():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16].reshape(2, -1) * 12.0
    wide = rng.random(len(y)) < 0.3
    atoms = pd.DataFrame({"y_px": y, "x_px": x, "amplitude": 1.0})
    atoms["sigma_major_px"] = np.where(wide, 3.0, 2.0) * (1 + 0.02 * rng.standard_normal(len(y)))
    atoms["sigma_minor_px"] = atoms["sigma_major_px"] * 0.95
    groups = group_atoms(atoms, by=["shape"])
    assert len(groups) == 2
    assert len(np.unique(groups.label[wide])) == len(np.unique(groups.label[~wide])) == 1


def test_a_given_count_is_taken_and_missing_measurements_are_in_no_group():
    rng = np.random.default_rng(0)
    amplitude = rng.uniform(1, 2, 60)
    amplitude[7] = np.nan
    atoms = pd.DataFrame({"y_px": rng.random(60), "x_px": 0.0, "amplitude": amplitude})
    groups = group_atoms(atoms, by=["intensity"], count=3)
    assert len(groups) == 3
    assert groups.label[7] == -1


def test_without_a_lattice_places_say_nothing():
    rng = np.random.default_rng(0)
    atoms = pd.DataFrame(rng.uniform(0, 300, (80, 2)), columns=["y_px", "x_px"])
    groups = group_atoms(atoms, by=["place"])
    assert len(groups) == 1
    assert "no lattice" in groups.reason


@pytest.mark.parametrize(
    ("by", "count", "words"),
    [([], None, "choose one or more"), (["colour"], None, "choose"), (["shape"], None, "refine")],
)
def test_mistakes_are_said(by, count, words):
    atoms = pd.DataFrame({"y_px": [1.0, 2.0], "x_px": [1.0, 2.0], "amplitude": [1.0, 2.0]})
    with pytest.raises(InputError, match=words):
        group_atoms(atoms, by=by, count=count)


def test_subtracted_columns_leave_the_background():
    positions = np.array([[20.3, 24.8], [40.1, 30.5], [38.0, 55.25]])
    image = draw_gaussians((64, 80), positions, [1.0, 2.0, 3.0], 2.5) + 7
    atoms = pd.DataFrame(positions, columns=["y_px", "x_px"]).assign(
        amplitude=[1.0, 2.0, 3.0], sigma_major_px=2.5, sigma_minor_px=2.5, angle_rad=0.4
    )
    left = subtract_columns(image, atoms)
    np.testing.assert_allclose(left, 7, atol=3e-3)
    atoms.loc[1, "amplitude"] = np.nan  # one that could not be fitted stays
    assert subtract_columns(image, atoms)[40, 30] > 8.5


def test_an_elongated_column_is_taken_out_along_its_axis():
    y, x = np.mgrid[:41, :41] - 20.0
    angle = 0.6
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    image = np.exp(-0.5 * ((along / 4) ** 2 + (across / 2) ** 2))
    atoms = pd.DataFrame(
        {"y_px": [20.0], "x_px": [20.0], "amplitude": [1.0], "angle_rad": [angle]}
    ).assign(sigma_major_px=4.0, sigma_minor_px=2.0)
    assert np.abs(subtract_columns(image, atoms)).max() < 3e-3


@pytest.mark.parametrize("dark", [False, True])
def test_a_weak_sublattice_is_found_beneath_a_strong_one(dark):
    rng = np.random.default_rng(4)
    strong = np.mgrid[1:12, 1:12].reshape(2, -1).T * 22.0
    weak = strong + 11.0
    image = draw_gaussians((270, 270), strong, 1.0, 3.6) + draw_gaussians(
        (270, 270), weak, 0.12, 3.0
    )
    image += 0.02 * rng.standard_normal(image.shape)
    image = -image if dark else image
    table = refine_gaussians(image, strong + 0.3, dark=dark).table()
    found = find_beneath(image, table, dark=dark)
    distance, _ = KDTree(weak).query(found.positions_yx)
    assert np.mean(distance < 2) > 0.97  # what is found is true
    reached, _ = KDTree(found.positions_yx).query(weak[(weak < 250).all(axis=1)])
    assert np.mean(reached < 2) > 0.97  # what is true is found
