"""A person who presses the buttons of the dock, and waits for what comes of it."""

import threading
from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton

from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.worker import Latest

FOR_EVER = TrainSettings(epochs=100_000)


def press(qtbot, button: QAbstractButton) -> None:
    """Click a button, as soon as it does something."""
    qtbot.waitUntil(button.isEnabled)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def wait_idle(qtbot, dock: ShiftVAEWidget) -> None:
    """Wait for the end of a run or of a search."""
    qtbot.waitUntil(lambda: dock.session.activity == "idle")


def work(qtbot, dock: ShiftVAEWidget, button: QAbstractButton) -> str:
    """Press a button that has atoms found or a model trained; what the dock says in the end."""
    press(qtbot, button)
    wait_idle(qtbot, dock)
    return dock.header.message.text()


def run(qtbot, dock: ShiftVAEWidget) -> None:
    """A whole run, and its fields."""
    with qtbot.waitSignal(dock.fields_control.read):
        press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)


def begin(qtbot, dock: ShiftVAEWidget) -> None:
    """Start a training that would go on for ever, and wait until it is under way."""
    dock.train.form.setValue(FOR_EVER)
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 1)


def stop(qtbot, dock: ShiftVAEWidget) -> None:
    """Stop the training; its result is shown."""
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)


def hold(latest: Latest) -> threading.Event:
    """Have a job wait in its thread until this is set."""
    go_on, job = threading.Event(), latest._job

    def held(*arguments: object) -> object:
        assert go_on.wait(60)  # s; it would hang where a test fails
        return job(*arguments)

    latest._job = held
    return go_on


def read(qtbot, dock: ShiftVAEWidget, change: Callable[[], None]) -> None:
    """Change something in the Fields tab and wait until it is worked out."""
    with qtbot.waitSignal(dock.fields_control.read):
        change()
