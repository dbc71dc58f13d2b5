"""Part of the Train tab for stacks: how many frames to learn from, and where the results go."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_shiftvae.widgets.form import button, in_line, label, rows, whole

OWN_FOLDER = "among your runs"


class StackBox(QWidget):
    """Share of the frames that one model for all learns from, and a folder."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.share = whole(
            1,
            100,
            "One model is trained for all frames, on so many of them, spread evenly (32 at most); "
            "then each frame is read with it.",
            unit="% of the frames",
        )
        self.share.setValue(25)
        self.folder: Path | None = None
        self._shown = label(
            OWN_FOLDER,
            "Each frame's table is written here as soon as it is done. An interrupted analysis "
            "goes on from there when it is started again.",
        )
        self.choose = button("Folder ...", "Choose the folder for model and tables.")
        self.choose.setFixedWidth(76)
        form = rows(self)
        form.addRow("Learn from", self.share)
        form.addRow("Kept in", in_line(self._shown, self.choose))
        self.choose.clicked.connect(self._on_choose)

    def set_folder(self, folder: Path | None) -> None:
        """Keep the results here; None for a folder among the user's own runs."""
        self.folder = folder
        self._shown.setText(OWN_FOLDER if folder is None else folder.name)
        if folder is not None:
            self._shown.setToolTip(str(folder))

    def _on_choose(self) -> None:
        path = QFileDialog.getExistingDirectory(self.window(), "Folder for model and tables")
        if path:
            self.set_folder(Path(path))
