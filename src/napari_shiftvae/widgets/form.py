"""Small parts that all panels are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QWidget,
)
from superqt import QCollapsible

AUTO = "auto"

Field = TypeVar("Field", QSpinBox, QDoubleSpinBox)


def button(text: str, tip: str) -> QPushButton:
    """Make a button with a tooltip."""
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def label(text: str = "", tip: str = "") -> QLabel:
    """Make a label that wraps its text and can be copied from."""
    made = QLabel(text)
    made.setWordWrap(True)
    made.setToolTip(tip)
    made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return made


def choice(options: Sequence[str], tip: str) -> QComboBox:
    """Make a drop-down list."""
    made = QComboBox()
    made.addItems(list(options))
    made.setToolTip(tip)
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return made


def whole(low: int, high: int, tip: str, *, unit: str = "", auto: bool = False) -> QSpinBox:
    """Make a field for a whole number; with `auto`, the value below the lowest one means None."""
    made = QSpinBox()
    made.setRange(low - auto, high)
    made.setSuffix(f" {unit}" if unit else "")
    return _number(made, tip, auto=auto)


def real(
    low: float, high: float, step: float, tip: str, *, unit: str = "", auto: bool = False
) -> QDoubleSpinBox:
    """Make a field for a number; with `auto`, one step below the lowest value means None."""
    made = QDoubleSpinBox()
    made.setDecimals(3 if step < 0.1 else 2 if step < 1 else 1)
    made.setRange(low - step * auto, high)
    made.setSingleStep(step)
    made.setSuffix(f" {unit}" if unit else "")
    return _number(made, tip, auto=auto)


def _number(made: Field, tip: str, *, auto: bool) -> Field:
    if auto:
        made.setSpecialValueText(AUTO)
    made.setToolTip(tip)
    made.setKeyboardTracking(False)
    made.setAlignment(Qt.AlignmentFlag.AlignRight)
    # the wheel scrolls the dock instead of changing what the mouse happens to pass over
    made.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return made


def optional(field: QSpinBox | QDoubleSpinBox) -> Any:
    """Value of a field made with `auto`, None where it stands on auto."""
    return None if field.value() == field.minimum() else field.value()


def set_optional(field: QSpinBox | QDoubleSpinBox, value: float | None) -> None:
    """Set a field made with `auto`."""
    field.setValue(field.minimum() if value is None else value)


def rows(parent: QWidget | None = None) -> QFormLayout:
    """Make a layout of labelled fields."""
    layout = QFormLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    return layout


def in_line(*widgets: QWidget) -> QHBoxLayout:
    """Put widgets side by side."""
    layout = QHBoxLayout()
    for one in widgets:
        layout.addWidget(one)
    return layout


def folded(title: str, content: QWidget, tip: str) -> QCollapsible:
    """Put a widget under a heading that unfolds it."""
    made = QCollapsible(title)
    made.setToolTip(tip)
    made.addWidget(content)
    made.collapse(animate=False)
    return made
