"""Simulated images and patches: the image agrees with its truth, the noise and bounds are right."""

import numpy as np
import pytest
from scipy.spatial import KDTree

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.rendering import draw_gaussians, lattice_sites
from napari_shiftvae.core.simulate import (
    SIMULATIONS,
    Motif,
    Scan,
    cramer_rao,
    factor_patches,
    graphene,
    perovskite,
    stm_superlattice,
)

KINDS = sorted(SIMULATIONS)
COLUMNS = {
    *("y_px", "x_px", "site_y_px", "site_x_px", "sublattice", "intensity"),
    *("displacement_y_px", "displacement_x_px", "kind"),
}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def columns(table, *names):
    return table[list(names)].to_numpy()


# --- drawing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [(20.0, 20.0), (18.37, 23.81), (20.5, 19.5)])
def test_centroid_of_an_isolated_atom_is_its_position(place):
    image = draw_gaussians((41, 43), [place], 1.7, 2.5)
    y, x = np.indices(image.shape)
    centroid = np.array([(image * y).sum(), (image * x).sum()]) / image.sum()
    np.testing.assert_allclose(centroid, place, atol=1e-3)


def test_local_windows_add_up_to_the_full_sum(rng):
    positions = rng.uniform(-15, 65, (80, 2))  # many outside, reaching in
    height = rng.uniform(0.5, 2, 80)
    y, x = np.indices((50, 45))
    squared = (y - positions[:, 0, None, None]) ** 2 + (x - positions[:, 1, None, None]) ** 2
    full = (height[:, None, None] * np.exp(-squared / (2 * 3.0**2))).sum(axis=0)
    np.testing.assert_allclose(draw_gaussians((50, 45), positions, height, 3.0), full, atol=1e-4)


def test_row_offsets_move_each_row(rng):
    offset = rng.normal(0, 1.5, 31)
    image = draw_gaussians((31, 41), [(15, 20)], 1.0, 3.0, offset)
    centroid = (image * np.arange(41)).sum(axis=1) / image.sum(axis=1)
    np.testing.assert_allclose(centroid[8:24], 20 + offset[8:24], atol=1e-3)


def test_lattice_fills_the_frame_and_its_margin():
    vectors = [(7.0, 1.0), (-2.0, 9.0)]
    sites, index = lattice_sites((300, 200), vectors, [(0, 0), (0.5, 0.25)], (31.0, -4.0), 20.0)
    assert len(sites) == pytest.approx(2 * 340 * 240 / 65, rel=0.02)
    fractions = (sites - (31.0, -4.0)) @ np.linalg.inv(vectors)
    fractions -= np.array([(0, 0), (0.5, 0.25)])[index]
    np.testing.assert_allclose(fractions, np.rint(fractions), atol=1e-9)


# --- every kind of image -----------------------------------------------------------------------


def width_px(kind, simulation):
    truth = simulation.truth
    if kind == "perovskite":
        return np.where(truth["sublattice"] == "A", 0.054, 0.048) / simulation.pixel_size_nm
    if kind == "graphene":
        return np.full(len(truth), 0.04) / simulation.pixel_size_nm
    return np.where(truth["kind"] == "adatom", 0.4, 0.25) * simulation.separation_px


@pytest.mark.parametrize("kind", KINDS)
def test_truth_redraws_the_image(kind, rng):
    """Position and intensity of every row are right; the border has atoms from outside."""
    simulation = SIMULATIONS[kind](rng=rng, shape=(260, 240), noise=0.0)
    truth = simulation.truth
    drawn = np.zeros(simulation.image.shape)
    width = width_px(kind, simulation)
    for sigma in np.unique(width):
        rows = truth[width == sigma]
        places = columns(rows, "y_px", "x_px")
        drawn += draw_gaussians(drawn.shape, places, rows["intensity"], sigma)
    rest = simulation.image - drawn
    edge = 26
    inner = rest[edge:-edge, edge:-edge]
    assert np.ptp(inner) < 1e-3  # what is left is the constant background
    assert rest.max() - inner.mean() > 0.1  # atoms beyond the border reach in


@pytest.mark.parametrize("kind", KINDS)
def test_truth_table_is_complete_and_consistent(kind, rng):
    simulation = SIMULATIONS[kind](rng=rng, shape=(256, 320))
    truth = simulation.truth
    assert set(truth.columns) == COLUMNS
    assert simulation.image.shape == (256, 320)
    assert simulation.image.dtype == np.float32
    position = columns(truth, "y_px", "x_px")
    assert np.all((position >= -0.5) & (position < np.array([256, 320]) - 0.5))
    sites = columns(truth, "site_y_px", "site_x_px")
    displacement = columns(truth, "displacement_y_px", "displacement_x_px")
    np.testing.assert_allclose(position, sites + displacement, atol=1e-9)
    assert np.all(np.diff(position[:, 0]) >= 0)
    neighbour = KDTree(sites).query(sites, k=2)[0][:, 1]
    assert np.median(neighbour) == pytest.approx(simulation.separation_px, rel=1e-6)
    vacant = (truth["kind"] == "vacancy").to_numpy()
    assert np.array_equal(vacant, truth["intensity"].to_numpy() == 0)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_image_other_seed_other_image(kind):
    def make(seed):
        return SIMULATIONS[kind](rng=np.random.default_rng(seed), shape=(128, 128))

    first, again, other = make(3), make(3), make(4)
    np.testing.assert_array_equal(first.image, again.image)
    assert first.truth.equals(again.truth)
    assert not np.allclose(first.image, other.image, atol=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_white_and_as_strong_as_asked(kind):
    def make(noise):
        return SIMULATIONS[kind](rng=np.random.default_rng(5), shape=(256, 256), noise=noise)

    noisy = make(0.2)
    noise = noisy.image - make(0.0).image
    assert noisy.noise_sigma == 0.2
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert abs(noise.mean()) < 4 * 0.2 / 256
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 4 * 0.2**2 / 256


def test_drift_shears_the_sites_and_jitter_leaves_the_truth_alone():
    def make(scan):
        return perovskite(rng=np.random.default_rng(2), shape=(200, 200), scan=scan)

    still, drifted = make(None), make(Scan(drift_yx_px=(4.0, -6.0)))
    jittered = make(Scan(jitter_px=1.0, row_level=0.1))
    assert jittered.truth.equals(still.truth)
    assert not np.allclose(jittered.image, still.image, atol=0.1)
    fit, *_ = np.linalg.lstsq(
        np.column_stack([np.ones(len(drifted.truth)), columns(drifted.truth, *_SITE)]),
        columns(drifted.truth, "displacement_y_px", "displacement_x_px"),
    )
    assert np.abs(fit[1:]).max() < 0.01  # drift moves sites, it is not displacement
    # the A sublattice's rows, 400 pm apart, are stretched by the drift along y
    height = 0.4 / 0.015
    stretch = (1 + 4.0 / 199) * height
    sites = columns(drifted.truth[drifted.truth["sublattice"] == "A"], *_SITE)
    to_next = (sites[None] - sites[:, None]).reshape(-1, 2)
    near = to_next[np.linalg.norm(to_next - [stretch, 0], axis=1) < 5]
    expected_y = stretch * np.cos(0.03)
    expected_x = -height * np.sin(0.03) - 6.0 / 199 * height * np.cos(0.03)
    np.testing.assert_allclose(near.mean(axis=0), [expected_y, expected_x], atol=1e-6)


_SITE = ("site_y_px", "site_x_px")


# --- perovskite --------------------------------------------------------------------------------


def against_cage(simulation):
    """Displacement (y, x) of each B atom against the mean of its four A atoms; their sites."""
    truth = simulation.truth
    is_a = truth["sublattice"] == "A"
    a_sites, b_sites = columns(truth[is_a], *_SITE), columns(truth[~is_a], *_SITE)
    moved = ("displacement_y_px", "displacement_x_px")
    distance, cage = KDTree(a_sites).query(b_sites, k=4)
    whole = distance[:, 3] < 1.01 * simulation.separation_px
    mean = columns(truth[is_a], *moved)[cage].mean(axis=1)
    return (columns(truth[~is_a], *moved) - mean)[whole], b_sites[whole]


def test_displacement_flips_sign_across_walls_of_the_given_width(rng):
    """`width` between walls 8 nm apart is read off the truth: atanh of the profile is linear."""
    simulation = perovskite(
        rng=rng, shape=(128, 1024), rotation_rad=0.0, domain_width_nm=8.0, wall_width_nm=1.6
    )
    relative, sites = against_cage(simulation)
    profile, x = relative[:, 0] / (0.03 / 0.015), sites[:, 1]
    np.testing.assert_allclose(relative[:, 1], 0, atol=1e-9)
    assert profile.max() == pytest.approx(1, abs=0.02)
    assert profile.min() == pytest.approx(-1, abs=0.02)
    row = np.abs(sites[:, 0] - sites[np.argmin(np.abs(sites[:, 0] - 64)), 0]) < 1
    order = np.argsort(x[row])
    along, u = profile[row][order], x[row][order]
    flips = np.flatnonzero(np.diff(np.sign(along)))
    assert len(flips) in {1, 2}  # 15.4 nm hold one or two walls 8 nm apart
    for flip in flips:
        slope = np.ptp(np.arctanh(along[flip : flip + 2])) / (u[flip + 1] - u[flip])
        # the cage's mean is taken over half a cell to either side, which rounds the kink a little
        assert slope == pytest.approx(2 * 0.015 / 1.6, rel=0.05)


def test_displacement_follows_the_rotated_axis(rng):
    relative, _ = against_cage(perovskite(rng=rng, rotation_rad=0.3))
    along = relative @ [np.cos(0.3), -np.sin(0.3)]
    across = relative @ [np.sin(0.3), np.cos(0.3)]
    np.testing.assert_allclose(across, 0, atol=1e-9)
    assert along.max() > 1.5
    assert along.min() < -1.5


def test_interface_ends_polarisation_and_changes_contrast(rng):
    simulation = perovskite(rng=rng, rotation_rad=0.0, interface=0.5)
    truth = simulation.truth
    metal = truth["kind"] == "metal"
    assert metal.mean() == pytest.approx(0.5, abs=0.05)
    assert truth.loc[metal, "site_y_px"].min() > 255
    mean = truth.groupby([metal, "sublattice"])["intensity"].mean()
    np.testing.assert_allclose(mean, [1.0, 0.4, 0.75, 0.55], atol=0.02)
    relative, sites = against_cage(simulation)
    assert np.abs(relative[sites[:, 0] > 400]).max() < 0.01
    deep = relative[sites[:, 0] < 200]  # 30 pm are two pixels
    assert np.abs(deep).max() == pytest.approx(2, rel=0.04)


# --- graphene ----------------------------------------------------------------------------------


def test_graphene_has_the_defects_asked_for(rng):
    simulation = graphene(rng=rng, dopant_fraction=0.05, vacancy_fraction=0.02, noise=0.02)
    truth, image = simulation.truth, simulation.image
    share = truth["kind"].value_counts(normalize=True)
    assert share["dopant"] == pytest.approx(0.05, rel=0.05)
    assert share["vacancy"] == pytest.approx(0.02, rel=0.05)
    inside = truth[truth["y_px"].between(2, 509) & truth["x_px"].between(2, 509)]
    pixel = np.rint(columns(inside, "y_px", "x_px")).astype(int)
    value = image[pixel[:, 0], pixel[:, 1]]
    kind = inside["kind"].to_numpy()
    assert value[kind == "dopant"].min() > value[kind == "carbon"].max()
    assert value[kind == "vacancy"].max() < value[kind == "carbon"].min()


def test_neighbours_of_a_lone_defect_are_pushed_outward():
    simulation = graphene(
        rng=np.random.default_rng(26),  # puts the one dopant near the middle
        shape=(200, 200),
        dopant_fraction=1 / 210,
        vacancy_fraction=0.0,
    )
    truth = simulation.truth
    sites = columns(truth, *_SITE)
    displacement = columns(truth, "displacement_y_px", "displacement_x_px")
    (dopant,) = np.flatnonzero(truth["kind"] == "dopant")
    away = sites - sites[dopant]
    distance = np.linalg.norm(away, axis=1)
    near = (distance > 0) & (distance < 1.1 * simulation.separation_px)
    assert near.sum() == 3
    outward = (displacement[near] * away[near]).sum(axis=1) / distance[near]
    np.testing.assert_allclose(outward, 0.012 / 0.012, rtol=1e-6)  # 12 pm in pixels of 12 pm
    np.testing.assert_allclose(displacement[dopant], 0, atol=1e-9)
    assert np.abs(displacement[distance > 5 * simulation.separation_px]).max() < 0.02


# --- STM ---------------------------------------------------------------------------------------


def test_superlattice_repeats_after_root_13_and_not_before(rng):
    simulation = stm_superlattice(rng=rng, rotation_rad=0.0, defect_count=(0, 0))
    truth = simulation.truth
    sites, height = columns(truth, *_SITE), truth["intensity"].to_numpy()
    tree = KDTree(sites)

    def change(length_px, angle_rad):
        step = length_px * np.array([np.sin(angle_rad), np.cos(angle_rad)])
        distance, row = tree.query(sites + step)
        return np.abs(height[row] - height)[distance < 0.01]

    turn = np.arccos(3.5 / np.sqrt(13))  # 13.9 degrees between lattice and superlattice
    period = np.sqrt(13) * simulation.separation_px
    for angle in (turn, turn + np.pi / 3, turn + 2 * np.pi / 3):
        repeat = change(period, angle)
        assert len(repeat) > 500
        assert repeat.max() < 1e-9
    assert change(simulation.separation_px, 0.0).max() > 0.2
    assert height.max() == pytest.approx(1.4, abs=1e-9)
    assert height.min() > 0.8 - 1e-9
    displaced = np.linalg.norm(columns(truth, "displacement_y_px", "displacement_x_px"), axis=1)
    assert displaced[np.argmax(height)] < 1e-9  # stars are drawn together around an atom at rest
    # the six atoms around it move inward
    top = np.argmax(height * (np.abs(sites - 256).max(axis=1) < 150))
    ring = tree.query_ball_point(sites[top], 1.1 * simulation.separation_px)
    ring.remove(top)
    moved = columns(truth, "displacement_y_px", "displacement_x_px")[ring]
    assert np.all((moved * (sites[ring] - sites[top])).sum(axis=1) < 0)


def test_stm_defects_are_counted_and_visible(rng):
    simulation = stm_superlattice(rng=rng, defect_count=(5, 4))
    truth, image = simulation.truth, simulation.image
    assert truth["kind"].value_counts().to_dict() == {"surface": len(truth) - 9} | {
        "adatom": 5,
        "vacancy": 4,
    }
    pixel = np.rint(columns(truth, "y_px", "x_px")).astype(int).clip(0, 511)
    value = image[pixel[:, 0], pixel[:, 1]]
    kind = truth["kind"].to_numpy()
    assert value[kind == "adatom"].min() > 2
    assert value[kind == "vacancy"].max() < value[kind == "surface"].min() + 0.2


# --- the user's mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: perovskite(rng=rng, pixel_size_nm=0.0), "pixel_size_nm is 0.0"),
        (lambda rng: perovskite(rng=rng, wall_width_nm=-1.0), "wall_width_nm is -1.0"),
        (lambda rng: perovskite(rng=rng, noise=float("nan")), "noise is nan"),
        (lambda rng: perovskite(rng=rng, scan=Scan(jitter_px=-1.0)), "jitter_px is -1.0"),
        (lambda rng: graphene(rng=rng, dopant_fraction=-0.1), "give 0 or more"),
        (lambda rng: graphene(rng=rng, dopant_fraction=0.9, vacancy_fraction=0.2), "lower one"),
        (lambda rng: stm_superlattice(rng=rng, defect_count=(9000, 0)), "exceeds the number"),
        (lambda rng: factor_patches(rng=rng, count=0), "count is 0"),
        (lambda rng: factor_patches(rng=rng, noise=0.0), "noise is 0.0"),
        (lambda rng: factor_patches(rng=rng, electrons=9.0), "background 0.0"),
        (lambda _: Motif(sigma_px=0.0), "sigma_px is 0.0"),
        (lambda _: Motif(displacement_direction_yx=(0.0, 0.0)), "direction"),
        (lambda _: cramer_rao(np.ones((1, 3, 3)), 0.0), "noise_sigma is 0.0"),
    ],
)
def test_bad_input_gets_a_sentence(call, message, rng):
    with pytest.raises(InputError, match=message):
        call(rng)
