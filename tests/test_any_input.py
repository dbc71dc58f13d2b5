"""Whatever is given, an analysis begins rightly or is refused in one sentence."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_shiftvae.core.analyse import analyse
from napari_shiftvae.core.atoms import find_atoms
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig

SIDE = 72
Y, X = np.mgrid[:SIDE, :SIDE]
LATTICE = np.cos(2 * np.pi * Y / 12) + np.cos(2 * np.pi * (X - 3.4) / 12)
LATTICE = 100 + 40 * LATTICE + np.random.default_rng(0).normal(scale=4, size=LATTICE.shape)
PLACES = np.stack(np.meshgrid(np.arange(12, 61, 12), np.arange(15, 64, 12)), -1).reshape(-1, 2)

KINDS = ("u1", ">u2", "i4", ">i8", "f2", "f4", ">f8", "g")
LYING = {
    "as it is": lambda pixels: pixels.copy(),
    "by columns": np.asfortranarray,
    "mirrored": lambda pixels: pixels[::-1, ::-1].copy()[::-1, ::-1],
    "every other": lambda pixels: np.repeat(np.repeat(pixels, 2, 0), 3, 1)[::2, ::3],
    "turned": lambda pixels: pixels.T.copy().T,
}


@given(
    kind=st.sampled_from(KINDS),
    lying=st.sampled_from(sorted(LYING)),
    hole=st.tuples(st.integers(0, SIDE), st.integers(0, SIDE), st.integers(0, 30)),
    nothing=st.sampled_from([np.nan, np.inf, -np.inf]),
)
@settings(max_examples=30, deadline=None)
def test_atoms_are_those_of_floats(kind, lying, hole, nothing) -> None:
    """However the pixels are stored; those that are none count as masked."""
    pixels = LATTICE.astype(kind)
    if pixels.dtype.kind == "f":
        pixels[hole[0] : hole[0] + hole[2], hole[1] : hole[1] + hole[2]] = nothing
    floats = np.where(np.isfinite(pixels), pixels, np.nan).astype(np.float64)
    stored = LYING[lying](pixels)
    stored.setflags(write=False)
    found = find_atoms(stored, separation_px=12.0)
    np.testing.assert_array_equal(
        found.positions_yx, find_atoms(floats, separation_px=12.0).positions_yx
    )
    np.testing.assert_array_equal(stored, pixels)
    assert len(found) > 10
    assert ((found.positions_yx > -0.5) & (found.positions_yx < SIDE - 0.5)).all()
    order = np.lexsort(found.positions_yx.T[::-1])
    np.testing.assert_array_equal(order, np.arange(len(found)))


coordinate = st.one_of(
    st.floats(-5, SIDE + 5),
    st.sampled_from([24.0, 24.25, -1e300, 1e9, np.nan, np.inf]),
)


@given(
    more=st.lists(st.tuples(coordinate, coordinate), max_size=6),
    kept=st.integers(0, len(PLACES)),
    size=st.one_of(st.none(), st.integers(-1, SIDE + 9)),
    hole=st.tuples(st.integers(0, SIDE), st.integers(0, SIDE), st.integers(0, 30)),
)
@example(more=[], kept=25, size=9, hole=(0, 0, 0))
@example(more=[(24.0, 27.0), (24.0, 27.0)], kept=25, size=9, hole=(0, 0, 0))
@example(more=[(np.nan, 27.0)], kept=25, size=9, hole=(0, 0, 0))
@example(more=[], kept=19, size=None, hole=(2, 5, 11))  # an atom on the hole, much of it beside
@example(more=[], kept=25, size=9, hole=(20, 23, 8))
@settings(max_examples=40, deadline=None)
def test_an_analysis_begins_with_the_atoms_that_can_be_read(more, kept, size, hole) -> None:
    """Positions that repeat, are nowhere or outside, beside masked pixels; any size of patches."""
    positions = np.concatenate([PLACES[:kept], np.reshape(more, (-1, 2))]).astype(float)
    pixels = LATTICE.copy()
    pixels[hole[0] : hole[0] + hole[2], hole[1] : hole[1] + hole[2]] = np.nan
    before = positions.tobytes(), pixels.tobytes()
    image = MicroscopeImage(data=pixels, name="lattice")
    refusal = ""
    try:
        config = AnalysisConfig(patch_size_px=size, train=TrainConfig(epochs=1))
        steps = analyse(image, config, positions_yx=positions)
        begun = next(step for step in steps if step.stage == "train" and step.index is not None)
    except InputError as error:
        refusal = str(error)
    if refusal:
        assert refusal.endswith(".")
        assert "\n" not in refusal
        assert more or kept < len(PLACES) or hole[2] or size not in range(6, 25)
    else:
        read = positions[begun.index]
        assert np.isfinite(positions).all()
        np.testing.assert_array_equal(begun.positions_yx, positions)
        assert (np.diff(begun.index) > 0).all()
        assert ((read >= 0) & (read < SIDE)).all()
        assert len(np.unique(read, axis=0)) == len(read)
        if size is not None:  # a fifth of a patch may be masked; more by a row where it is rounded
            corners = (read - (size - 1) / 2).round().astype(int)
            patches = [pixels[y : y + size, x : x + size] for y, x in corners]
            assert all(np.isnan(patch).mean() <= 0.2 + 2 / size for patch in patches)
    assert before == (positions.tobytes(), pixels.tobytes())
