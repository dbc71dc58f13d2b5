"""What must stay the same when an image is shifted, turned, inverted or scaled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree

from napari_shiftvae.core.atoms import candidates, find_atoms
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.simulate import SIMULATIONS, Scan
from napari_shiftvae.core.stacks import all_frames, find_atoms_in_stack

few = settings(max_examples=15, deadline=None, derandomize=True)

# kind and pixel size [nm]: neighbours are 9 to 17 px apart
KINDS = {
    "perovskite": (0.02, 0.03),
    "graphene": (0.010, 0.015),
    "stm": (0.02, 0.035),
}


@st.composite
def images(draw, shape=(130, 160)):
    kind = draw(st.sampled_from(sorted(KINDS)))
    row_level = draw(st.sampled_from([0.0, 0.2]))
    made = SIMULATIONS[kind](
        rng=np.random.default_rng(draw(st.integers(0, 10_000))),
        shape=shape,
        pixel_size_nm=draw(st.sampled_from(KINDS[kind])),
        noise=draw(st.sampled_from([0.01, 0.05, 0.1])),
        rotation_rad=draw(st.floats(0, 0.5)),
        scan=Scan(row_level=row_level),
    )
    return made.image, made.separation_px, row_level


def same_atoms(one, other, tolerance):
    assert len(one) == len(other)
    assert KDTree(one).query(other)[0].max() < tolerance


def positions(image, **options):
    return find_atoms(image, **options).positions_yx


@few
@given(images((180, 200)), st.integers(0, 17), st.integers(0, 17))
def test_shift_of_the_image_shifts_the_atoms(made, down, right):
    image, separation, row_level = made
    height, width = image.shape[0] - 20, image.shape[1] - 20
    one = positions(image[:height, :width])
    other = positions(image[down : down + height, right : right + width])
    margin = 2 * separation
    low, high = np.array([down, right]) + margin, np.array([height, width]) - 1 - margin
    inner = one[((one > low) & (one < high)).all(axis=1)]
    off = KDTree(np.add(other, [down, right])).query(inner)[0]
    assert len(inner) > 10
    # of a cut through a lattice along the rows, other offsets are taken out than of another cut
    assert off.max() < (0.15 if row_level else 0.01) * separation


@few
@given(images())
def test_inverted_contrast_gives_the_same_atoms(made):
    image, _, _ = made
    same_atoms(positions(image), positions(-image, dark=True), 1e-3)


@few
@given(images(), st.floats(-4, 4), st.floats(-20, 20))
def test_scaled_intensities_give_the_same_atoms(made, magnitude, offset):
    image, _, _ = made
    gain = 10.0**magnitude
    same_atoms(positions(image), positions(gain * (image.astype(float) + offset)), 0.02)


@few
@given(images(), st.integers(1, 3))
def test_turned_image_turns_the_atoms(made, quarters):
    image, _, _ = made
    index = np.arange(image.size).reshape(image.shape)
    turned = positions(np.rot90(image, quarters))
    # where the corners of the turned image were tells the axes' new directions
    corners = np.array([(0, 0), (0, 1), (1, 0)])
    y, x = np.unravel_index(np.rot90(index, quarters)[tuple(corners.T)], image.shape)
    origin, step_x, step_y = np.stack([y, x], axis=1)
    back = origin + turned @ np.stack([step_y - origin, step_x - origin])
    same_atoms(positions(image), back, 0.02)


@few
@given(images())
def test_transposed_image_transposes_the_atoms(made):
    image, _, _ = made
    same_atoms(positions(image), positions(image.T)[:, ::-1], 0.02)


@few
@given(images(), st.floats(0.2, 0.6), st.floats(0.2, 0.6))
def test_region_holds_the_atoms_of_the_whole_that_lie_in_it(made, top, left):
    image, separation, _ = made
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    height, width = image.shape
    region = (np.abs(y - top * height) < 0.3 * height) & (np.abs(x - left * width) < 0.3 * width)
    whole = positions(image, separation_px=separation, threshold=0.15)
    found = positions(image, separation_px=separation, threshold=0.15, region=region)
    assert region[tuple(np.rint(found).astype(int).T)].all()
    inside = whole[region[tuple(np.rint(whole).astype(int).T)]]
    # a position within the tolerance of the edge may fall on either side of it
    tolerance = 0.05 * separation
    assert KDTree(whole).query(found)[0].max() < tolerance
    at = np.clip(np.rint(inside[:, None] + np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])), 0, None)
    at = np.minimum(at, np.array(image.shape) - 1).astype(int)
    sure = inside[region[at[..., 0], at[..., 1]].all(axis=1)]
    assert KDTree(found).query(sure)[0].max() < tolerance


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (np.zeros((90, 120), dtype=bool), "region holds no pixel"),
        (np.ones((80, 120), dtype=bool), r"region has shape \(80, 120\) and the image \(90, 120\)"),
    ],
)
def test_bad_region_gets_a_sentence(region, message):
    y, x = np.mgrid[:90, :120]
    image = np.cos(2 * np.pi * y / 15) + np.cos(2 * np.pi * x / 15)
    with pytest.raises(InputError, match=message):
        find_atoms(image, region=region)


def test_region_without_atoms_is_empty_and_said():
    y, x = np.mgrid[:90, :120]
    image = np.cos(2 * np.pi * y / 15) + np.cos(2 * np.pi * x / 15)
    between = (np.abs(y - 52) < 3) & (np.abs(x - 67) < 3)
    with pytest.warns(UserWarning, match=r"No atom was found: .*take a larger region"):
        assert len(find_atoms(image, separation_px=15, region=between)) == 0


def test_separation_and_typical_strength_are_those_of_the_region():
    y, x = np.mgrid[:160, :240]
    left = np.cos(2 * np.pi * y / 10) + np.cos(2 * np.pi * x / 10)
    right = np.cos(2 * np.pi * y / 20) + np.cos(2 * np.pi * x / 20)
    image = np.where(x < 120, 0.2 * left, right)
    found = find_atoms(image, region=x < 110)
    assert found.separation_px == pytest.approx(10, rel=0.03)
    assert len(found) == pytest.approx(15 * 10, abs=12)
    assert candidates(image, region=x < 110).strength.max() == pytest.approx(1, abs=0.2)


class LazyStack:
    """Frames made when they are read, as from a file; remembers which were."""

    def __init__(self, frames):
        self.frames, self.read = frames, []

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        self.read.append(int(index))
        return self.frames[index]


@pytest.fixture(scope="module")
def movie():
    made = [
        SIMULATIONS["perovskite"](
            rng=np.random.default_rng(1),  # the same lattice in each frame
            shape=(130, 150),
            pixel_size_nm=0.02,
            noise=noise,
        )
        for noise in (0.05, 0.06, 0.07, 0.08)
    ]
    fading = [(1 - 0.2 * t) * frame.image for t, frame in enumerate(made)]
    return fading, made[0]


def test_stack_that_fades_keeps_its_atoms(movie):
    frames, made = movie
    atoms = all_frames(find_atoms_in_stack(np.stack(frames)))
    truth = made.truth[["y_px", "x_px"]].to_numpy()
    inner = truth[((truth > 6) & (truth < np.array(frames[0].shape) - 7)).all(axis=1)]
    typical = []
    for index in range(len(frames)):
        found = atoms.positions_yx[atoms.frame == index]
        assert KDTree(found).query(inner)[0].max() < 0.2 * made.separation_px
        assert len(found) < 1.1 * len(truth)
        typical.append(np.median(atoms.amplitude[atoms.frame == index]))
    np.testing.assert_allclose(np.array(typical) / typical[0], [1, 0.8, 0.6, 0.4], rtol=0.1)


def test_frames_are_read_one_at_a_time_and_stop_when_asked(movie):
    stack = LazyStack(movie[0])
    finding = find_atoms_in_stack(stack, separation_px=14.1, threshold=0.15)
    assert stack.read == []
    first = next(finding)
    assert stack.read == [0]
    alone = find_atoms(movie[0][0], separation_px=14.1, threshold=0.15)
    np.testing.assert_array_equal(first.positions_yx, alone.positions_yx)
    finding.close()
    assert stack.read == [0]


def test_all_frames_have_one_threshold_and_one_separation(movie):
    found = list(find_atoms_in_stack(movie[0]))
    assert len({one.threshold for one in found}) == 1
    assert len({one.separation_px for one in found}) == 1


def test_unusable_frame_is_named(movie):
    frames = [movie[0][0], np.zeros_like(movie[0][0]), movie[0][1]]
    with pytest.raises(InputError, match="Frame 1: The image is constant"):
        list(find_atoms_in_stack(frames, threshold=0.15))
    with pytest.raises(InputError, match="The stack has no frame"):
        next(find_atoms_in_stack([]))
