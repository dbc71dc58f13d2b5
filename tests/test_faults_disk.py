"""A disk that is full or read-only: files stay whole, and the dock goes on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from qtpy.QtWidgets import QFileDialog

from aftermath import assert_usable
from driving import press, run, wait_idle
from napari_shiftvae.core import runfile
from napari_shiftvae.widgets import ShiftVAEWidget
from seen import said

NO_SPACE = OSError(28, "No space left on device")


def no_space(file, _) -> None:
    file.write(b"PK")  # some of it still fitted
    raise NO_SPACE


def wait_for(qtbot, dock: ShiftVAEWidget, words: str) -> None:
    """Wait until the Fields tab has said something, and its thread has ended."""
    said = dock.header.message
    qtbot.waitUntil(lambda: words in said.text() and not dock.fields_control._results._runner.busy)


def test_disk_full_while_a_run_saves_itself(qtbot, dock, runs, monkeypatch) -> None:
    with monkeypatch.context() as patch, said() as sentences:
        patch.setattr(runfile, "_pack", no_space)
        press(qtbot, dock.header.quick_run)
        wait_idle(qtbot, dock)
    assert dock.header.message.text().startswith("Done")
    assert "Saved" not in dock.header.message.text()
    assert any("is not being saved" in one and "No space left" in one for one in sentences)
    assert list(runs.iterdir()) == []
    assert_usable(qtbot, dock)


def test_disk_full_while_saving_keeps_the_old_file(qtbot, dock, tmp_path, monkeypatch) -> None:
    run(qtbot, dock)
    path = tmp_path / "mine.shiftvae"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    press(qtbot, dock.fields.save)
    wait_for(qtbot, dock, "Wrote")
    old = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(runfile, "_pack", no_space)
        press(qtbot, dock.fields.save)
        wait_for(qtbot, dock, "No space left")
    assert path.read_bytes() == old
    assert list(tmp_path.glob("*.part")) == []
    press(qtbot, dock.fields.save)
    wait_for(qtbot, dock, "Wrote")
    assert_usable(qtbot, dock)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_folder_that_is_read_only(qtbot, dock, tmp_path, monkeypatch) -> None:
    run(qtbot, dock)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(locked / "mine.shiftvae"), "")
    )
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(locked))
    with without_privileges():
        for button in (dock.fields.save, dock.fields.export):
            dock.header.say("")
            press(qtbot, button)
            wait_for(qtbot, dock, "denied")
            assert "choose another" in dock.header.message.text()
    assert list(locked.iterdir()) == []
    assert_usable(qtbot, dock)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Nothing is read-only for root: be nobody meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
