"""Images that are unusual, each analysed rightly or refused in one sentence; nothing is lost."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")


from driving import work
from napari_shiftvae.cli import main
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from seen import refused, said, state

EPOCHS = 2
GRID = np.stack(np.meshgrid(np.arange(30, 121, 15.0), np.arange(30, 121, 15.0)), -1).reshape(-1, 2)


@pytest.fixture
def dock(viewer, open_dock) -> ShiftVAEWidget:
    """The dock of a window without an image."""
    return open_dock(viewer, epochs=EPOCHS)


def typed(tmp_path, image: np.ndarray, *options: object) -> pd.DataFrame:
    """Table of the same analysis on the command line."""
    np.save(tmp_path / "typed.npy", image)
    output = tmp_path / "typed.shiftvae"
    words = ["run", tmp_path / "typed.npy", "--output", output, "--epochs", EPOCHS, *options]
    assert main([str(word) for word in words]) == 0
    return load_run(output).atoms


@pytest.mark.parametrize("kind", [">u2", "bool", "f2"])
def test_types_of_pixels_give_the_numbers_of_floats(qtbot, dock, made, tmp_path, kind) -> None:
    pixels = (made > np.median(made)) if kind == "bool" else (1000 * made.clip(0)).astype(kind)
    pixels = pixels[::-1, ::-1]  # strides below zero
    pixels.setflags(write=False)
    before = pixels.tobytes()
    image = MicroscopeImage(data=pixels.astype(np.float32), name="floats")
    config = AnalysisConfig(train=TrainConfig(epochs=EPOCHS))
    expected = finish(analyse(image, config)).atoms
    assert (expected["set_aside"] == "").sum() > 20
    dock.overlay.viewer.add_image(pixels, name="odd")
    assert work(qtbot, dock, dock.header.quick_run).startswith("Done")
    pd.testing.assert_frame_equal(dock.session.run.atoms, expected)
    assert dock.session.run.image.dtype == str(pixels.dtype)
    pd.testing.assert_frame_equal(
        typed(tmp_path, pixels), expected, rtol=1e-6, check_dtype=False
    )  # written as text
    assert pixels.tobytes() == before


def test_masked_regions_and_atoms_set_aside_are_said(qtbot, dock, made, tmp_path, capsys) -> None:
    """How many pixels and how many atoms, in the dock and on the command line alike."""
    image = made.copy()
    image[40:70, 100:140] = np.nan
    image[60:62] = -np.inf
    count = int((~np.isfinite(image)).sum())
    before = image.tobytes()
    positions = np.concatenate([GRID, GRID[:6] + 0.2, [[2.0, 80.0], [148.0, 3.0], [60.0, 1.0]]])
    viewer = dock.overlay.viewer
    viewer.add_image(image, name="holed")
    dock.session.change_picks(Picks.of(positions, by_hand=True))
    dock.train.form.setValue(TrainSettings(epochs=EPOCHS, patch_size_px=16))
    picks = dock.session.picks
    with said() as sentences:
        done = work(qtbot, dock, dock.header.quick_run)
    run = dock.session.run
    reasons = run.atoms["set_aside"].value_counts()
    assert (reasons["border"], reasons["duplicate"]) == (3, 6)
    assert reasons["masked"] > 3
    masked = f"{count} pixels ({100 * count / image.size:.2g} %) are NaN or infinite: masked"
    assert any(masked in one for one in sentences)  # before there is a result
    assert f"Done: {reasons['']} of {len(positions)} atoms" in done
    words = [
        masked,
        "3 atoms set aside, too near the border.",
        f"{reasons['masked']} atoms set aside, beside masked pixels.",
        "6 atoms set aside, picked twice.",
    ]
    findings = dock.train.findings.text()
    for one in words:
        assert one in findings
    table = pd.DataFrame(positions, columns=["y_px", "x_px"])
    table.to_csv(tmp_path / "atoms.csv", index=False)
    options = ("--positions", tmp_path / "atoms.csv", "--patch-size", 16)
    atoms = typed(tmp_path, image, *options)
    printed = capsys.readouterr().out
    for one in words:
        assert one in printed
    assert atoms["set_aside"].tolist() == run.atoms["set_aside"].tolist()
    # all of them are kept, where they were
    np.testing.assert_array_equal(run.picks_yx, positions)
    np.testing.assert_array_equal(dock.overlay.atoms.data, positions)
    assert dock.session.picks is picks
    assert image.tobytes() == before
    # counted in the Atoms tab before anything is trained
    viewer.add_image(image.copy(), name="again")
    dock.header.chooser.setCurrentText("again")
    dock.session.change_picks(Picks.of(positions, by_hand=True))
    counted = dock.atoms.count
    qtbot.waitUntil(lambda: "Set aside" in counted.text())
    for one in ("3 too near the border", f"{reasons['masked']} on masked", "6 twice in one place"):
        assert one in counted.text()


def test_labels_layer_that_holds_an_image(qtbot, dock, made) -> None:
    viewer = dock.overlay.viewer
    assert "Open an image first" in dock.header.message.text()
    labels = viewer.add_labels((100 * made.clip(0)).astype(int), name="counts")
    assert "'counts' is a Labels layer" in dock.header.message.text()
    assert "Convert to Image" in dock.header.message.text()
    assert not dock.header.quick_run.isEnabled()
    before = state(viewer)
    dock.quick_run()
    assert dock.header.message.text().startswith("⚠ 'counts' is a Labels layer")
    assert state(viewer) == before
    viewer.add_image(labels.data, name="converted")
    assert work(qtbot, dock, dock.header.quick_run).startswith("Done")
    viewer.layers.remove("converted")
    assert "'counts' is a Labels layer" in dock.header.message.text()


def test_pixels_that_can_be_read_no_more(qtbot, dock, made) -> None:
    """Of a lazy array whose file is gone; all goes on once it is back."""
    dask = pytest.importorskip("dask", reason="dask is an optional dependency")
    dask_array = pytest.importorskip("dask.array")
    dask.config.set(scheduler="synchronous")  # its threads would stay
    gone = False

    def pixels(block):
        if gone:
            raise OSError("Stale file handle")
        return block

    def lazy(data, chunks):
        blocks = dask_array.from_array(data, chunks=chunks)
        return blocks.map_blocks(pixels, dtype=data.dtype, meta=data[..., :0])

    viewer = dock.overlay.viewer
    viewer.add_image(lazy(made, made.shape), name="image")
    with qtbot.waitSignal(dock.fields_control.read):  # it changes the arrows
        assert work(qtbot, dock, dock.header.quick_run).startswith("Done")
    runs = {"image": dock.session.run}
    viewer.add_image(lazy(np.stack([made] * 3), (1, *made.shape)), name="stack")
    before = state(viewer)
    gone = True
    sentence = "The pixels could not be read (Stale file handle): see whether their file"
    for name in ("image", "stack"):
        dock.header.chooser.setCurrentText(name)
        for button in (dock.atoms.find, dock.header.quick_run):
            words = work(qtbot, dock, button)
            assert words.startswith("⚠"), name
            assert sentence in words, name
            assert "failed" not in words, name  # as of a defect
        assert dock.session.run is runs.get(name)
    gone = False
    assert state(viewer) == before
    dock.header.chooser.setCurrentText("image")
    assert work(qtbot, dock, dock.header.quick_run).startswith("Done")


def test_channels_of_colour_are_no_frames(qtbot, dock, made, tmp_path, capsys) -> None:
    colours = np.stack([made] * 3, axis=-1)
    dock.overlay.viewer.add_image(colours, name="screen", rgb=False)
    for button in (dock.atoms.find, dock.header.quick_run):
        words = work(qtbot, dock, button)
        assert words.startswith("⚠ 'screen' looks like an RGB image (150 x 170 x 3); take one of")
    np.save(tmp_path / "screen.npy", colours)
    line = refused(capsys, "run", tmp_path / "screen.npy", "--output", tmp_path / "a.shiftvae")
    assert "The image is RGB (150 x 170 x 3); convert it to one grey channel" in line


# napari draws a thumbnail of them
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_positions_that_are_nowhere(qtbot, dock, made) -> None:
    """Napari's own tools can make them; they are counted, and a run tells which."""
    viewer = dock.overlay.viewer
    viewer.add_image(made, name="made")
    dock.session.change_picks(Picks.of(GRID, by_hand=True))
    moved = dock.overlay.atoms.data.copy()
    moved[3], moved[5] = np.nan, (np.inf, 20.0)
    picks = dock.session.picks.edited(moved)
    dock.session.change_picks(picks)
    counted = dock.atoms.count
    qtbot.waitUntil(lambda: "2 without a finite position" in counted.text())
    words = work(qtbot, dock, dock.header.quick_run)
    assert words == "⚠ Position 4 is not finite: give every atom a finite y and x."
    np.testing.assert_array_equal(dock.session.picks.positions_yx, moved)
    dock.session.undo()
    assert work(qtbot, dock, dock.header.quick_run).startswith("Done")


@pytest.mark.filterwarnings("default::napari_shiftvae.core.errors.Notice")
def test_chunks_that_are_not_in_the_file(qtbot, dock, made, tmp_path, capsys) -> None:
    """Of a copy that broke off: masked, and no zeros; in the dock and on the command line alike."""
    zarr = pytest.importorskip("zarr", reason="zarr is an optional dependency")
    pytest.importorskip("dask", reason="dask is an optional dependency").config.set(
        scheduler="synchronous"  # its threads would stay
    )
    path = tmp_path / "film.zarr"
    store = zarr.create_array(path, shape=made.shape, chunks=(50, 85), dtype="float32")
    store[:] = made
    expected = made.copy()
    expected[50:100, 85:] = np.nan
    (path / "c" / "1" / "1").unlink()
    lacking = "film.zarr: 1 of 6 chunks is not in the file, and masked."
    masked = "4250 pixels (17 %) are NaN or infinite: masked"
    viewer = dock.overlay.viewer
    (layer,) = viewer.open(path, plugin="napari")
    before = state(viewer)
    assert lacking in dock.header.message.text()
    with said() as sentences:
        assert work(qtbot, dock, dock.header.quick_run).startswith("Done")
    assert any(masked in one for one in sentences)
    # a job that ends sets back where warnings go, also those of the command
    qtbot.waitUntil(lambda: not dock.fields_control._reads.runner.busy)
    run = dock.session.run
    config = AnalysisConfig(train=TrainConfig(epochs=EPOCHS))
    floats = finish(analyse(MicroscopeImage(data=expected, name="floats"), config)).atoms
    pd.testing.assert_frame_equal(run.atoms, floats)
    assert state(viewer)[layer.name] == before[layer.name]
    output = tmp_path / "typed.shiftvae"
    words = ("run", path, "--output", output, "--epochs", EPOCHS)
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr()
    assert lacking in told.err
    assert masked in told.out + told.err
    pd.testing.assert_frame_equal(load_run(output).atoms, floats, rtol=1e-6, check_dtype=False)
