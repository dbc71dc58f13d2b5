"""A question in the dock that waits for its answer without stopping anything else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_shiftvae.widgets.form import button, label


class Notice(QFrame):
    """A sentence with buttons under it; hidden while there is nothing to ask."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.sentence = label()
        self.buttons: dict[str, QPushButton] = {}
        self._line = QHBoxLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.sentence)
        layout.addLayout(self._line)
        self.hide()

    def ask(self, sentence: str, **answers: tuple[str, Callable[[], object]]) -> None:
        """Ask something in place of what was asked before.

        Parameters
        ----------
        sentence : str
        **answers : (str, callable)
            By the text of a button: its tooltip, and what it does after the question is gone.
        """
        self.close_question()
        self.sentence.setText(sentence)
        for text, (tip, act) in answers.items():
            made = button(text.replace("_", " "), tip)
            made.clicked.connect(partial(self._on_answer, act))
            self.buttons[text] = made
            self._line.addWidget(made)
        self.show()

    def close_question(self) -> None:
        """Take the question away."""
        for made in self.buttons.values():
            self._line.removeWidget(made)
            made.hide()  # it is deleted only when its click has been dealt with
            made.deleteLater()
        self.buttons = {}
        self.hide()

    def _on_answer(self, act: Callable[[], object], _: bool = False) -> None:
        self.close_question()
        act()
