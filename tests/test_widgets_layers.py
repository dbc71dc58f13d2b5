"""Whatever a person does to the layers, Explore and Fields go on working."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from napari.layers import Image, Layer
from pytestqt.qtbot import QtBot

from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.widgets import ShiftVAEWidget

EXPLORE, FIELDS = 2, 3
MOST_LAYERS = 14
PLACE = {"scale": (0.02, 0.02), "units": ("nm", "nm")}
MADE = perovskite(rng=np.random.default_rng(0), shape=(150, 170), pixel_size_nm=0.02)
few = settings(
    max_examples=5,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
numbers = st.integers(0, 99)


@pytest.fixture
def dock(finished_dock: Callable[..., ShiftVAEWidget]) -> ShiftVAEWidget:
    return finished_dock(MADE.image, tab=EXPLORE, epochs=6, **PLACE)


class Person(RuleBasedStateMachine):
    """Does anything but delete the image that was analysed."""

    qtbot: ClassVar[QtBot | None] = None
    dock: ClassVar[ShiftVAEWidget | None] = None
    image: ClassVar[Image | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.viewer, self.runs = self.dock.overlay.viewer, self.dock.overlay.runs
        self.run = self.dock.session.run
        self.rows = np.flatnonzero(self.run.used)
        self.others: list[Layer] = []  # made by the person

    def layer(self, number: int) -> Layer:
        return self.viewer.layers[number % len(self.viewer.layers)]

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        layer = self.layer(number)
        if layer is not self.image:
            self.viewer.layers.remove(layer)

    @rule(number=numbers)
    def rename(self, number: int) -> None:
        self.layer(number).name = f"renamed {number}"

    @rule(number=numbers, to=numbers)
    def move(self, number: int, to: int) -> None:
        count = len(self.viewer.layers)
        self.viewer.layers.move(number % count, to % count)

    @rule(number=numbers)
    def show_or_hide(self, number: int) -> None:
        self.layer(number).visible = not self.layer(number).visible

    @rule(number=numbers)
    def activate(self, number: int) -> None:
        self.viewer.layers.selection.active = self.layer(number)

    @rule(number=numbers)
    def duplicate(self, number: int) -> None:
        layer = self.layer(number)
        if layer is not self.image and len(self.viewer.layers) < MOST_LAYERS:
            data, attributes, kind = layer.as_layer_data_tuple()  # as napari does it
            self.others.append(self.viewer.add_layer(Layer.create(data.copy(), attributes, kind)))

    @rule(points=st.booleans())
    def add(self, points: bool) -> None:
        if len(self.viewer.layers) < MOST_LAYERS:
            add = self.viewer.add_points if points else self.viewer.add_image
            self.others.append(add(np.eye(20, 2 if points else 20), **PLACE))

    @rule(number=numbers)
    def select_atoms(self, number: int) -> None:
        self.dock.tabs.setCurrentIndex(EXPLORE)
        chosen = self.rows[number % len(self.rows) :][:3]
        self.dock.explore.scatter.picked.emit(chosen, False)
        atoms = self.runs.atoms_of(self.run)
        assert atoms in self.viewer.layers
        assert atoms.selected_data == set(chosen.tolist())

    @rule(column=st.sampled_from(["z1", "z2", "residual"]))
    def colour_by(self, column: str) -> None:
        self.dock.explore.colour.setCurrentText(column)

    @rule(name=st.sampled_from(["none", "z1", "exx", "length"]))
    def choose_map(self, name: str) -> None:
        self.dock.tabs.setCurrentIndex(FIELDS)
        self.dock.fields.map.setCurrentText(name)
        self.qtbot.wait(20)  # it may or may not be there when the next thing is done

    @rule(shown=st.booleans(), gain=st.integers(1, 50))
    def draw_arrows(self, shown: bool, gain: int) -> None:
        self.dock.fields.arrows.setChecked(shown)
        self.dock.fields.gain.setValue(gain)

    @invariant()
    def what_is_marked_is_what_is_selected(self) -> None:
        selected = self.dock.explore_control.selected()
        marked = np.sort(self.dock.explore.scatter.marks.getData()[0])
        np.testing.assert_allclose(marked, np.sort(self.run.atoms["z1"].iloc[selected]))

    def teardown(self) -> None:
        """All of it is there when it is asked for."""
        fields = self.dock.fields
        self.select_atoms(0)
        fields.map.setCurrentText("none")
        fields.map.setCurrentText("exx")
        self.qtbot.waitUntil(lambda: self.runs.shown_map(self.run) == "exx")
        for box, of_run in (
            (fields.atoms, self.runs.atoms_of),
            (fields.arrows, self.runs.arrows_of),
        ):
            box.setChecked(False)
            box.setChecked(True)
            self.qtbot.waitUntil(lambda of_run=of_run: of_run(self.run).visible)
        assert self.dock.session.run is self.run
        for layer in self.others:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)


def test_no_order_of_operations_on_layers_breaks_the_tabs(qtbot, dock) -> None:
    Person.qtbot, Person.dock, Person.image = qtbot, dock, dock.overlay.image
    try:
        run_state_machine_as_test(Person, settings=few)
    finally:
        Person.qtbot = Person.dock = Person.image = None
    atoms = dock.overlay.runs.atoms_of(dock.session.run)
    atoms.face_color = "magenta"
    for column in ("z2", "residual"):
        dock.explore.colour.setCurrentText(column)
    assert len(np.unique(atoms.face_color, axis=0)) > 10
    dock.explore_control.close()
    np.testing.assert_allclose(atoms.face_color, np.tile([1, 0, 1, 1], (len(atoms.data), 1)))
