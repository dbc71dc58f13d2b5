"""The settings of the model and its training, as one form."""

from __future__ import annotations

from typing import Literal

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets.form import (
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
            "How often all patches are gone through. 'auto' makes about 600 steps (1,000 of fewer "
            "than 1,000 patches), at least 20 epochs, and goes on for up to three times as long "
            "while 25 to 64 patches that are held out still gain: noisy images need that. They "
            "gain if the patterns explain them better; the model never learns from them. The "
            "rate of learning falls in the second half. Fewer than 500 patches and learned classes "
            "get the least; spectra twice as much. A number is made as it is.",
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
