"""Trends with known truth, among defects."""

import numpy as np
import pytest

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lengths import Ruler
from napari_shiftvae.core.trend import remove_trend

TREND = np.array([[0.004, -0.001], [0.006, -0.003]])  # d u_i / d x_j in the order (y, x)
SHIFT = np.array([0.3, -1.2])


def scene(seed, defects=0.1, noise=0.05):
    """Positions, true trend, displacements with some atoms far out, and which these are."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 500, (600, 2))
    trend = SHIFT + (positions - positions.mean(axis=0)) @ TREND.T
    moved = trend + rng.normal(0, noise, positions.shape)
    odd = rng.random(600) < defects
    moved[odd] += (5.0, 4.0)
    return positions, trend, moved, odd


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_affine_trend_is_removed_among_defects_and_said(seed):
    positions, trend, moved, odd = scene(seed)
    found = remove_trend(positions, moved, "affine")
    np.testing.assert_allclose(found.gradient, TREND, atol=2e-4)
    np.testing.assert_allclose(found.shift_yx_px, SHIFT, atol=0.03)
    np.testing.assert_allclose(found.removed_yx_px, trend, atol=0.06)
    np.testing.assert_allclose(found.yx_px + found.removed_yx_px, moved, atol=1e-12)
    assert np.abs(found.yx_px[odd].mean(axis=0) - (5, 4)).max() < 0.1
    numbers = [
        float(word.strip("(),")) for word in found.sentence.split() if any(map(str.isdigit, word))
    ]
    truth = [*SHIFT, -0.3, 0.4, 0.25, np.rad2deg(-0.0035)]
    stated, sd = np.reshape(numbers, (6, 2)).T
    np.testing.assert_allclose(stated, truth, atol=0.03)
    assert (sd > 0).all()
    for word in ("shift", "px", "stretch exx", "eyy", "shear exy", "%", "rotation", "degrees"):
        assert word in found.sentence


def test_deviation_of_the_trend_is_that_of_repeated_images():
    ratios, stated = [], []
    for seed in range(60):
        positions, trend, moved, _ = scene(seed, defects=0, noise=0.3)
        found = remove_trend(positions, moved, "affine")
        ratios.append((found.removed_yx_px - trend)[::30] / found.sd_yx_px[::30])
        words = found.sentence.split("shift (")[1].split(",")[0].split()
        stated.append((float(words[0]) - SHIFT[0]) / float(words[2]))
    assert np.std(ratios) == pytest.approx(1, abs=0.1)
    assert np.std(stated) == pytest.approx(1, abs=0.4)  # rounded to the second digit


@pytest.mark.parametrize(("kind", "turn"), [("shift", 0.0), ("rigid", 0.0035)])
def test_lesser_trends_leave_the_rest(kind, turn):
    """On a square of atoms, where strain and rotation have nothing in common."""
    positions = np.mgrid[:20, :20].reshape(2, -1).T * 12.0
    arm = positions - positions.mean(axis=0)
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]]) * turn
    noise = np.random.default_rng(8).normal(0, 0.02, positions.shape)
    stretch = np.array([[0.001, 0.0], [0.0, -0.002]])
    found = remove_trend(positions, SHIFT + arm @ (rotation + stretch).T + noise, kind)
    np.testing.assert_allclose(found.gradient, rotation, atol=5e-5)
    np.testing.assert_allclose(found.shift_yx_px, SHIFT, atol=0.02)
    np.testing.assert_allclose(found.yx_px, arm @ stretch.T + noise, atol=0.02)
    assert ("rotation" in found.sentence) == (kind == "rigid")
    assert "stretch" not in found.sentence


@pytest.mark.parametrize("seed", [5, 6])
def test_drift_of_any_course_is_removed_row_by_row(seed):
    """A jump and a bend of the slow scan go; what varies along the rows stays."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:40, :40] * 12.0).reshape(2, -1)
    positions = np.column_stack([y, x]) + rng.normal(0, 0.1, (1600, 2))
    drift = np.column_stack([0.002 * (y / 12) ** 2, np.where(y > 230, 1.5, -0.5)])
    along = np.column_stack([0.4 * np.sin(2 * np.pi * x / 480), np.zeros(1600)])
    moved = drift + along + rng.normal(0, 0.05, (1600, 2))
    moved[rng.random(1600) < 0.05] += 6
    found = remove_trend(positions, moved, "rows", band_px=12.0)
    error = found.removed_yx_px - drift
    jump = np.abs(y - 234) < 13  # between two bands
    assert np.sqrt(np.mean(error[~jump] ** 2)) < 0.12
    assert np.sqrt(np.mean((drift - drift.mean(axis=0)) ** 2)) > 0.8
    assert "bands of 12.0 px" in found.sentence
    assert (found.gradient == 0).all()


def test_what_was_removed_is_told_in_the_unit_of_lengths():
    """A pixel of 15 pm; each number has two digits of its standard deviation."""
    positions, _, moved, _ = scene(9, defects=0)
    ruler = Ruler.of("pm", (0.0125, 0.018))
    plain, told = (
        remove_trend(positions, moved, "affine", ruler=each) for each in (Ruler(), ruler)
    )
    for found, unit, size in ((plain, "px", 1.0), (told, "pm", 15.0)):
        words = found.sentence.split("shift (")[1].split(f") {unit}")[0]
        for said, shift in zip(words.split(", "), SHIFT, strict=True):
            value, sd = said.split(" ± ")
            assert float(value) == pytest.approx(size * shift, abs=4 * float(sd))
            assert len(sd.replace(".", "").lstrip("0")) == 2
    strain = [found.sentence.split("stretch")[1] for found in (plain, told)]
    assert strain[0] == strain[1]
    rows = remove_trend(positions, moved, "rows", band_px=20.0, ruler=ruler).sentence
    assert "bands of 300 pm" in rows
    assert "px" not in rows


def test_unknown_displacements_stay_unknown():
    positions, _, moved, _ = scene(7)
    moved[3] = np.nan
    for kind in ("shift", "rigid", "affine", "rows"):
        found = remove_trend(positions, moved, kind, sd_yx_px=0.1)
        for each in (found.yx_px, found.sd_yx_px, found.removed_yx_px):
            assert np.isnan(each[3]).all()
            assert np.isfinite(np.delete(each, 3, axis=0)).all()
        assert (np.delete(found.sd_yx_px, 3, axis=0) > 0.1).all()


def test_too_little_is_told():
    with pytest.raises(InputError, match="2 displacements are known; 3 or more"):
        remove_trend([(0, 0), (1, 2)], [(0, 0), (1, 2)], "affine")
    with pytest.raises(InputError, match="kind is 'cubic'"):
        remove_trend([(0, 0)], [(0, 0)], "cubic")
    with pytest.raises(InputError, match="1 displacements of 2 atoms"):
        remove_trend([(0, 0), (1, 1)], [(0, 0)], "shift")
    with pytest.raises(InputError, match="band_px is -1"):
        remove_trend(np.ones((5, 2)), np.ones((5, 2)), "rows", band_px=-1)
