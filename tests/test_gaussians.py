import warnings

import numpy as np
import pytest

from napari_shiftvae.core.atoms import find_atoms
from napari_shiftvae.core.bounds import cramer_rao
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gaussians import refine_gaussians
from napari_shiftvae.core.images import read_image

SEPARATION = 14.0
BACKGROUND = 0.5
SQUARE = np.eye(2)
HEXAGONAL = np.array([[0, 1], [3**0.5 / 2, 0.5]])


def columns(n, vectors=SQUARE, basis=((0, 0),), separation=SEPARATION, seed=0):
    """Positions of n x n cells, turned and displaced a little, and the row of `basis` of each."""
    turn = np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
    cells = np.stack(np.mgrid[:n, :n], axis=-1).reshape(-1, 1, 2) + np.array(basis)
    kind = np.tile(np.arange(len(basis)), n * n)
    positions = cells.reshape(-1, 2) @ vectors @ turn * separation
    rng = np.random.default_rng(seed)
    return positions - positions.min(axis=0) + 1.5 * separation + rng.normal(
        0, 0.3, positions.shape
    ), kind


def gaussian(shape, truth):
    """Image and derivatives of one column: y, x, height, major, minor, angle."""
    y0, x0, height, major, minor, angle = truth
    y, x = np.mgrid[: shape[0], : shape[1]]
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    across = -(x - x0) * np.sin(angle) + (y - y0) * np.cos(angle)
    value = height * np.exp(-0.5 * ((along / major) ** 2 + (across / minor) ** 2))
    p, q = along / major**2, across / minor**2
    return value, np.stack(
        [
            value * (p * np.sin(angle) + q * np.cos(angle)),
            value * (p * np.cos(angle) - q * np.sin(angle)),
            value / height,
            value * along**2 / major**3,
            value * across**2 / minor**3,
            value * along * across * (minor**-2 - major**-2),
        ]
    )


def drawn(positions, height=1.0, major=2.8, minor=2.8, angle=0.0, noise=0.0, seed=1):
    """Image of columns, each drawn in a window of its own."""
    shape = tuple(np.ceil(positions.max(axis=0) + 1.5 * SEPARATION).astype(int))
    image = np.full(np.add(shape, 60), BACKGROUND)
    rows = np.broadcast_arrays(*positions.T, height, major, minor, angle)
    for y, x, *rest in zip(*rows, strict=True):
        top, left = int(y) - 20, int(x) - 20
        value, _ = gaussian((41, 41), (y - top, x - left, *rest))
        image[top + 30 : top + 71, left + 30 : left + 71] += value
    image = image[30:-30, 30:-30]
    return image + noise * np.random.default_rng(seed).standard_normal(image.shape)


def near(positions, seed=2, most=0.7):
    return positions + np.random.default_rng(seed).uniform(-most, most, positions.shape)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def bound_alone(noise, shape):
    """Cramer-Rao bound of a lone column in a large window, everything unknown."""
    _, slopes = gaussian((41, 41), (20.2, 19.7, 1.0, *shape))
    slopes = np.concatenate([slopes, np.ones((1, 41, 41))])
    return np.sqrt(np.diag(cramer_rao(slopes, noise)))


@pytest.mark.parametrize("noise", [0.01, 0.04, 0.1])
@pytest.mark.parametrize(
    ("major", "minor", "vectors"), [(1.75, 1.7, SQUARE), (2.6, 2.0, SQUARE), (2.6, 2.2, HEXAGONAL)]
)
def test_positions_reach_the_bound(noise, major, minor, vectors):
    truth, _ = columns(30, vectors)
    image = drawn(truth, 1.0, major, minor, 0.5, noise)
    found = refine_gaussians(image, near(truth))
    assert (found.flag == "").mean() > 0.998
    good = found.flag == ""
    error = (found.positions_yx - truth)[good]
    # 900 columns, two coordinates: their RMS is known to 1.7 %
    assert rms(error / bound_alone(noise, (major, minor, 0.5))[:2]) < 1.05
    assert rms(error / found.position_sd_yx[good]) == pytest.approx(1, abs=0.05)


def joint_bound(positions, sigma, noise, shape):
    """Cramer-Rao bound on the positions of round columns, one background, everything unknown."""
    slopes = [np.ones((1, *shape))]
    y, x = np.mgrid[: shape[0], : shape[1]]
    for y0, x0 in positions:
        dy, dx = y - y0, x - x0
        value = np.exp(-0.5 * (dy**2 + dx**2) / sigma**2)
        slopes.append(np.stack([f * value for f in (dy, dx, dy * 0 + 1, dy**2, dy * dx, dx**2)]))
    scale = np.sqrt(np.diag(cramer_rao(np.concatenate(slopes), noise)))[1:].reshape(-1, 6)[:, :2]
    return scale * sigma**2


@pytest.mark.parametrize("vectors", [SQUARE, HEXAGONAL], ids=["square", "hexagonal"])
@pytest.mark.parametrize(("ratio", "most"), [(0.2, 1.05), (0.25, 1.12)])
def test_overlapping_columns_reach_their_joint_bound(vectors, ratio, most):
    truth, _ = columns(6, vectors)
    sigma, noise = ratio * SEPARATION, 0.02
    errors, pulls, bounds = [], [], []
    for seed in range(12):
        image = drawn(truth, 1.0, sigma, sigma, noise=noise, seed=seed)
        found = refine_gaussians(image, near(truth, seed))
        assert (found.flag == "").all()
        errors.append(found.positions_yx - truth)
        pulls.append(errors[-1] / found.position_sd_yx)
        bounds.append(joint_bound(truth, sigma, noise, image.shape) if seed == 0 else bounds[0])
    # 864 coordinates: their RMS is known to 2.4 %
    assert rms(np.divide(errors, bounds)) < most
    assert rms(pulls) == pytest.approx(1, abs=0.08)


def test_every_parameter_and_its_sd():
    truth, _ = columns(30, separation=20.0)
    rng = np.random.default_rng(3)
    height = rng.uniform(0.7, 1.3, len(truth))
    major = rng.uniform(2.4, 2.8, len(truth))
    minor = rng.uniform(1.8, 2.1, len(truth))
    angle = rng.uniform(-1.5, 1.5, len(truth))
    image = drawn(truth, height, major, minor, angle, noise=0.02)
    found = refine_gaussians(image, near(truth))
    assert (found.flag == "").all()
    turned = (found.angle_rad - angle + np.pi / 2) % np.pi - np.pi / 2
    for error, sd in [
        ((found.positions_yx - truth)[:, 0], found.position_sd_yx[:, 0]),
        ((found.positions_yx - truth)[:, 1], found.position_sd_yx[:, 1]),
        (found.amplitude - height, found.amplitude_sd),
        (found.sigma_major_px - major, found.sigma_major_sd_px),
        (found.sigma_minor_px - minor, found.sigma_minor_sd_px),
        (found.ellipticity - major / minor, found.ellipticity_sd),
        (turned, found.angle_sd_rad),
        (found.background - BACKGROUND, found.background_sd),
    ]:
        # 900 columns: 2.4 % statistical
        assert rms(error / sd) == pytest.approx(1, abs=0.06)
        assert abs(np.mean(error / sd)) < 0.1
    assert found.residual == pytest.approx(1, abs=0.3)
    assert (found.angle_rad > -np.pi / 2).all()
    assert (found.angle_rad <= np.pi / 2).all()


def test_weak_columns_between_strong_ones_are_not_biased():
    truth, kind = columns(16, SQUARE * 2**0.5, ((0, 0), (0.5, 0.5)))
    height = np.array([1.0, 0.25])[kind]
    noise = 0.01
    found = refine_gaussians(drawn(truth, height, 2.9, 2.7, 0.3, noise), near(truth))
    assert (found.flag == "").all()
    weak = kind == 1
    assert abs(np.mean(found.amplitude[weak]) - 0.25) < 0.002
    for axis in (0, 1):
        pull = (found.positions_yx - truth)[weak, axis] / found.position_sd_yx[weak, axis]
        assert rms(pull) < 1.15  # 256 columns: 4.4 %
    np.testing.assert_allclose(found.background[weak].mean(), BACKGROUND, atol=0.004)


@pytest.fixture(scope="module")
def crystal():
    truth, _ = columns(12)
    return truth, drawn(truth, 1.0, 2.9, 2.5, 0.4, 0.03)


def numbers(found):
    return found.table().drop(columns="flag").to_numpy(dtype=float)


def test_dark_columns_are_bright_ones_of_the_inverted_image(crystal):
    truth, image = crystal
    bright, dark = refine_gaussians(image, truth), refine_gaussians(-image, truth, dark=True)
    np.testing.assert_allclose(dark.positions_yx, bright.positions_yx, atol=1e-4)
    np.testing.assert_allclose(dark.amplitude, bright.amplitude, rtol=1e-3)
    np.testing.assert_allclose(dark.background, -bright.background, atol=1e-3)


def test_scale_and_offset_of_the_intensity(crystal):
    truth, image = crystal
    plain, scaled = refine_gaussians(image, truth), refine_gaussians(200 * image + 1000, truth)
    np.testing.assert_allclose(scaled.positions_yx, plain.positions_yx, atol=2e-3)
    np.testing.assert_allclose(scaled.position_sd_yx, plain.position_sd_yx, rtol=0.01)
    np.testing.assert_allclose(scaled.amplitude, 200 * plain.amplitude, rtol=2e-3)
    np.testing.assert_allclose(scaled.amplitude_sd, 200 * plain.amplitude_sd, rtol=0.01)
    np.testing.assert_allclose(scaled.background, 200 * plain.background + 1000, rtol=1e-3)


def test_shift_by_whole_pixels(crystal):
    truth, image = crystal
    moved = refine_gaussians(
        np.pad(image, ((5, 0), (3, 0)), constant_values=BACKGROUND), truth + np.array([5, 3])
    )
    np.testing.assert_allclose(
        moved.positions_yx - np.array([5, 3]),
        refine_gaussians(image, truth).positions_yx,
        atol=2e-3,
    )


def test_order_does_not_matter(crystal):
    truth, image = crystal
    order = np.random.default_rng(0).permutation(len(truth))
    np.testing.assert_allclose(
        numbers(refine_gaussians(image, truth[order])),
        numbers(refine_gaussians(image, truth))[order],
        atol=2e-3,
    )


def flagged(found, start, index, reason):
    assert found.flag[index] == reason
    np.testing.assert_array_equal(found.positions_yx[index], start[index])
    assert np.isnan(found.position_sd_yx[index]).all()
    assert np.isnan(found.amplitude[index])


def test_bad_positions_are_flagged_and_stay(crystal):
    truth, image = crystal
    start = np.concatenate(
        [near(truth), [[-9.0, 40.0], truth[30] + [0.9, 0.4], truth[31] - [0.1, 1.2], [5.0, 5.0]]]
    )
    found = refine_gaussians(image, start)
    n = len(truth)
    flagged(found, start, n, "outside")
    assert sorted([found.flag[30], found.flag[n + 1]]) == ["", "duplicate"]
    assert sorted([found.flag[31], found.flag[n + 2]]) == ["", "duplicate"]
    assert found.flag[n + 3] in {"no peak", "moved", "too wide", "too long"}
    np.testing.assert_array_equal(found.positions_yx[n + 3], start[n + 3])
    others = np.setdiff1d(np.arange(n), [30, 31])
    assert (found.flag[others] == "").all()


def test_columns_cut_by_the_border_are_flagged(crystal):
    truth, image = crystal
    first = int(np.argmin(truth[:, 0]))
    top = round(truth[first, 0])
    start = truth - [top, 0]
    keep = start[:, 0] > -0.4
    found = refine_gaussians(image[top:], start[keep])
    index = int(np.argmin(start[keep][:, 0]))
    flagged(found, start[keep], index, "border")
    assert (found.flag[start[keep][:, 0] > 8] == "").all()


def test_masked_pixels_count_nothing_and_too_many_are_flagged(crystal):
    truth, image = crystal
    masked = image.copy()
    hidden = np.rint(truth[70]).astype(int)
    masked[hidden[0] - 3 : hidden[0] + 4, hidden[1] - 3 : hidden[1] + 4] = np.nan
    dead = np.rint(truth[20]).astype(int)
    masked[dead[0], dead[1] + 1] = np.nan
    broken = np.where(np.isnan(masked), 1e3, masked)
    found, whole = refine_gaussians(masked, truth), refine_gaussians(image, truth)
    flagged(found, truth, 70, "masked")
    assert (np.delete(found.flag, 70) == "").all()
    assert (
        np.abs(found.positions_yx - whole.positions_yx)[20].max()
        < 2 * whole.position_sd_yx[20].max()
    )
    assert refine_gaussians(broken, truth).flag[20] != ""


def test_missing_column_is_no_peak(crystal):
    truth, _ = crystal
    height = np.ones(len(truth))
    height[50] = 1e-9
    found = refine_gaussians(drawn(truth, height, noise=0.03), truth)
    assert found.flag[50]
    np.testing.assert_array_equal(found.positions_yx[50], truth[50])
    assert (np.delete(found.flag, 50) == "").all()


def test_start_far_away_does_not_move_silently(crystal):
    truth, image = crystal
    start = truth.copy()
    start[40] += [0, 9]  # beyond the middle between two columns
    found = refine_gaussians(image, start)
    assert found.flag[40]
    np.testing.assert_array_equal(found.positions_yx[40], start[40])


def test_a_wide_blob_and_a_single_bright_pixel_are_no_columns(crystal):
    truth, _ = crystal
    width = np.full(len(truth), 2.6)
    width[77] = 9.0
    image = drawn(
        np.rint(truth), np.maximum(np.arange(len(truth)) != 30, 1e-9), width, width, noise=0.01
    )
    image[tuple(np.rint(truth[30]).astype(int))] += 1.0
    found = refine_gaussians(image, np.rint(truth))
    assert found.flag[77] in {"too wide", "poor fit", "no peak"}
    assert found.flag[30] in {"too narrow", "poor fit"}


def test_one_column_and_none():
    truth = np.array([[30.4, 31.7]])
    image = drawn(truth, 3.0, 3.2, 2.4, 0.3, 0.02)
    found = refine_gaussians(image, np.rint(truth))
    assert np.abs(found.positions_yx - truth).max() < 4 * found.position_sd_yx.max()
    assert found.ellipticity[0] == pytest.approx(3.2 / 2.4, abs=0.05)
    empty = refine_gaussians(image, np.empty((0, 2)))
    assert len(empty) == 0
    assert empty.positions_yx.shape == empty.position_sd_yx.shape == (0, 2)
    assert empty.table().shape[0] == 0


def test_table_names_its_units(crystal):
    truth, image = crystal
    table = refine_gaussians(image, truth).table()
    assert list(table.columns[:6]) == [
        "y_px",
        "x_px",
        "y_sd_px",
        "x_sd_px",
        "amplitude",
        "amplitude_sd",
    ]
    assert {"sigma_major_px", "angle_sd_rad", "background", "residual_fit", "flag"} <= set(
        table.columns
    )
    assert len(table) == len(truth)


@pytest.mark.parametrize(
    ("positions", "options", "message"),
    [
        ([[1.0, 2.0, 3.0]], {}, "give N x 2 numbers"),
        ([1.0, 2.0], {}, "give N x 2 numbers"),
        ([[1j, 2.0]], {}, "give N x 2 numbers"),
        ([[np.nan, 2.0], [3.0, 3.0]], {}, "1 of 2 positions are not finite"),
        ([[5.0, 5.0]], {"separation_px": 0.5}, "separation_px is 0.5"),
        ([[5.0, 5.0]], {"separation_px": np.nan}, "separation_px is nan"),
    ],
)
def test_bad_input_gets_a_sentence(crystal, positions, options, message):
    with pytest.raises(InputError, match=message):
        refine_gaussians(crystal[1], positions, **options)


def test_complex_images_are_refused():
    with pytest.raises(InputError, match="complex"):
        refine_gaussians(np.ones((9, 9), dtype=complex), [[4, 4]])


@pytest.mark.parametrize(
    ("name", "dark", "share"),
    [
        ("pto_sro_haadf.ome.tif", False, 0.85),
        ("perovskite_adf.ome.tif", False, 0.98),
        ("perovskite_abf.ome.tif", True, 0.85),
        ("mos2_haadf_noisy.ome.tif", False, 0.95),
        ("si111_7x7_stm.ome.tif", False, 0.9),
    ],
)
def test_measured_images(real_image, name, dark, share):
    image = read_image(real_image(name)).data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atoms = find_atoms(image, dark=dark)
    found = refine_gaussians(
        image, atoms.positions_yx, separation_px=atoms.separation_px, dark=dark
    )
    good = found.flag == ""
    assert good.mean() > share
    moved = np.hypot(*(found.positions_yx - atoms.positions_yx)[good].T)
    assert np.median(moved) < 0.1 * atoms.separation_px
