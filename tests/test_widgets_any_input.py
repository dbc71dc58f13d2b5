"""Any image and any picks in a real dock: a result that lies on the image, or one sentence."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from driving import wait_idle, work
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import TrainSettings
from seen import state

SIDE = 72
Y, X = np.mgrid[:SIDE, :SIDE]
LATTICE = 100 + 40 * (np.cos(2 * np.pi * Y / 12) + np.cos(2 * np.pi * (X - 3.4) / 12))
LATTICE += np.random.default_rng(0).normal(scale=4, size=LATTICE.shape)
PLACES = np.stack(np.meshgrid(np.arange(12, 61, 12), np.arange(15, 64, 12)), -1).reshape(-1, 2)

places = st.fixed_dictionaries(
    {
        "scale": st.tuples(*[st.sampled_from([-0.3, 1e-3, 0.5, 7.0])] * 2),
        "rotate": st.floats(-180, 180),
        "translate": st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
        "affine": st.sampled_from([[[0, 2, 1], [1.5, 0.5, -4], [0, 0, 1]], np.eye(3)]),
    }
)
coordinate = st.one_of(st.floats(-5, SIDE + 5), st.sampled_from([24.0, 1e5, np.nan, np.inf]))
TURNED = {"scale": (0.5, -0.3), "rotate": 30.0, "translate": (3, 4), "affine": np.eye(3)}


@pytest.mark.filterwarnings("ignore:It looks like `register_random`")  # its search is of gc
# napari draws a thumbnail of positions that are nowhere
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_any_image_and_any_picks(qtbot, viewer, open_dock) -> None:
    dock = open_dock(viewer)
    dock.train.form.setValue(TrainSettings(epochs=1, patch_size_px=11))
    ends = set()

    @given(
        kind=st.sampled_from(["u1", ">u2", "i4", "f2", "f4", ">f8", "bool"]),
        place=places,
        hole=st.tuples(st.integers(0, SIDE), st.integers(0, SIDE), st.integers(0, 30)),
        kept=st.sampled_from([0, 3, 25]),
        more=st.lists(st.tuples(coordinate, coordinate), max_size=5),
    )
    @example(kind=">u2", place=TURNED, hole=(0, 0, 0), kept=25, more=[(24.0, 27.0)] * 2)
    @example(kind="f4", place=TURNED, hole=(9, 9, 20), kept=25, more=[(np.nan, 3.0)])
    @settings(
        max_examples=5,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def pressed(kind, place, hole, kept, more) -> None:
        viewer.layers.clear()
        pixels = (LATTICE > 100) if kind == "bool" else LATTICE.astype(kind)
        if pixels.dtype.kind == "f":
            pixels[hole[0] : hole[0] + hole[2], hole[1] : hole[1] + hole[2]] = np.nan
        image = viewer.add_image(pixels, name="made", **place)
        positions = np.concatenate([PLACES[:kept], np.reshape(more, (-1, 2))])
        if len(positions):  # else atoms are found
            finite = np.where(np.isfinite(positions), positions, 0.0)
            dock.session.change_picks(Picks.of(finite, by_hand=True))
            dock.session.change_picks(dock.session.picks.edited(positions))  # as napari's tools can
            qtbot.waitUntil(lambda: dock.overlay.atoms.visible)
        before, picks, earlier = state(viewer), dock.session.picks, dock.session.run
        dock.header.say("")
        said = work(qtbot, dock, dock.header.quick_run)
        ends.add(said.split()[0])
        now = state(viewer)
        assert now["made"] == before["made"]
        if said.startswith("⚠"):
            assert set(now) <= {"made", "made atoms"}, said
            assert dock.session.run is earlier
            assert said.endswith(".")
        else:
            assert said.startswith("Done")
            run = dock.session.run
            used = run.atoms.loc[run.used]
            assert np.isfinite(used[["atom_y_px", "atom_x_px", "z1"]]).all(axis=None)
            assert used[["y_px", "x_px"]].ge(-0.5).all(axis=None)
            assert used[["y_px", "x_px"]].lt(SIDE - 0.5).all(axis=None)
            for layer in viewer.layers:
                np.testing.assert_allclose(
                    layer.data_to_world((12, 34)), image.data_to_world((12, 34))
                )
        if len(positions):
            assert dock.session.picks is picks
            np.testing.assert_array_equal(dock.overlay.atoms.data, positions)

    pressed()
    wait_idle(qtbot, dock)
    assert ends == {"⚠", "Done:"}
