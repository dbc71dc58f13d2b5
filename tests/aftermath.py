"""What must hold after a fault in mid-run, and how faults are brought about."""

from napari.utils.progress import progress

from driving import press, wait_idle
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

SHORT = TrainSettings(epochs=3)


def raises(error: Exception) -> None:
    raise error


def assert_usable(qtbot, dock: ShiftVAEWidget) -> None:
    """Every button is alive, no progress is left standing, and a new run ends well."""
    assert dock.session.activity == "idle"
    assert not [bar for bar in progress._all_instances if "Shift-VAE" in bar.desc]
    assert dock.header.progress.value() == 0
    assert dock.header.chooser.isEnabled()
    assert not dock.train.stop.isEnabled()
    dock.train.form.setValue(SHORT)
    before = dock.session.run
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    assert dock.session.run is not before
    assert dock.header.message.text().startswith("Done")
