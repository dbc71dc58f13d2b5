"""The Atoms tab: find atoms, put right by hand what was found, measure and sort them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLineEdit, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_shiftvae.jobs import NOWHERE
from napari_shiftvae.widgets.find_form import FindForm
from napari_shiftvae.widgets.form import button, choice, folded, in_line, label, rows
from napari_shiftvae.widgets.sublattice_list import SublatticeList

if TYPE_CHECKING:
    from collections import Counter

    from napari_shiftvae.picks import Picks

WHOLE_IMAGE = "whole image"
CRITERIA = {
    "place": "Where an atom sits in the unit cell of the lattice.",
    "intensity": "How high its fitted peak is.",
    "shape": "How wide and how elongated it is.",
}
REASONS = {
    "border": "too near the border",
    "masked": "on masked pixels",
    "duplicate": "twice in one place",
    NOWHERE: "without a finite position",
}


class AtomsPanel(QWidget):
    """Find, refine, edit, group, count. What a press does is the business of `AtomsControl`."""

    lasso_toggled = Signal(bool)
    edit_toggled = Signal(bool)
    score_changed = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.form = FindForm()
        self.region = choice(
            [WHOLE_IMAGE],
            "Atoms are found inside the shapes of this layer only. To draw one, add a Shapes layer "
            "and a rectangle, a polygon or an ellipse on the image.",
        )
        self.form.layout().addRow("Region", self.region)
        self.find = button(
            "Find atoms",
            "Find all atoms of the image. Atoms added or moved by hand stay as they are.",
        )
        self.refine = button(
            "Refine",
            "Fit an elliptical Gaussian with background to every atom: positions to a fraction of "
            "a pixel, height, widths, and their standard deviations. Atoms that cannot be fitted "
            "stay where they are and say why.",
        )
        self.count = label()
        layout = QVBoxLayout(self)
        layout.addWidget(self.form)
        layout.addLayout(in_line(self.find, self.refine))
        layout.addWidget(self.count)
        layout.addLayout(self._editing())
        layout.addWidget(self._similar_sites())
        layout.addWidget(self._sublattices())
        layout.addWidget(self._lattice())
        self.load = button(
            "Import CSV …",
            "Read positions: columns y_px,x_px, or as napari and Atomap write them. They count as "
            "made by hand.",
        )
        self.save = button("Export CSV …", "Write all atoms and what was measured of them.")
        layout.addLayout(in_line(self.load, self.save))
        layout.addStretch(1)

    def _editing(self) -> QGridLayout:
        self.edit = button(
            "Edit with the mouse",
            "While this is on: click on the image to add an atom, drag an atom to move it, "
            "Shift-click deletes it.",
        )
        self.lasso = button(
            "Lasso",
            "While this is on: draw around atoms to select them; Shift adds to the selection.",
        )
        self.delete = button(
            "Delete selected", "Delete the atoms that are selected in the atoms layer."
        )
        self.undo = button("Undo", "Take back the last change of the atoms (Ctrl+Z).")
        self.redo = button("Redo", "Make the change again that was taken back (Ctrl+Shift+Z).")
        self.edit_note = label()
        for one in (self.edit, self.lasso):
            one.setCheckable(True)
        grid = QGridLayout()
        grid.addWidget(self.edit, 0, 0, 1, 2)
        grid.addWidget(self.lasso, 0, 2)
        grid.addWidget(self.delete, 1, 0)
        grid.addWidget(self.undo, 1, 1)
        grid.addWidget(self.redo, 1, 2)
        grid.addWidget(self.edit_note, 2, 0, 1, 3)
        self.edit.toggled.connect(self._on_edit)
        self.lasso.toggled.connect(self._on_lasso)
        return grid

    def _similar_sites(self) -> QWidget:
        self.similar = button(
            "Find similar to the selected",
            "Find all places that look like the selected atoms: click one or a few (or draw a "
            "lasso around them) first.",
        )
        self.score = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.score.setRange(0.0, 1.0)
        self.score.setSingleStep(0.01)
        self.score.setDecimals(2)
        self.score.setEnabled(False)
        self.score.setToolTip(
            "How much a place must look like the examples: their correlation coefficient, 1 for "
            "equal. The circles follow while you drag."
        )
        self.site = QLineEdit()
        self.site.setPlaceholderText("next free letter")
        self.site.setToolTip("Name of the sublattice that the places found make.")
        inside = QWidget()
        fields = rows(inside)
        fields.addRow(self.similar)
        fields.addRow("Score", self.score)
        fields.addRow("Sublattice", self.site)
        self.score.valueChanged.connect(self.score_changed)
        return folded("Similar sites", inside, "Click one, find the rest.")

    def _sublattices(self) -> QWidget:
        self.by = {name: QCheckBox(name) for name in CRITERIA}
        for name, tip in CRITERIA.items():
            self.by[name].setToolTip(tip)
            self.by[name].setChecked(name != "shape")
        self.group = button(
            "Group",
            "Sort the atoms into sublattices by what is ticked; they are refined first where "
            "needed.",
        )
        self.beneath = button(
            "Find weaker ones beneath",
            "Take the fitted atoms out of the image and find the weaker sublattice that is left.",
        )
        self.assign = button(
            "Name selected …", "Put the selected atoms into a sublattice of your own."
        )
        self.sublattices = SublatticeList()
        self.group_note = label()
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(in_line(*self.by.values(), self.group))
        layout.addWidget(self.group_note)
        layout.addWidget(self.sublattices)
        layout.addLayout(in_line(self.beneath, self.assign))
        return folded("Sublattices", inside, "Kinds of atoms: names, colours, and what is analysed")

    def _lattice(self) -> QWidget:
        self.fit_lattice = button(
            "Fit lattice",
            "Fit two lattice vectors to all atoms, number the atoms, and list vacancies and "
            "atoms that are on no site.",
        )
        self.lattice_note = label()
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.fit_lattice)
        layout.addWidget(self.lattice_note)
        return folded("Lattice", inside, "Vectors, vacancies, extra atoms")

    def _on_edit(self, on: bool) -> None:
        if on:
            self.lasso.setChecked(False)
        self._show_edit_note()
        self.edit_toggled.emit(on)

    def _on_lasso(self, on: bool) -> None:
        if on:
            self.edit.setChecked(False)
        self._show_edit_note()
        self.lasso_toggled.emit(on)

    def _show_edit_note(self) -> None:
        note = ""
        if self.edit.isChecked():
            note = "Click adds an atom, drag moves one, Shift-click deletes one."
        elif self.lasso.isChecked():
            note = "Draw around atoms to select them, then delete, name, or find similar ones."
        self.edit_note.setText(note)

    def show_score(self, score: float) -> None:
        """Put the slider where a score was chosen automatically."""
        self.score.setEnabled(True)
        with QSignalBlocker(self.score):
            self.score.setValue(score)

    def show_regions(self, names: list[str]) -> None:
        """Offer the layers of shapes there are; what was chosen stays if it is still there."""
        chosen = self.region.currentText()
        with QSignalBlocker(self.region):
            self.region.clear()
            self.region.addItems([WHOLE_IMAGE, *names])
            self.region.setCurrentText(chosen if chosen in names else WHOLE_IMAGE)

    def chosen_region(self) -> str | None:
        """Name of the layer of shapes, None for the whole image."""
        return self.region.currentText() if self.region.currentIndex() > 0 else None

    def show_picks(self, picks: Picks, aside: Counter[str], patch_size_px: int | None) -> None:
        """Count the atoms, and those without a patch by reason."""
        if not len(picks):
            self.count.setText("No atoms yet: find them, or click some.")
            return
        text = f"<b>{len(picks)}</b> atoms"
        frames = len(set(picks.t.tolist()))
        if frames > 1:
            text += f" in {frames} frames"
        by_hand = int(picks.by_hand.sum())
        if by_hand:
            text += f", {by_hand} of them by hand"
        set_aside = [f"{number} {REASONS[reason]}" for reason, number in aside.items() if reason]
        if set_aside and patch_size_px is not None:
            text += f".<br>Set aside with patches of {patch_size_px} px: {', '.join(set_aside)}"
        if "flag" in picks.table:
            flags = picks.table["flag"][picks.table["flag"] != ""].value_counts()
            if len(flags):
                words = ", ".join(f"{number} {flag}" for flag, number in flags.items())
                text += f".<br>Not refined: {words}"
        self.count.setText(f"{text}.")

    def show_separation(self, separation_px: float | None, pixel_nm: float | None) -> None:
        """Tell the distance that was used, in pixels and nm."""
        if separation_px is None:
            self.form.separation_note.setText("estimated when atoms are found")
            return
        text = f"{separation_px:.1f} px"
        if pixel_nm is not None:
            text += f" = {separation_px * pixel_nm:.3f} nm"
        self.form.separation_note.setText(f"used: {text}")
