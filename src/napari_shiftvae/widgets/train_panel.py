"""The Train tab: settings of the model, run and stop, and how the training goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_shiftvae.widgets.form import (
    button,
    choice,
    label,
    rows,
)
from napari_shiftvae.widgets.model_box import ModelBox
from napari_shiftvae.widgets.runs_folder import RunsFolder
from napari_shiftvae.widgets.stack_box import StackBox
from napari_shiftvae.widgets.train_form import TrainForm

if TYPE_CHECKING:
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.session import Loss


class LossPlot(pg.GraphicsLayoutWidget):
    """Reconstruction error and information of the latents over the steps, one above the other."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(240)
        self.setToolTip(
            "Above: what the model leaves unexplained of the patches (RMS, in units of their "
            "standard deviation); it falls to the noise. Below: how much information shift and "
            "latents carry per patch."
        )
        self.setBackground(None)
        self._curves = {}
        self._titles: list[str] = []
        for row, (name, colour, title) in enumerate(
            (
                ("reconstruction", "#00e5ff", "Residual (s.d. of the patches)"),
                ("kl", "#ffb000", "Information (nat per patch)"),
            )
        ):
            plot = self.addPlot(row=row, col=0)
            plot.setMenuEnabled(False)
            plot.hideButtons()
            plot.setMouseEnabled(x=False, y=False)
            plot.getAxis("left").setWidth(40)
            plot.setTitle(title, size="9pt")
            self._titles.append(title)
            if row:
                plot.setLabel("bottom", "training step")
                plot.setXLink(self.getItem(0, 0))
            else:
                plot.getAxis("bottom").setStyle(showValues=False)
            self._curves[name] = plot.plot(pen=pg.mkPen(colour, width=2))

    def set_losses(self, losses: list[Loss]) -> None:
        """Draw the curves."""
        step = np.array([loss.step for loss in losses], dtype=float)
        for name, curve in self._curves.items():
            curve.setData(step, np.array([getattr(loss, name) for loss in losses], dtype=float))

    def set_ink(self, colour: str) -> None:
        """Colour of axes and text, which follows napari's theme."""
        for row in (0, 1):
            plot = self.getItem(row, 0)
            plot.setTitle(self._titles[row], size="9pt", color=colour)
            for axis in ("left", "bottom"):
                plot.getAxis(axis).setPen(colour)
                plot.getAxis(axis).setTextPen(colour)


class TrainPanel(QWidget):
    """Settings, Run, Stop and Resume, loss curves."""

    run_asked = Signal()
    stop_asked = Signal()
    resume_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.form = TrainForm()
        self.model = ModelBox()
        self.stack = StackBox()
        self.stack.hide()
        self.spectra = choice(
            [],
            "Whether the layer holds one spectrum for each pixel of a scan, and along which axis. "
            "The analysis then gives maps of each peak's shift, in the unit of that axis, and of "
            "the latents.",
        )
        self._spectra_row = QWidget()
        spectra = rows(self._spectra_row)
        spectra.addRow("Spectra along", self.spectra)
        self._spectra_row.hide()
        self.run = button(
            "Run", "Train a model on the atoms, then refine every atom's shift and latents with it."
        )
        self.stop = button("Stop", "Stop training now and go on with what has been learned so far.")
        self.resume = button(
            "Resume",
            "Train the last model on, up to the number of epochs set above; its patches and other "
            "settings stay.",
        )
        self.status = label("Not trained yet.")
        self.copy = button(
            "Copy as Python",
            "Put code on the clipboard that does what was done last with this image, edits by hand "
            "included, and makes the same numbers.",
        )
        self.plot = LossPlot()
        self.findings = label("", "What the analysis says about itself.")
        self.folder = RunsFolder()
        buttons = QHBoxLayout()
        for one in (self.run, self.stop, self.resume):
            buttons.addWidget(one)
        layout = QVBoxLayout(self)
        layout.addWidget(self._spectra_row)
        layout.addWidget(self.stack)
        layout.addWidget(self.model)
        layout.addWidget(self.form)
        layout.addLayout(buttons)
        said = QHBoxLayout()
        said.addWidget(self.status, 1)
        said.addWidget(self.copy)
        layout.addLayout(said)
        layout.addWidget(self.plot)
        layout.addWidget(self.findings)
        layout.addWidget(self.folder)
        layout.addStretch(1)
        self.model.changed.connect(self._on_model)
        self.run.clicked.connect(self.run_asked)
        self.stop.clicked.connect(self.stop_asked)
        self.resume.clicked.connect(self.resume_asked)
        self.set_possible(run=False, stop=False, resume=False)

    def show_spectra_row(self, there: bool) -> None:
        """Ask about spectra only where the layer has an axis for them."""
        self._spectra_row.setVisible(there)

    def _on_model(self) -> None:
        """With a trained model there is nothing to set."""
        self.form.setVisible(self.model.index is None)
        self.run.setText("Run" if self.model.index is None else "Read image")

    def set_possible(self, *, run: bool, stop: bool, resume: bool) -> None:
        """Enable what can be done now."""
        self.run.setEnabled(run)
        self.stop.setEnabled(stop)
        self.resume.setEnabled(resume)

    def show_patch_size(self, size_px: int | None, pixel_nm: float | None) -> None:
        """Tell the patch size that is used, in pixels and nm."""
        text = "from the atoms' distance" if size_px is None else f"{size_px} px"
        if size_px is not None and pixel_nm is not None:
            text += f" = {size_px * pixel_nm:.3g} nm"
        self.form.patch_note.setText(text)

    def show_end(self, run: Run | None) -> None:
        """Tell how the last training ended and what came of it."""
        if run is None:
            self.status.setText("Not trained yet.")
            self.findings.setText("")
            return
        self.findings.setText("\n".join(run.diagnostics.sentences))
        if run.trained_on is not None:
            self.status.setText(f"read with the model of '{run.trained_on.name}'")
            return
        seconds = run.seconds.get("train", 0.0)
        self.status.setText(
            f"{'trained' if run.finished else 'stopped after'} {run.epochs} epochs"
            f"  ·  {_duration(seconds)}  ·  {run.device}"
        )

    def show_progress(self, progress: Progress, losses: list[Loss], device: str) -> None:
        """Tell how far the training is."""
        report = progress.report
        if report is None:
            self.status.setText(progress.message)
            return
        # the very first steps take much longer than those that follow
        left = _duration(report.seconds_left) if report.seconds > 1 else "some time"
        left += " left" if report.pace.over else " or more left"
        self.status.setText(f"epoch {report.of_epochs}  ·  {left}  ·  {device}")
        self.plot.set_losses(losses)


def _duration(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "?"
    whole_seconds = max(0, round(seconds))
    minutes, rest = divmod(whole_seconds, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
