import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import KDTree

from napari_shiftvae.core.atoms import (
    automatic_threshold,
    candidates,
    estimate_separation,
    find_atoms,
    select,
)
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import read_image
from napari_shiftvae.core.simulate import SIMULATIONS


def drawn(shape, positions, height, width):
    """Image of Gaussian columns; height and width [px] are numbers or one each."""
    y, x = (np.arange(length)[:, None] for length in shape)
    along_y = np.exp(-0.5 * ((y - positions[:, 0]) / width) ** 2) * height  # (H, N)
    along_x = np.exp(-0.5 * ((x - positions[:, 1]) / width) ** 2)  # (W, N)
    return along_y @ along_x.T


def lattice_positions(shape, vectors, basis=((0.0, 0.0),)):
    """Positions in the image and the row of `basis` of each."""
    vectors = np.asarray(vectors, dtype=float)
    n = int(2 * max(shape) / abs(np.linalg.svd(vectors)[1].min())) + 2
    cells = np.stack(np.mgrid[-n : n + 1, -n : n + 1], axis=-1).reshape(-1, 2)
    positions = np.concatenate([(cells + place) @ vectors for place in basis])
    positions += np.array(shape) / 2 + 0.3
    kind = np.repeat(np.arange(len(basis)), len(cells))
    inside = ((positions > 0) & (positions < np.array(shape) - 1)).all(axis=1)
    return positions[inside], kind[inside]


def rotated(vectors, angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(vectors, dtype=float) @ np.array([[c, s], [-s, c]])


def found_and_false(found, truth, shape, separation):
    """Fraction of the true columns off the border that were found, and of found ones not true."""
    inner = ((truth > separation / 2) & (truth < np.array(shape) - 1 - separation / 2)).all(axis=1)
    to_found = KDTree(found.positions_yx).query(truth[inner])[0]
    to_truth = KDTree(truth).query(found.positions_yx)[0]
    return np.mean(to_found < 0.3 * separation), np.mean(to_truth > 0.3 * separation)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
@pytest.mark.parametrize(
    ("kind", "pixel_size_nm"),
    [
        ("perovskite", 0.008),
        ("perovskite", 0.015),
        ("perovskite", 0.03),
        ("graphene", 0.005),
        ("graphene", 0.012),
        ("graphene", 0.024),
        ("stm", 0.01),
        ("stm", 0.02),
        ("stm", 0.05),
    ],
)
def test_all_columns_are_found_and_nothing_else(kind, pixel_size_nm, noise):
    made = SIMULATIONS[kind](
        rng=np.random.default_rng(3), shape=(300, 340), pixel_size_nm=pixel_size_nm, noise=noise
    )
    truth = made.truth[made.truth["kind"] != "vacancy"][["y_px", "x_px"]].to_numpy()
    found = find_atoms(made.image)
    assert found.separation_px == pytest.approx(made.separation_px, rel=0.12)
    share, false = found_and_false(found, truth, made.image.shape, made.separation_px)
    assert share > (0.9 if noise > 0.15 else 0.98)
    assert false < 0.01


SQUARE = [[1.0, 0.0], [0.0, 1.0]]
HEXAGONAL = [[0.0, 1.0], [3**0.5 / 2, 0.5]]


@pytest.mark.parametrize("angle", [0.0, 0.35])
@pytest.mark.parametrize("separation", [6, 13, 29, 60])
@pytest.mark.parametrize(
    ("vectors", "basis", "heights"),
    [
        pytest.param(SQUARE, [(0, 0)], [1], id="square"),
        pytest.param(HEXAGONAL, [(0, 0)], [1], id="hexagonal"),
        # the Fourier transform of this one is that of the strong columns, sqrt(2) farther apart
        pytest.param(
            np.sqrt(2) * np.array(SQUARE), [(0, 0), (0.5, 0.5)], [1, 0.25], id="4:1 centred"
        ),
        pytest.param(
            np.sqrt(3) * np.array(HEXAGONAL), [(0, 0), (1 / 3, 1 / 3)], [1, 0.4], id="hexagons"
        ),
        pytest.param([[0, 2], [1.4, 0]], [(0, 0), (0.5, 0)], [1, 0.4], id="rows"),
    ],
)
def test_separation_is_that_of_all_sublattices(vectors, basis, heights, separation, angle):
    shape = (min(500, 14 * separation + 30), min(540, 15 * separation + 30))
    truth, kind = lattice_positions(shape, rotated(vectors, angle) * separation, basis)
    image = drawn(shape, truth, np.array(heights)[kind], 0.22 * separation)
    image += 0.02 * np.random.default_rng(0).standard_normal(shape)
    assert estimate_separation(image) == pytest.approx(separation, rel=0.1)


@pytest.fixture(scope="module")
def made():
    return SIMULATIONS["perovskite"](
        rng=np.random.default_rng(1), shape=(220, 260), pixel_size_nm=0.02, noise=0.05
    )


def same_atoms(one, other, tolerance=1e-3):
    assert len(one) == len(other)
    assert KDTree(one).query(other)[0].max() < tolerance


def test_background_and_contamination_change_nothing(made):
    y, x = np.mgrid[: made.image.shape[0], : made.image.shape[1]]
    slope = 0.01 * x - 0.005 * y
    dirt = 2 * np.exp(-0.5 * ((y - 90) ** 2 + (x - 140) ** 2) / 40**2)
    plain, dirty = find_atoms(made.image), find_atoms(made.image + slope + dirt)
    same_atoms(plain.positions_yx, dirty.positions_yx, tolerance=0.35)


def test_shifted_image_shifts_the_atoms(made):
    separation = made.separation_px
    whole = find_atoms(made.image, separation_px=separation, threshold=0.1)
    part = find_atoms(made.image[7:, 11:], separation_px=separation, threshold=0.1)
    shifted = part.positions_yx + np.array([7, 11])
    far_from_cut = ((whole.positions_yx - [7, 11]) > 2 * separation).all(axis=1)
    assert KDTree(shifted).query(whole.positions_yx[far_from_cut])[0].max() < 1e-2


def test_turned_image_turns_the_atoms(made):
    turned = find_atoms(np.rot90(made.image)).positions_yx
    back = np.column_stack([turned[:, 1], made.image.shape[1] - 1 - turned[:, 0]])
    # halving the image from the other side changes the estimated separation a little
    same_atoms(find_atoms(made.image).positions_yx, back, tolerance=0.1)


@pytest.mark.parametrize(("gain", "offset"), [(7.0, 0.0), (1e-6, 1.0), (2e4, 3e6)])
def test_scaled_intensities_give_the_same_atoms(made, gain, offset):
    plain, scaled = find_atoms(made.image), find_atoms(made.image * gain + offset)
    # adding a large number costs digits of single precision
    same_atoms(plain.positions_yx, scaled.positions_yx, tolerance=0.3 if offset == 1.0 else 0.01)
    if offset != 1.0:
        np.testing.assert_allclose(scaled.amplitude, gain * plain.amplitude, rtol=0.02)


def test_dark_atoms_of_the_inverted_image_are_the_same(made):
    bright, dark = find_atoms(made.image), find_atoms(-made.image, dark=True)
    same_atoms(bright.positions_yx, dark.positions_yx)
    assert dark.dark
    assert (dark.amplitude > 0).all()


@pytest.mark.parametrize("top", [0.5, 0.7])
def test_saturated_columns_are_found_once(made, top):
    saturated = find_atoms(made.image.clip(max=top))
    assert saturated.separation_px == pytest.approx(made.separation_px, rel=0.12)
    truth = made.truth[["y_px", "x_px"]].to_numpy()
    share, false = found_and_false(saturated, truth, made.image.shape, made.separation_px)
    assert share > 0.98
    assert false < 0.01


@pytest.mark.parametrize("radius", [2, 4, 7])
def test_flat_discs_are_found_once(radius):
    y, x = np.mgrid[:200, :240]
    discs = (y % 20 - 10) ** 2 + (x % 20 - 10) ** 2 < radius**2
    positions = find_atoms(discs).positions_yx
    truth = np.stack(np.mgrid[10:200:20, 10:240:20], axis=-1).reshape(-1, 2)
    same_atoms(positions, truth, tolerance=0.2)


def test_integer_images_are_taken(made):
    counts = np.round(1000 * made.image).clip(0).astype(np.uint16)
    same_atoms(find_atoms(made.image).positions_yx, find_atoms(counts).positions_yx, 0.1)


def test_atoms_are_sorted_by_y_then_x(made):
    positions = find_atoms(made.image).positions_yx
    assert np.array_equal(positions, positions[np.lexsort((positions[:, 1], positions[:, 0]))])


def test_masked_pixels_hold_no_atoms_and_spoil_none(made):
    masked = made.image.copy()
    masked[60:130, 100:170] = np.nan
    masked[:, 240:] = np.inf
    whole, found = find_atoms(made.image).positions_yx, find_atoms(masked).positions_yx
    hidden = np.isnan(masked) | np.isinf(masked)
    assert not hidden[tuple(np.rint(found).astype(int).T)].any()
    distance = ndimage.distance_transform_edt(~hidden)[tuple(np.rint(whole).astype(int).T)]
    clear = whole[distance > made.separation_px]
    assert KDTree(found).query(clear)[0].max() < 0.3
    assert len(found) < len(whole) - 30
    assert KDTree(whole).query(found)[0].max() < 0.3 * made.separation_px


def test_hole_in_the_sample_stays_empty(made):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: made.image.shape[0], : made.image.shape[1]]
    hole = (y - 110) ** 2 + (x - 130) ** 2 < 45**2
    image = np.where(hole, 0.05 * rng.standard_normal(hole.shape), made.image)
    positions = find_atoms(image).positions_yx
    from_middle = np.hypot(*(positions - [110, 130]).T)
    assert not (from_middle < 35).any()
    assert (from_middle > 50).sum() > 200


def test_positions_are_near_the_best_possible():
    shape, separation, noise = (400, 400), 16.0, 0.1
    truth, _ = lattice_positions(shape, rotated(SQUARE, 0.2) * separation)
    rng = np.random.default_rng(2)
    image = drawn(shape, truth, 1.0, 0.22 * separation) + noise * rng.standard_normal(shape)
    inner = truth[((truth > separation) & (truth < 399 - separation)).all(axis=1)]
    found = find_atoms(image).positions_yx
    nearest = KDTree(found).query(inner)[1]
    rms = np.sqrt(np.mean((found[nearest] - inner) ** 2))
    # Cramer-Rao bound per axis of a lone 2D Gaussian of known width
    assert rms < 1.35 * noise * np.sqrt(2 / np.pi)
    clean = find_atoms(drawn(shape, truth, 1.0, 0.22 * separation)).positions_yx
    assert KDTree(clean).query(inner)[0].max() < 0.06


def test_threshold_chooses_among_candidates_found_once(made):
    spots = candidates(made.image)
    counts = [len(select(spots, threshold)) for threshold in (0.0, 0.3, 0.6, 0.9)]
    assert counts[0] == len(spots)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    automatic = automatic_threshold(spots)
    once = find_atoms(made.image)
    assert once.threshold == automatic
    np.testing.assert_array_equal(once.positions_yx, select(spots, automatic).positions_yx)
    strong = select(spots, 0.6)
    is_a = made.truth["sublattice"] == "A"
    of_a = made.truth[is_a][["y_px", "x_px"]].to_numpy()
    assert KDTree(of_a).query(strong.positions_yx)[0].max() < 2


def test_nothing_above_the_threshold_is_empty_and_said(made):
    with pytest.warns(UserWarning, match="weaker than the threshold of 5"):
        found = find_atoms(made.image, threshold=5.0)
    assert found.positions_yx.shape == (0, 2)
    assert found.amplitude.shape == (0,)


@pytest.mark.parametrize("smooth", [0.0, 1.0, (0.0, 2.0)])
def test_noise_has_no_atoms(smooth):
    noise = np.random.default_rng(0).standard_normal((300, 300))
    noise = ndimage.gaussian_filter(noise, smooth)
    with pytest.raises(InputError, match="No regularly spaced bright atoms"):
        find_atoms(noise)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separation_px": 0.5}, "separation_px is 0.5"),
        ({"separation_px": 900}, "separation_px is 900"),
        ({"separation_px": float("nan")}, "separation_px is nan"),
        ({"separation_px": 14, "threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_bad_settings_get_a_sentence(made, options, message):
    with pytest.raises(InputError, match=message):
        find_atoms(made.image, **options)


@pytest.mark.parametrize("size", [(9, 9), (16, 40), (3, 300)])
def test_small_images_do_not_crash(size):
    image = np.random.default_rng(0).standard_normal(size)
    with pytest.raises(InputError, match="No regularly spaced"):
        find_atoms(image)


@pytest.mark.parametrize(
    ("name", "dark", "separation"),
    [
        # measured by hand, between the nearest columns of different sublattices
        ("pto_sro_haadf.ome.tif", False, 17.0),
        ("perovskite_adf.ome.tif", False, 21.0),
        ("perovskite_abf.ome.tif", True, 14.5),
        ("mos2_haadf_noisy.ome.tif", False, 23.0),  # the sulphur is lost in the noise
        ("si111_7x7_stm.ome.tif", False, 71.0),
        ("se_implanted_mos2.dm3", False, 13.7),
    ],
)
def test_measured_images(real_image, name, dark, separation):
    if name.endswith("dm3"):
        pytest.importorskip("rsciio", reason="RosettaSciIO is the extra `em`")
    found = find_atoms(read_image(real_image(name)).data, dark=dark)
    assert found.separation_px == pytest.approx(separation, rel=0.12)
    nearest = KDTree(found.positions_yx).query(found.positions_yx, k=2)[0][:, 1]
    assert np.median(nearest) == pytest.approx(separation, rel=0.12)
