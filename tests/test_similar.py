import numpy as np
import pytest
from scipy.spatial import KDTree

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.similar import (
    assign_groups,
    automatic_score,
    choose_similar,
    find_similar,
)
from napari_shiftvae.core.simulate import SIMULATIONS


@pytest.fixture(scope="module")
def made():
    return SIMULATIONS["perovskite"](
        rng=np.random.default_rng(4), shape=(200, 230), pixel_size_nm=0.02, noise=0.08
    )


def sites(made, sublattice):
    rows = made.truth["sublattice"] == sublattice
    return made.truth[rows][["y_px", "x_px"]].to_numpy()


def inner(positions, shape, margin):
    return positions[((positions > margin) & (positions < np.array(shape) - 1 - margin)).all(1)]


def nearest_to_middle(positions, shape, count=1):
    from_middle = np.hypot(*(positions - np.array(shape) / 2).T)
    return positions[np.argsort(from_middle)[:count]]


@pytest.mark.parametrize("examples", [1, 3])
@pytest.mark.parametrize(("clicked", "other"), [("A", "B"), ("B", "A")])
def test_one_sublattice_is_found_and_not_the_other(made, clicked, other, examples):
    shape, wanted = made.image.shape, sites(made, clicked)
    clicks = np.add(nearest_to_middle(wanted, shape, examples), [1.2, -0.9])
    found = choose_similar(find_similar(made.image, clicks))
    # not within 0.2 of the separation from the border: such columns are cut
    assert KDTree(found).query(inner(wanted, shape, 3))[0].max() < 0.2 * made.separation_px
    assert KDTree(found).query(sites(made, other))[0].min() > 0.5 * made.separation_px
    far = inner(found, shape, 4)
    assert KDTree(wanted).query(far)[0].max() < 0.2 * made.separation_px


def test_places_are_at_the_centres_of_the_columns_clicked(made):
    wanted = sites(made, "B")
    similar = find_similar(made.image, nearest_to_middle(wanted, made.image.shape) + 1)
    found = inner(choose_similar(similar), made.image.shape, made.separation_px)
    off = KDTree(wanted).query(found)[0]
    # B columns move by up to 1.5 px against their cage of A columns, which the template holds
    assert np.sqrt(np.mean(off**2)) < 0.5


@pytest.mark.parametrize("off", [(2, 0), (-1.5, 1.5), (0, -2)])
def test_click_need_not_be_exact(made, off):
    click = nearest_to_middle(sites(made, "B"), made.image.shape)
    exact, near = (choose_similar(find_similar(made.image, at)) for at in (click, click + off))
    np.testing.assert_allclose(exact, near, atol=1e-6)


@pytest.mark.parametrize(("gain", "offset"), [(30.0, 0.0), (0.01, 5.0), (-1.0, 0.0)])
def test_intensity_unit_changes_nothing(made, gain, offset):
    click = nearest_to_middle(sites(made, "B"), made.image.shape)
    separation = made.separation_px
    plain = find_similar(made.image, click, separation_px=separation)
    scaled = find_similar(gain * made.image + offset, click, separation_px=separation)
    assert len(plain) == len(scaled)
    np.testing.assert_allclose(plain.positions_yx, scaled.positions_yx, atol=0.02)
    np.testing.assert_allclose(plain.score, scaled.score, atol=1e-3)


def test_brighter_dopants_score_highest():
    made = SIMULATIONS["graphene"](
        rng=np.random.default_rng(2), shape=(300, 300), noise=0.05, vacancy_fraction=0.0
    )
    truth = made.truth[made.truth["kind"] == "dopant"]
    for sublattice in "AB":
        wanted = truth[truth["sublattice"] == sublattice][["y_px", "x_px"]].to_numpy()
        wanted = inner(wanted, made.image.shape, 2 * made.separation_px)
        similar = find_similar(made.image, nearest_to_middle(wanted, made.image.shape))
        is_wanted = KDTree(wanted).query(similar.positions_yx)[0] < 0.3 * made.separation_px
        assert is_wanted.sum() == len(wanted) > 1
        whole = ~similar.at_border
        assert similar.score[is_wanted].min() > similar.score[~is_wanted & whole].max()


def test_two_kinds_make_two_groups(made):
    shape = made.image.shape
    both = [sites(made, "A"), sites(made, "B")]
    groups = [find_similar(made.image, nearest_to_middle(one, shape, 2)) for one in both]
    positions, group = assign_groups(groups, [0.2, 0.2])
    truth = np.concatenate(both)
    kind = np.repeat([0, 1], [len(one) for one in both])
    off, row = KDTree(truth).query(positions)
    whole = (positions > 4).all(1) & (positions < np.array(shape) - 5).all(1)
    assert off[whole].max() < 0.25 * made.separation_px
    np.testing.assert_array_equal(group[whole], kind[row][whole])
    assert KDTree(positions).query(inner(truth, shape, 4))[0].max() < 0.25 * made.separation_px
    assert KDTree(positions).query(positions, k=2)[0][:, 1].min() > 0.5 * made.separation_px


def test_whatever_is_clicked_is_found_again():
    rng = np.random.default_rng(0)
    image = 0.002 * rng.standard_normal((160, 200))
    cross = np.zeros((11, 11))
    cross[5], cross[:, 5] = 1, 1
    corners = np.array([(20, 30), (60, 150), (100, 70), (130, 120), (20, 100), (70, 20)])
    for y, x in corners:
        image[y : y + 11, x : x + 11] += cross
    # in the corner between two arms, where no column is
    click = corners[1] + 2.0
    similar = find_similar(image, click, size_px=15, separation_px=12)
    found = choose_similar(similar, 0.8)
    offset = found - corners[np.lexsort((corners[:, 1], corners[:, 0]))]
    np.testing.assert_allclose(offset, np.broadcast_to(offset[0], offset.shape), atol=0.5)
    assert np.hypot(*(offset[0] - 2)) < 3


def test_score_chooses_among_places_found_once(made):
    similar = find_similar(made.image, nearest_to_middle(sites(made, "A"), made.image.shape))
    counts = [len(choose_similar(similar, score)) for score in (0.0, 0.3, 0.6, 0.9)]
    assert counts[0] == len(similar)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]
    np.testing.assert_array_equal(
        choose_similar(similar), choose_similar(similar, automatic_score(similar))
    )
    with pytest.warns(UserWarning, match=r"No place has a score of 1\.1"):
        assert choose_similar(similar, 1.1).shape == (0, 2)


def test_masked_pixels_hold_no_places(made):
    image = made.image.copy()
    image[80:120, 20:60] = np.nan
    wanted = sites(made, "A")
    similar = find_similar(image, nearest_to_middle(wanted, image.shape))
    assert not np.isnan(image[tuple(np.rint(similar.positions_yx).astype(int).T)]).any()
    clear = inner(wanted, image.shape, 3)
    clear = clear[~((clear > [76, 16]) & (clear < [124, 64])).all(1)]
    found = choose_similar(similar)
    assert KDTree(found).query(clear)[0].max() < 0.2 * made.separation_px


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        ([(-3.0, 5.0)], {}, r"example at \(-3, 5\) lies outside the image"),
        ([(50.0, 5.0), (50.0, 500.0)], {}, r"example at \(50, 500\) lies outside"),
        ([(50.0, np.nan)], {}, "lies outside the image"),
        (np.zeros((0, 2)), {}, "give at least one position"),
        ([(50.0, 50.0)], {"size_px": 301}, "template of 301 px is larger than the image"),
        ([(50.0, 50.0)], {"size_px": 4}, "size_px is 4; give an odd number"),
        ([(50.0, 50.0)], {"separation_px": 0.0}, "separation_px is 0"),
    ],
)
def test_bad_input_gets_a_sentence(made, examples, options, message):
    with pytest.raises(InputError, match=message):
        find_similar(made.image, examples, **options)


def test_example_on_masked_pixels_gets_a_sentence(made):
    image = made.image.copy()
    image[40:60, 40:60] = np.nan
    with pytest.raises(InputError, match=r"example at \(50, 50\) lies on masked pixels"):
        find_similar(image, (50.0, 50.0))
