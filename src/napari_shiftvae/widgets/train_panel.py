"""The Train tab: settings of the model, run and stop, and how the training goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets.form import (
    button,
    choice,
    folded,
    in_line,
    label,
    optional,
    real,
    rows,
    set_optional,
    whole,
)
from napari_shiftvae.widgets.model_box import ModelBox
from napari_shiftvae.widgets.runs_folder import RunsFolder
from napari_shiftvae.widgets.stack_box import StackBox

if TYPE_CHECKING:
    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.session import Loss


INVARIANCES = {
    "shift": "Patterns that differ only in where they lie get the same latents.",
    "rotation": "The same for patterns that are turned; the atoms get a column 'rotation_rad'.",
    "scale": "The same for patterns of different size; the atoms get a column 'scale'.",
}
SUBLATTICES: dict[str, Literal["ignored", "given", "examples"]] = {
    "ignored": "ignored",
    "own patterns": "given",
    "examples of classes": "examples",
}


class TrainForm(QWidget):
    """Edits one `TrainSettings`."""

    valueChanged = Signal(object)  # TrainSettings

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.patch_size = whole(
            6,
            1024,
            "Side of the square cut around each atom. It should hold the atom and the ring of its "
            "neighbours; the white square on the image shows it. 'auto' takes 2.1 times the "
            "distance between atoms; 0.84 times where classes are learned, so that it holds one "
            "atom and classes are kinds of atoms, not of their neighbours.",
            unit="px",
            auto=True,
        )
        self.patch_note = label()
        self.latent_dim = whole(
            1,
            16,
            "Into how many numbers z1, z2, ... the model sums up what each patch shows, apart from "
            "where it lies. Two suit most images; a superfluous one is reported as carrying "
            "nothing.",
        )
        self.invariances = {name: QCheckBox(name) for name in INVARIANCES}
        for name, tip in INVARIANCES.items():
            self.invariances[name].setToolTip(tip)
        self.classes = whole(
            2,
            16,
            "Sort the atoms into so many classes while the model is trained; the atoms get a "
            "column 'class', the largest being 0. Rare kinds are found from about ten atoms on. "
            "For classes of surroundings, such as domains, choose a patch that holds them.",
            auto=True,
        )
        self.classes.setSpecialValueText("none")
        self.sublattices = choice(
            list(SUBLATTICES),
            "What the sublattices of the Atoms tab are to the model. own patterns: each has "
            "patterns of its own, and its atoms move against their own kind of cage. examples of "
            "classes: name about five atoms of each kind there; the others are sorted into these "
            "classes while the model is trained.",
        )
        self.smoothness = real(
            0.0,
            1000.0,
            0.1,
            "Ask for latents that change little from an atom to its like neighbours, weighed in "
            "units of their uncertainty; 1 is a start for noisy images of any kind. 0 for none.",
        )
        self.edges = QCheckBox("sharp walls")
        self.edges.setToolTip("Let latents jump where the image shows that they do.")
        self.decoder = choice(
            ["fourier", "coordinate"],
            "fourier: a sum of waves without detail finer than the probe, by the image's power "
            "spectrum; fast and exact in its shifts. coordinate: the network of the original "
            "paper, for patterns with sharp edges.",
        )
        self.shift_prior = real(
            0.1,
            200.0,
            0.1,
            "How far patterns typically lie from their picks (standard deviation). 'auto' takes a "
            "twentieth of the distance between atoms: picks are good to a pixel or so, and a wide "
            "prior would let the shift stand for the place of a sublattice.",
            unit="px",
            auto=True,
        )
        self.kl_shift = real(
            0.0, 100.0, 0.1, "Weight of the term that keeps shifts small. 1 is the plain method."
        )
        self.kl_content = real(
            0.0,
            100.0,
            0.1,
            "Weight of the term that keeps z1, z2, ... small and independent. 1 is the plain "
            "method; more makes fewer of them carry something.",
        )
        self.epochs = whole(
            1,
            100_000,
            "How often all patches are gone through. 'auto' takes about 600 steps in all, at least "
            "20 epochs; where noise drowns the atoms (20 % of their height) 60 do better.",
            auto=True,
        )
        self.batch_size = whole(2, 65_536, "How many patches the model sees at a time.")
        self.seed = whole(
            0,
            2**31 - 1,
            "Starting point of the random numbers: the same seed on the same machine gives the "
            "same result.",
        )
        self.check_seed = QCheckBox("compare with another seed")
        self.check_seed.setToolTip(
            "Train once more with the next seed and say how far the latents agree. Takes twice as "
            "long."
        )
        self._lay_out()
        for field in (
            self.patch_size,
            self.latent_dim,
            self.shift_prior,
            self.kl_shift,
            self.kl_content,
            self.epochs,
            self.batch_size,
            self.seed,
            self.classes,
            self.smoothness,
        ):
            field.valueChanged.connect(self._on_changed)
        for box in (*self.invariances.values(), self.edges, self.check_seed):
            box.toggled.connect(self._on_changed)
        for menu in (self.decoder, self.sublattices):
            menu.currentIndexChanged.connect(self._on_changed)
        self.setValue(TrainSettings())

    def _lay_out(self) -> None:
        plain = rows(self)
        plain.addRow("Patch size", self.patch_size)
        plain.addRow("", self.patch_note)
        plain.addRow("Latents", self.latent_dim)
        plain.addRow("Invariant to", in_line(*self.invariances.values()))
        advanced = QWidget()
        more = rows(advanced)
        more.addRow("Decoder", self.decoder)
        more.addRow("Smoothness", in_line(self.smoothness, self.edges))
        more.addRow("Sublattices", self.sublattices)
        more.addRow("Classes", self.classes)
        more.addRow("Shift prior", self.shift_prior)
        more.addRow("KL of shift", self.kl_shift)
        more.addRow("KL of latents", self.kl_content)
        more.addRow("Epochs", self.epochs)
        more.addRow("Batch", self.batch_size)
        more.addRow("Seed", self.seed)
        more.addRow("", self.check_seed)
        self.advanced = folded("Advanced", advanced, "Settings that rarely need a change.")
        plain.addRow(self.advanced)

    def value(self) -> TrainSettings:
        """Settings as they stand in the form."""
        return TrainSettings(
            patch_size_px=optional(self.patch_size),
            latent_dim=self.latent_dim.value(),
            invariances=tuple(name for name, box in self.invariances.items() if box.isChecked()),
            classes=optional(self.classes) or 0,
            sublattices=SUBLATTICES[self.sublattices.currentText()],
            smoothness=self.smoothness.value(),
            edge_preserving=self.edges.isChecked(),
            decoder=self.decoder.currentText(),
            shift_prior_px=optional(self.shift_prior),
            kl_shift=self.kl_shift.value(),
            kl_content=self.kl_content.value(),
            epochs=optional(self.epochs),
            batch_size=self.batch_size.value(),
            seed=self.seed.value(),
            check_seed=self.check_seed.isChecked(),
        )

    def setValue(self, settings: TrainSettings) -> None:
        """Show other settings; one `valueChanged` at most."""
        before = self.value()
        with QSignalBlocker(self):
            set_optional(self.patch_size, settings.patch_size_px)
            self.latent_dim.setValue(settings.latent_dim)
            for name, box in self.invariances.items():
                box.setChecked(name in settings.invariances)
            set_optional(self.classes, settings.classes or None)
            names = {value: name for name, value in SUBLATTICES.items()}
            self.sublattices.setCurrentText(names[settings.sublattices])
            self.smoothness.setValue(settings.smoothness)
            self.edges.setChecked(settings.edge_preserving)
            self.decoder.setCurrentText(settings.decoder)
            set_optional(self.shift_prior, settings.shift_prior_px)
            self.kl_shift.setValue(settings.kl_shift)
            self.kl_content.setValue(settings.kl_content)
            set_optional(self.epochs, settings.epochs)
            self.batch_size.setValue(settings.batch_size)
            self.seed.setValue(settings.seed)
            self.check_seed.setChecked(settings.check_seed)
        if self.value() != before:
            self._on_changed()

    def _on_changed(self) -> None:
        self.valueChanged.emit(self.value())


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
        self.status.setText(f"epoch {report.epoch} of {report.epochs}  ·  {left} left  ·  {device}")
        self.plot.set_losses(losses)


def _duration(seconds: float) -> str:
    if not np.isfinite(seconds):
        return "?"
    whole_seconds = max(0, round(seconds))
    minutes, rest = divmod(whole_seconds, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
