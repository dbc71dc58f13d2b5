"""Where runs save themselves: shown, changed, and looked into."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QSettings, Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_shiftvae.core.checkpoint import runs_folder
from napari_shiftvae.widgets.form import button, in_line, label

KEY = "runs_folder"
RUN_FILES = "Runs (*.shiftvae)"


def _settings() -> QSettings:
    return QSettings(
        QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari-shiftvae", "dock"
    )


def chosen_folder() -> Path:
    """Folder for the runs that the user chose last, else the default one."""
    chosen = str(_settings().value(KEY, "") or "")
    return Path(chosen) if chosen else runs_folder()


class RunsFolder(QWidget):
    """Says where runs are saved, with buttons to change that and to open one of them."""

    open_asked = Signal(str)  # path of a run file

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = label(
            "",
            "Every finished run is saved there by itself, and while a model is trained its state, "
            "every 25 s: nothing is lost when napari or the computer stops.",
        )
        self.change = button("Change folder …", "Choose another folder for the runs to come.")
        self.open = button("Open a run …", "Open a run file with its image, layers and settings.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addLayout(in_line(self.change, self.open))
        self.change.clicked.connect(self._on_change)
        self.open.clicked.connect(self._on_open)
        self._show()

    def _show(self) -> None:
        folder = chosen_folder()
        shown = str(folder)
        if folder.is_relative_to(Path.home()):
            shown = str(Path("~") / folder.relative_to(Path.home()))
        self.text.setText(f"Runs are saved in {shown}")

    def _on_change(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self.window(), "Folder for the runs to come", str(chosen_folder())
        )
        if folder:
            _settings().setValue(KEY, folder)
            self._show()

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self.window(), "Open a run", str(chosen_folder()), RUN_FILES
        )
        if path:
            self.open_asked.emit(path)
