"""Patches: where the windows lie, what is set aside and why, what their pixels are."""

import numpy as np
import pytest
import torch

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.patches import (
    default_patch_size,
    extract_patches,
    slow_background,
    stack_patches,
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def image(rng):
    return rng.normal(50, 7, (70, 90)).astype(np.float32)


@pytest.fixture
def picks(rng):
    """Anywhere between the pixels, and all distinct."""
    grid = np.stack(np.meshgrid(np.arange(20, 50, 3), np.arange(20, 70, 3), indexing="ij"), -1)
    return grid.reshape(-1, 2) + rng.uniform(-1, 1, (170, 2))


def unnormalised(patches, rows=slice(None)):
    scale, offset = patches.scale[rows, None, None], patches.offset[rows, None, None]
    return patches.gather(rows).numpy() * scale + offset


# --- where the windows lie ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [6, 11, 16])
def test_remainder_and_centre_make_the_pick(image, picks, size):
    patches = extract_patches(image, picks, size)
    assert len(patches) == len(picks)
    np.testing.assert_array_equal(patches.index, np.arange(len(picks)))
    np.testing.assert_allclose(patches.pick_yx, picks, atol=1e-12)
    np.testing.assert_allclose(
        patches.corner_yx + (size - 1) / 2 + patches.remainder_yx_px, picks, atol=1e-12
    )
    assert np.abs(patches.remainder_yx_px).max() <= 0.5


@pytest.mark.parametrize("size", [7, 8])
def test_pixels_are_slices_of_the_image(image, picks, size):
    patches = extract_patches(image, picks, size, normalisation="global")
    sliced = [image[y : y + size, x : x + size] for y, x in patches.corner_yx]
    np.testing.assert_allclose(unnormalised(patches), sliced, rtol=1e-5)


def test_some_rows_are_those_rows_of_all(image, picks):
    patches = extract_patches(image, picks, 8)
    rows = np.array([7, 3, 3, 39])
    everything = patches.gather()
    assert np.array_equal(patches.gather(rows), everything[rows])
    assert np.array_equal(patches.gather(slice(5, 9)), everything[5:9])


def test_gathered_pixels_are_a_copy(image):
    before = image.copy()
    patches = extract_patches(image, [(30.0, 30.0)], 8)
    patches.gather().fill_(0)
    assert np.array_equal(image, before)
    assert float(patches.gather().std()) > 0.5


def test_a_feature_lies_where_the_remainder_says():
    """A spot drawn at the pick has its centroid at the remainder, from the window's centre."""
    pick = np.array([33.3, 41.8])
    y, x = np.indices((70, 90))
    spot = np.exp(-((y - pick[0]) ** 2 + (x - pick[1]) ** 2) / (2 * 1.2**2))
    for size in (16, 17):
        patches = extract_patches(spot.astype(np.float32), [pick], size, normalisation="global")
        pixels = unnormalised(patches)[0]
        place = np.arange(size) - (size - 1) / 2
        centroid = [(pixels.sum(1) * place).sum(), (pixels.sum(0) * place).sum()] / pixels.sum()
        np.testing.assert_allclose(centroid, patches.remainder_yx_px[0], atol=1e-3)


# --- what is set aside -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 11])
def test_windows_leave_the_image_exactly_at_the_border(image, size):
    height, width = image.shape
    half = (size - 1) / 2
    last_y, last_x = height - 1 - half, width - 1 - half
    inside = [(half, half), (half, last_x), (last_y, half), (last_y, last_x)]
    outside = [(half - 1, 30), (30, half - 1), (last_y + 1, 30), (30, last_x + 1), (-99, 30)]
    patches = extract_patches(image, inside + outside, size)
    assert patches.set_aside.tolist() == [""] * 4 + ["border"] * 5
    assert patches.index.tolist() == [0, 1, 2, 3]


def test_windows_with_many_invalid_pixels_are_set_aside(image):
    size = 9
    image[20:26, 38:43] = np.nan
    image[60, 12] = np.inf
    picks = np.stack(np.meshgrid(np.arange(4, 66), np.arange(4, 86), indexing="ij"), -1)
    picks = picks.reshape(-1, 2).astype(float)
    patches = extract_patches(image, picks, size)
    bad = ~np.isfinite(image)
    share = np.array([bad[y - 4 : y + 5, x - 4 : x + 5].mean() for y, x in picks.astype(int)])
    assert np.array_equal(patches.set_aside == "masked", share > 0.2)
    assert np.array_equal(patches.set_aside == "", share <= 0.2)
    some = torch.arange(len(patches))
    counts = patches.weigh(some)
    np.testing.assert_allclose(1 - counts.float().mean(dim=(1, 2)), share[patches.index], atol=1e-6)
    y, x = picks[patches.index[500]].astype(int)
    assert np.array_equal(~counts[500].numpy(), bad[y - 4 : y + 5, x - 4 : x + 5])
    whole = np.flatnonzero(share[patches.index] == 0)
    assert patches.weigh(torch.from_numpy(whole[:64])) is None
    assert np.isfinite(patches.gather().numpy()).all()


def test_repeated_picks_keep_the_first(image):
    picks = [(30, 30), (30.3, 30.2), (50, 50), (30.0, 30.6), (50, 50), (40, 40)]
    patches = extract_patches(image, picks, 8)
    assert patches.set_aside.tolist() == ["", "duplicate", "", "", "duplicate", ""]
    assert patches.index.tolist() == [0, 2, 3, 5]
    np.testing.assert_allclose(patches.pick_yx, np.array(picks)[patches.index], atol=1e-12)


def test_a_pick_without_a_window_takes_none_from_its_neighbour(image):
    """The first is cut by the border, the second just is not: one of the two has to stay."""
    patches = extract_patches(image, [(2.9, 30), (3.1, 30), (40, 40)], 8)
    assert patches.set_aside.tolist() == ["border", "", ""]


# --- intensities -------------------------------------------------------------------------------


def test_global_normalisation_is_one_for_all(image, picks):
    image[:, :45] += 30
    patches = extract_patches(image, picks, 10)
    pixels = patches.gather()
    assert len(np.unique(patches.scale)) == len(np.unique(patches.offset)) == 1
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-4)
    assert float(pixels.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert float(pixels.mean(dim=(1, 2)).std()) > 0.3  # differences between patches stay


def test_patch_normalisation_is_each_window_s_own(image, picks):
    image[:, :45] += 30
    patches = extract_patches(image, picks, 10, normalisation="patch")
    pixels = patches.gather()
    np.testing.assert_allclose(pixels.mean(dim=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(pixels.std(dim=(1, 2), correction=0), 1, atol=1e-4)


def hilly(rng):
    """Columns of two heights, alone and on hills ten times as high as they are."""
    y, x = np.indices((240, 240))
    centres = np.stack(np.meshgrid(*2 * [np.arange(12, 240, 16)], indexing="ij"), -1)
    height = np.where(np.indices(centres.shape[:2]).sum(axis=0) % 2, 1.0, 0.5)
    atoms = rng.normal(0, 0.01, y.shape)
    for (cy, cx), h in zip(centres.reshape(-1, 2), height.ravel(), strict=True):
        atoms += h * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 18)
    hills = 10 * np.sin(y / 110) * np.cos(x / 130)
    inner = centres[3:-3, 3:-3].reshape(-1, 2)
    return atoms.astype(np.float32), (atoms + hills).astype(np.float32), inner


def test_flat_normalisation_takes_off_hills_and_keeps_heights(rng):
    flat, image, picks = hilly(rng)
    expected = extract_patches(flat, picks, 16, normalisation="global")
    found = extract_patches(image, picks, 16, normalisation="flat")
    assert len(np.unique(found.scale)) == 1
    rest = found.gather() - expected.gather()
    assert float(rest.std()) < 0.4  # of 1; the hills alone have about 40
    drowned = extract_patches(image, picks, 16, normalisation="global").gather()
    assert float((drowned - expected.gather()).std()) > 0.8
    strong = (found.gather().amax(dim=(1, 2)) - found.gather().amin(dim=(1, 2))).numpy()
    ratio = np.percentile(strong, 75) / np.percentile(strong, 25)
    assert ratio == pytest.approx(2, rel=0.1)


def test_background_is_that_of_the_valid_pixels(rng):
    _, image, _ = hilly(rng)
    plain = slow_background(image, 16)
    masked = image.copy()
    masked[100:104, 100:104] = np.nan
    found = slow_background(masked, 16)
    assert np.isfinite(found).all()
    assert np.abs(found - plain).max() < 0.1 * np.abs(image).max()
    np.testing.assert_allclose(slow_background(image + 500, 16), plain + 500, atol=1e-2)
    # Wider than a window by far: nothing of single columns is in it.
    assert np.abs(np.diff(plain, n=2, axis=0)).max() < 0.02


def test_scale_and_offset_of_the_image_cancel(image, picks):
    for normalisation in ("flat", "global", "patch"):
        plain = extract_patches(image, picks, 8, normalisation=normalisation)
        other = extract_patches(image * 250 - 4000, picks, 8, normalisation=normalisation)
        np.testing.assert_allclose(plain.gather(), other.gather(), atol=1e-4)


def test_only_windows_that_stay_count_for_normalisation(image):
    """A masked window's values do not decide how the others are scaled."""
    spoilt = image.copy()
    spoilt[50:60, 50:60] = 1e6
    spoilt[54:57, 52:58] = np.nan
    picks = [(20, 20), (20, 40), (55, 55)]
    plain = extract_patches(image, picks[:2], 8)
    patches = extract_patches(spoilt, picks, 8)
    assert patches.set_aside[2] == "masked"
    np.testing.assert_allclose(patches.scale, plain.scale)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [71, 500, 5, 0, -3])
def test_a_patch_that_does_not_fit_is_refused(image, size):
    with pytest.raises(InputError, match=rf"patch size of {size} px does not fit.*6 and 70 px"):
        extract_patches(image, [(30, 30)], size)


def test_the_largest_patch_is_the_image(image):
    square = image[:, :70]
    patches = extract_patches(square, [(34.5, 34.5)], 70, normalisation="global")
    np.testing.assert_allclose(unnormalised(patches)[0], square, rtol=1e-5)


def test_no_picks_are_refused(image):
    with pytest.raises(InputError, match="no atoms to cut patches around"):
        extract_patches(image, np.empty((0, 2)), 8)


def test_only_border_picks_are_refused(image):
    with pytest.raises(InputError, match="All 2 atoms lie too near the border for patches of 40"):
        extract_patches(image, [(5, 5), (9, 60)], 40)


def test_only_masked_picks_are_refused(image):
    image[29:32] = np.nan
    with pytest.raises(
        InputError, match="None of the 2 atoms has a patch of 8 px inside the image and"
    ):
        extract_patches(image, [(30, 30), (32, 60)], 8)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_positions_that_are_no_numbers_are_refused(image, spoilt):
    with pytest.raises(InputError, match="finite"):
        extract_patches(image, [(30, 30), (spoilt, 40)], 8)


@pytest.mark.parametrize("level", [0.0, 0.1, 1234.567])
def test_flat_patches_are_refused_where_each_is_normalised(image, level):
    image[10:40, 10:40] = level
    picks = [(25, 25), (55, 70)]
    with pytest.raises(InputError, match="Some patches are flat"):
        extract_patches(image, picks, 9, normalisation="patch")
    patches = extract_patches(image, picks, 9)  # one scale for all: no harm done
    assert np.isfinite(patches.gather().numpy()).all()


# --- ready-made windows ------------------------------------------------------------------------


def test_a_stack_is_its_own_windows(rng):
    stack = rng.normal(3, 2, (1100, 6, 6)).astype(np.float32)
    patches = stack_patches(stack)
    assert len(patches) == len(stack)
    np.testing.assert_allclose(unnormalised(patches), stack, atol=1e-5)
    assert not patches.remainder_yx_px.any()
    assert float(patches.gather().std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_a_stack_of_oblong_windows_is_refused():
    with pytest.raises(InputError, match="20 x 16 px: cut square ones, for example 16 x 16"):
        stack_patches(np.zeros((5, 20, 16), dtype=np.float32))


# --- default size ------------------------------------------------------------------------------


@pytest.mark.parametrize("separation", [4.0, 9.3, 18.2, 60.0])
def test_default_window_holds_the_nearest_neighbours_and_not_the_next(separation):
    size = default_patch_size(separation)
    assert size % 2 == 0
    assert size / 2 >= separation or size == 8  # a neighbour to either side
    assert size <= 2.5 * separation


def test_default_window_is_never_tiny():
    assert default_patch_size(0.5) == 8
