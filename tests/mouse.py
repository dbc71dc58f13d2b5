"""A person's mouse on napari's canvas."""

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt

LEFT = Qt.MouseButton.LeftButton
NO_KEY = Qt.KeyboardModifier.NoModifier


class Mouse:
    """Clicks and drags at places of an image that is shown."""

    def __init__(self, qtbot, viewer: napari.Viewer, layer: napari.layers.Image) -> None:
        self._qtbot = qtbot
        self._viewer = viewer
        self._layer = layer
        self._canvas = viewer.window._qt_viewer.canvas.native

    def _at(self, position_yx) -> QPoint:
        """Canvas pixel at which a position of the image is drawn."""
        first = self._viewer.dims.point[: self._layer.ndim - 2]
        world = np.array(self._layer.data_to_world((*first, *position_yx)))[-2:]
        world *= [
            (1 * own).to(shown).magnitude
            for own, shown in zip(
                self._layer.units[-2:], self._viewer.layers.units[-2:], strict=True
            )
        ]
        camera = self._viewer.scene.camera
        middle = np.array([self._canvas.height(), self._canvas.width()]) / 2
        y, x = middle + (world - np.array(camera.center)[-2:]) * camera.zoom
        return QPoint(round(x), round(y))

    def click(self, position_yx, key=NO_KEY) -> None:
        self._qtbot.mouseClick(self._canvas, LEFT, key, self._at(position_yx))

    def double_click(self, position_yx) -> None:
        """Press and release twice, as a hand does."""
        there = self._at(position_yx)
        self._qtbot.mouseClick(self._canvas, LEFT, NO_KEY, there)
        self._qtbot.mouseDClick(self._canvas, LEFT, NO_KEY, there)
        self._qtbot.mouseRelease(self._canvas, LEFT, NO_KEY, there)

    def drag(self, start_yx, end_yx) -> None:
        """Press, move in steps, release."""
        self.draw(np.linspace(start_yx, end_yx, 6))

    def draw(self, path, key=NO_KEY) -> None:
        """Press at the first place, move along the others, release at the last."""
        self._qtbot.mousePress(self._canvas, LEFT, key, self._at(path[0]))
        for place in path[1:]:
            self._qtbot.mouseMove(self._canvas, self._at(place))
            self._qtbot.wait(10)
        self._qtbot.mouseRelease(self._canvas, LEFT, key, self._at(path[-1]))

    def move(self, position_yx) -> None:
        """Move the pointer there, in two steps: napari looks at changes only."""
        there = self._at(position_yx)
        self._qtbot.mouseMove(self._canvas, there + QPoint(3, 3))
        self._qtbot.wait(20)
        self._qtbot.mouseMove(self._canvas, there)
