"""Classes with known truth."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from napari_shiftvae.core import classify
from napari_shiftvae.core.classify import (
    central_brightness,
    class_pictures,
    class_table,
    cluster,
    split_classes,
)
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gaussians import refine_gaussians
from napari_shiftvae.core.patches import extract_patches
from napari_shiftvae.core.simulate import graphene

METHODS = ("gaussian mixture", "k-means", "hdbscan")
methods = pytest.mark.parametrize("method", METHODS)


def heaps(seed, sizes=(120, 80, 50), columns=2):
    """Normal heaps five deviations apart, rows mixed, and which heap each row is of."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = np.zeros((len(sizes), columns))
    for k in range(len(sizes)):
        centres[k, k % columns] = 7.0 * (1 + k // columns)
    return centres[kind] + rng.standard_normal((len(kind), columns)), kind


@pytest.mark.parametrize("seed", [21, 22])
@methods
def test_heaps_are_told_apart_and_counted(method, seed):
    values, kind = heaps(seed)
    found = cluster(values, method=method, seed=seed)
    assert found.count == 3
    assert adjusted_rand_score(kind, found.label) > (0.85 if method == "hdbscan" else 0.98)
    # By falling size, as the heaps are.
    assert (np.diff(found.size) < 0).all()
    if method != "hdbscan":
        for each in range(3):
            rows = found.label == each
            assert np.bincount(kind[rows]).argmax() == each
            np.testing.assert_allclose(found.mean[each], values[rows].mean(axis=0))
            np.testing.assert_allclose(found.sd[each], values[rows].std(axis=0))
        assert found.size.sum() == 250


@pytest.mark.parametrize("seed", [1, 2])
def test_one_heap_is_one_class(seed):
    assert cluster(heaps(seed, (300,))[0]).count == 1


@methods
def test_units_and_offsets_of_columns_do_not_matter(method):
    values, _ = heaps(3)
    np.testing.assert_array_equal(
        cluster(values, method=method).label,
        cluster(values * (1e6, 1e-5) + (-1e7, 3.0), method=method).label,
    )


@methods
def test_the_same_seed_gives_the_same_classes(method):
    values = np.random.default_rng(2).uniform(size=(150, 3))
    told = {} if method == "hdbscan" else {"count": 4}
    one, other = (cluster(values, method=method, seed=5, **told).label for _ in range(2))
    np.testing.assert_array_equal(one, other)


@methods
def test_rows_with_missing_values_are_in_no_class(method):
    values, _ = heaps(4)
    values[::7, 0] = np.nan
    values[3, 1] = np.inf
    found = cluster(values, method=method)
    missing = ~np.isfinite(values).all(axis=1)
    assert (found.label[missing] == -1).all()
    assert f"{missing.sum()} atoms have missing values" in found.sentence
    np.testing.assert_array_equal(
        found.label[~missing], cluster(values[~missing], method=method).label
    )
    assert np.isfinite(found.mean).all()


@pytest.mark.parametrize("method", ["gaussian mixture", "k-means"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_given_count_is_kept_to(method, count):
    found = cluster(heaps(6)[0], method=method, count=count)
    assert found.count == count
    assert "their number" not in found.sentence


def test_parallel_long_heaps_are_told_apart_by_a_mixture_only():
    rng = np.random.default_rng(8)
    kind = np.repeat([0, 1], 300)
    long, across = rng.normal(0, 5, 600), rng.normal(0, 0.3, 600) + 3 * kind
    values = np.column_stack([long + across, long - across])
    assert adjusted_rand_score(kind, cluster(values).label) > 0.98
    assert adjusted_rand_score(kind, cluster(values, method="k-means", count=2).label) < 0.5


def test_overlapping_heaps_are_one_class_unless_told_by_bic():
    rng = np.random.default_rng(12)
    skewed = np.concatenate([rng.normal(0, 1, 500), rng.normal(1.5, 3, 500)])[:, None]
    assert cluster(skewed).count == 1
    by_bic = cluster(skewed, criterion="bic")
    assert by_bic.count > 1
    assert by_bic.sentence.endswith("by a Gaussian mixture, their number by BIC.")
    assert "ICL" in cluster(skewed).sentence


def test_dense_regions_of_any_shape_and_what_lies_between():
    rng = np.random.default_rng(9)
    angle = rng.uniform(0, 2 * np.pi, 500)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) * 5 + rng.normal(0, 0.15, (500, 2))
    middle, stray = rng.normal(0, 0.3, (300, 2)), rng.uniform(-6, 6, (80, 2))
    stray = stray[np.abs(np.linalg.norm(stray, axis=1) - 2.7) < 0.8]
    found = cluster(np.vstack([ring, middle, stray]), method="hdbscan")
    assert found.count == 2
    kind = np.repeat([0, 1, -1], [500, 300, len(stray)])
    assert adjusted_rand_score(kind, found.label) > 0.95
    assert (found.label[800:] == -1).mean() > 0.5
    assert "belong to none" in found.sentence


def test_rows_beyond_the_sample_are_assigned(monkeypatch):
    values, kind = heaps(10)
    monkeypatch.setattr(classify, "SAMPLE", 120)
    for method in METHODS:
        found = cluster(values, method=method)
        assert len(found.label) == 250
        assert adjusted_rand_score(kind, found.label) > (0.8 if method == "hdbscan" else 0.97)


@pytest.mark.parametrize("seed", [35, 36])
def test_dopants_of_graphene_are_a_class(seed):
    """By the intensities of refined atoms, one in fifty of them a dopant."""
    rng = np.random.default_rng(seed)
    simulation = graphene(rng=rng, vacancy_fraction=0.0, shape=(320, 320))
    truth = simulation.truth
    start = truth[["y_px", "x_px"]].to_numpy()
    fits = refine_gaussians(simulation.image, start, separation_px=simulation.separation_px)
    good = np.where(fits.flag == "", fits.amplitude, np.nan)
    dopant = (truth["kind"] == "dopant").to_numpy()
    for method in ("gaussian mixture", "k-means"):
        found = cluster(good[:, None], method=method)
        known = found.label >= 0
        assert known.mean() > 0.9
        assert found.count == 2
        assert adjusted_rand_score(dopant[known], found.label[known]) > 0.98
        assert found.mean[1, 0] / found.mean[0, 0] == pytest.approx(2, rel=0.05)


@methods
def test_little_or_flat_input(method):
    assert cluster(np.full((5, 2), np.nan), method=method).count == 0
    assert cluster(np.empty((0, 3)), method=method).label.shape == (0,)
    flat = cluster(np.ones((40, 2)), method=method)
    assert flat.count <= 1
    assert cluster(np.array([[1.0], [2.0]]), method=method).label.shape == (2,)


def test_what_cannot_be_is_told():
    values, _ = heaps(1)
    with pytest.raises(InputError, match="HDBSCAN finds the number"):
        cluster(values, method="hdbscan", count=3)
    with pytest.raises(InputError, match="choose 1 to 250 classes"):
        cluster(values, count=251)
    with pytest.raises(InputError, match="count is 0"):
        cluster(values, count=0)
    with pytest.raises(InputError, match="method is 'guess'"):
        cluster(values, method="guess")
    with pytest.raises(InputError, match="criterion is 'aic'"):
        cluster(values, criterion="aic")
    with pytest.raises(InputError, match="one or more columns"):
        cluster(values[:, 0])


def test_the_table_of_classes():
    atoms = pd.DataFrame({"z1": [1.0, 3.0, np.nan, 8.0, 5.0], "set_aside": [""] * 5})
    table = class_table(atoms, [0, 0, 0, 1, -1])
    assert list(table.columns) == ["count", "z1", "z1 sd", "z1 se"]
    assert table.loc[0].tolist() == [3, 2.0, 1.0, 1.0]  # of the two that have a value
    assert table.loc[1].tolist()[:3] == [1, 8.0, 0.0]
    assert np.isnan(table.loc[1, "z1 se"])


def test_the_error_of_a_mean_is_that_of_repeated_classes():
    rng = np.random.default_rng(4)
    tables = [
        class_table(pd.DataFrame({"z1": rng.normal(2, 0.7, 50)}), np.zeros(50)).loc[0]
        for _ in range(200)
    ]
    ratio = [(table["z1"] - 2) / table["z1 se"] for table in tables]
    assert np.std(ratio) == pytest.approx(1, abs=0.15)


def test_pictures_of_classes_are_mean_patches_in_the_unit_of_the_image(monkeypatch):
    monkeypatch.setattr(classify, "PICTURES_AT_ONCE", 7)
    image = np.random.default_rng(3).normal(100, 20, (64, 64)).astype(np.float32)
    positions = np.mgrid[10:54:8, 10:54:8].reshape(2, -1).T.astype(float)
    patches = extract_patches(image, positions, 8, normalisation="patch")
    label = np.arange(len(patches)) % 4 - 1
    label[label == 1] = 3
    pictures = class_pictures(patches, label)
    assert pictures.shape == (4, 8, 8)
    assert np.isnan(pictures[1]).all()
    frame = patches.frames[0]
    for each in (0, 2, 3):
        cut = [frame[y : y + 8, x : x + 8] for y, x in patches.corner_yx[label == each]]
        np.testing.assert_allclose(pictures[each], np.mean(cut, axis=0), rtol=1e-4)
    with pytest.raises(InputError, match="one class for each of the"):
        class_pictures(patches, label[1:])


@pytest.mark.parametrize("seed", [41, 42])
def test_strange_rows_are_no_class_of_their_own(seed):
    """One in ten far from two heaps; without a background they would be a third, wide one."""
    rng = np.random.default_rng(seed)
    values, kind = heaps(seed, (600, 500))
    strange = rng.permutation(len(values))[:110]
    values[strange] = rng.uniform(-15, 20, (110, 2))
    found = cluster(values, seed=seed)
    assert found.count == 2
    others = np.setdiff1d(np.arange(len(values)), strange)
    assert adjusted_rand_score(kind[others], found.label[others]) > 0.97
    assert (found.label >= 0).all()


@pytest.mark.parametrize("seed", [51, 52])
def test_a_few_brighter_atoms_are_split_off_their_class(seed):
    """Two heaps of atoms; one in thirty of the darker ones is as bright as the other heap."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1, -1], [900, 800, 20])
    brightness = np.where(label == 0, 8.0, 1.0) + rng.normal(0, 0.7, len(label))
    bright = 900 + rng.permutation(800)[:27]
    brightness[bright] += 6.0
    brightness[3] = np.nan
    split = split_classes(label, brightness, seed=seed)
    assert split.max() == 2
    assert len(np.setxor1d(np.flatnonzero(split == 2), bright)) <= 2
    others = np.setdiff1d(np.arange(len(label)), np.flatnonzero(split == 2))
    np.testing.assert_array_equal(split[others], label[others])
    # one that is in a single heap stays as it is
    np.testing.assert_array_equal(split_classes(label, brightness * (label == 0)), label)


def test_brightness_is_that_of_the_middle_against_its_surroundings():
    """Gaussians of known height on a ramp; the ramp and the place within a pixel do not count."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:200, :200]
    place = np.stack(np.meshgrid(np.arange(20, 181, 20), np.arange(20, 181, 20)), -1).reshape(-1, 2)
    place = place + rng.uniform(-0.5, 0.5, place.shape)
    height = rng.uniform(1, 5, len(place))
    image = 0.05 * y
    for (at_y, at_x), peak in zip(place, height, strict=True):
        image = image + peak * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / (2 * 2.5**2))
    patches = extract_patches(image.astype(np.float32), place, 31, normalisation="global")
    found = central_brightness(patches, 20.0)
    assert np.corrcoef(found, height[patches.index])[0, 1] > 0.999
