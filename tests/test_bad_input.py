"""Bad input gets one sentence, the same in the dock and on the command line; nothing is lost."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_shiftvae.cli import main
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image
from napari_shiftvae.core.patches import extract_patches
from napari_shiftvae.core.simulate import perovskite

NOISE = np.random.default_rng(0).normal(size=(64, 64))
FEW = np.zeros((90, 90))
FEW[20::40, 20::40] = 1.0

# what is given: image, words of the sentence
BAD_IMAGES = {
    "rgb": (np.zeros((64, 64, 3), np.uint8), "RGB"),
    "complex": (NOISE + 1j, "complex; take its magnitude or its phase first"),
    "constant": (np.full((64, 64), 7), "constant (every valid pixel is 7)"),
    "all NaN": (np.full((64, 64), np.nan), "no valid pixel"),
    "huge": (NOISE * 1e300, "beyond the range of single precision"),
    "stack": (np.zeros((5, 64, 64), np.float32), "3 dimensions"),
    "tiny": (NOISE[:3, :3], ""),
    "noise": (NOISE, "atoms"),
}


def sentence(text: str) -> str:
    """What is said, without the sign of a warning and the name of program and file."""
    return text.removeprefix("⚠ ").removeprefix("napari-shiftvae: ").split(".npy: ")[-1].strip()


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_command_line_says_it_in_one_line(tmp_path, capsys, kind) -> None:
    data, words = BAD_IMAGES[kind]
    np.save(tmp_path / "bad.npy", data)
    output = tmp_path / "run.shiftvae"
    assert main(["run", str(tmp_path / "bad.npy"), "--output", str(output), "--epochs", "1"]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) <= 2  # a warning may come before
    assert not output.exists()


def test_dock_says_the_same_and_all_else_stays(
    qtbot, make_napari_viewer, tmp_path, capsys, monkeypatch
) -> None:
    from qtpy.QtCore import Qt

    from napari_shiftvae.settings import TrainSettings
    from napari_shiftvae.widgets import ShiftVAEWidget
    from seen import state

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    viewer = make_napari_viewer()
    made = perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image
    viewer.add_image(made, name="made")
    dock = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.train.form.setValue(TrainSettings(epochs=2))
    idle = lambda: dock.session.activity == "idle"  # noqa: E731
    qtbot.mouseClick(dock.header.quick_run, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(idle)
    run, picks = dock.session.run, dock.session.picks
    assert run is not None
    before = state(viewer)
    for kind, (data, words) in BAD_IMAGES.items():
        if kind in {"complex", "stack"}:  # napari shows none; the dock analyses its frames
            continue
        bad = viewer.add_image(data, name=kind)
        dock.header.chooser.setCurrentText(kind)
        dock.quick_run()
        qtbot.waitUntil(idle)
        in_dock = dock.header.message.text()
        assert in_dock.startswith("⚠"), (kind, in_dock)
        assert words in in_dock, kind
        if kind != "rgb":  # a layer of napari, whose remedy is another
            np.save(tmp_path / "bad.npy", data)
            output = str(tmp_path / "run.shiftvae")
            assert main(["run", str(tmp_path / "bad.npy"), "--output", output]) == 2
            said = capsys.readouterr().err.strip().splitlines()[-1]
            assert sentence(said) == sentence(in_dock)
        viewer.layers.remove(bad)
    dock.header.chooser.setCurrentText("made")
    assert state(viewer) == before
    assert dock.session.run is run
    assert dock.session.picks is picks
    for part in (dock.training, dock.atoms_control, dock.fields_control, dock.pixel_size):
        part.close()


# --- anything at all ---------------------------------------------------------------------------


DTYPES = st.one_of(
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.complex_number_dtypes(),
    hnp.boolean_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.datetime64_dtypes(),
)


@st.composite
def arrays(draw):
    """Arrays of any type, shape and stride."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    data = draw(hnp.arrays(draw(DTYPES), shape))
    if data.ndim:
        step = draw(st.sampled_from([1, 2, -1]))
        data = data[::step]
    return data.T if draw(st.booleans()) else data


@given(data=arrays())
@example(data=np.array([[1.0, np.inf], [-np.inf, 3.0]]))
@example(data=np.array([[True, False], [False, True]]))
@example(data=np.arange(12, dtype=">u2").reshape(3, 4)[:, ::-2])
@settings(max_examples=300, deadline=None)
def test_any_array_is_an_image_or_refused_in_one_sentence(data) -> None:
    before = data.tobytes()
    try:
        image = as_float_image(data)
    except InputError as error:
        said = str(error)
        assert said.endswith(".")
        assert "\n" not in said
    else:
        assert image.dtype == np.float32
        assert image.shape == data.shape
        assert len(np.unique(image[np.isfinite(image)])) > 1
        assert not np.isinf(image).any()
    assert data.tobytes() == before


coordinate = st.one_of(
    st.floats(-5, 70),
    st.sampled_from([20.0, 20.25, 1e300, -1e300, 1e9]),
    st.floats(allow_nan=True, allow_infinity=True),
)


@given(
    picks=st.lists(st.tuples(coordinate, coordinate), max_size=30),
    size=st.integers(-3, 90),
    mask=st.tuples(st.integers(0, 63), st.integers(0, 63), st.integers(0, 20)),
)
@example(picks=[(20.0, 30.0), (20.0, 30.0), (40.0, 40.0), (20.0, 30.0)], size=8, mask=(0, 0, 0))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_positions_are_kept_each_with_a_patch_or_a_reason(picks, size, mask) -> None:
    image = NOISE.astype(np.float32)
    y, x, side = mask
    image[y : y + side, x : x + side] = np.nan
    picks = np.array(picks, dtype=float).reshape(-1, 2)
    try:
        patches = extract_patches(image, picks, size)
    except InputError as error:
        said = str(error)
        assert said.endswith(".")
        assert "\n" not in said
        return
    assert len(patches.set_aside) == len(picks)
    assert set(patches.set_aside) <= {"", "border", "masked", "duplicate"}
    np.testing.assert_array_equal(patches.index, np.flatnonzero(patches.set_aside == ""))
    assert np.isfinite(patches.gather(np.arange(len(patches))).numpy()).all()
    different = len(np.unique(picks[patches.index], axis=0))
    assert different == len(patches)


placed = st.fixed_dictionaries(
    {
        "scale": st.tuples(*[st.sampled_from([-0.3, 1e-3, 0.5, 7.0])] * 2),
        "rotate": st.floats(-180, 180),
        "shear": st.tuples(st.floats(-0.5, 0.5)),
        "translate": st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
        "affine": st.sampled_from([[[0, 2, 1], [1.5, 0.5, -4], [0, 0, 1]], np.eye(3)]),
    }
)


@given(place=placed)
@settings(max_examples=30, deadline=None)
def test_layers_lie_on_an_image_however_it_lies(place) -> None:
    pytest.importorskip("napari")
    from napari.layers import Image, Points

    from napari_shiftvae.placement import in_pixels, spatial

    image = Image(NOISE, **place)
    points = Points([[12.0, 34.0]], **spatial(image))
    world = image.data_to_world((12, 34))
    tolerance = 1e-9 * (1 + np.abs(world).max())
    np.testing.assert_allclose(points.data_to_world((12, 34)), world, atol=tolerance)
    np.testing.assert_allclose(in_pixels(image, world, None), (12, 34), atol=1e-5)
