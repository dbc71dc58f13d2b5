"""The Train tab: its form, the square of the patch, atoms recoloured, Stop and Resume."""

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")


from napari.layers import Shapes

from driving import FOR_EVER, begin, press, run, stop, wait_idle
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import pace
from napari_shiftvae.widgets.train_form import TrainForm


def test_the_patch_square_is_drawn_while_the_train_tab_is_open(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    dock.tabs.setCurrentIndex(1)
    qtbot.waitUntil(lambda: "made patch" in viewer.layers)
    square, image = viewer.layers["made patch"], viewer.layers["made"]
    assert isinstance(square, Shapes)
    np.testing.assert_allclose(square.data_to_world((1, 2)), image.data_to_world((1, 2)))
    side = np.ptp(square.data[0][:, 0])
    np.testing.assert_allclose(square.edge_width, side / 20)  # a frame, wherever it is drawn
    dock.train.form.patch_size.setValue(24)
    qtbot.waitUntil(lambda: np.ptp(square.data[0][:, 0]) == 24)
    assert "24 px = " in dock.train.form.patch_note.text()
    centre = square.data[0].mean(axis=0)
    assert np.abs(viewer.layers["made atoms"].data - centre).max(axis=1).min() <= 0.5
    dock.tabs.setCurrentIndex(0)
    assert "made patch" not in viewer.layers


def test_atoms_are_recoloured_while_training_goes_on(qtbot, viewer, dock, monkeypatch) -> None:
    monkeypatch.setattr(pace, "SHARE", 1.0)  # or three pictures take minutes on a busy machine
    dock.train.form.setValue(FOR_EVER)
    press(qtbot, dock.header.quick_run)
    qtbot.waitUntil(lambda: "made atoms" in viewer.layers)
    atoms, seen = viewer.layers["made atoms"], []

    def coloured() -> bool:
        seen.append(atoms.face_color.copy())
        return len({colours.tobytes() for colours in seen if colours[:, 3].any()}) > 2

    qtbot.waitUntil(coloured)
    assert "left" in dock.train.status.text()
    stop(qtbot, dock)
    assert dock.session.run is not None
    assert dock.session.run.epochs < 100_000
    assert "z1" in atoms.features


def test_stop_before_training_has_begun_is_not_forgotten(qtbot, dock) -> None:
    dock.train.form.setValue(FOR_EVER)
    press(qtbot, dock.train.run)
    stop(qtbot, dock)
    assert dock.session.run.epochs < 1000
    assert "stopped after" in dock.train.status.text()


def test_resume_goes_on_where_stop_stopped(qtbot, dock) -> None:
    begin(qtbot, dock)
    stop(qtbot, dock)
    first, losses = dock.session.run, len(dock.session.losses)
    press(qtbot, dock.train.resume)
    qtbot.waitUntil(lambda: len(dock.session.losses) > losses + 2)
    stop(qtbot, dock)
    assert dock.session.run.epochs >= first.epochs
    assert dock.session.losses[losses].epoch >= first.epochs


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(),
        TrainSettings(
            patch_size_px=31,
            latent_dim=4,
            sublattices="examples",
            invariances=("shift", "scale"),
            classes=3,
            smoothness=0.7,
            edge_preserving=False,
            decoder="coordinate",
            shift_prior_px=1.7,
            kl_shift=0.5,
            kl_content=4.0,
            epochs=12,
            batch_size=64,
            seed=9,
        ),
    ],
)
def test_train_form_round_trip(qtbot, settings) -> None:
    form = TrainForm()
    qtbot.addWidget(form)
    form.setValue(TrainSettings(seed=1))
    with qtbot.waitSignal(form.valueChanged) as heard:
        form.setValue(settings)
    assert form.value() == settings == heard.args[0]


def test_after_a_quick_run_the_tabs_tell_its_separation_and_patches(qtbot, dock) -> None:
    """Found by the run itself, which measures the separation in another way than from picks."""
    run(qtbot, dock)
    made = dock.session.run
    size = made.model.config.patch_size_px
    assert dock.session.separation_px == made.separation_px
    assert f"{made.separation_px:.1f} px" in dock.atoms.form.separation_note.text()
    qtbot.waitUntil(lambda: dock.survey.patch_size_px == size)
    aside = int((made.atoms["set_aside"] == "border").sum())
    qtbot.waitUntil(lambda: dock.survey._aside["border"] == aside)
