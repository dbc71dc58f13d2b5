"""What keeps the window alive: rare painting, long work in steps, no search for garbage."""

import gc
from collections.abc import Iterator

import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from qtpy.QtWidgets import QLabel, QWidget

from napari_shiftvae import garbage
from napari_shiftvae.widgets import pace
from napari_shiftvae.widgets.turns import Turns


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "wait_ms"), [(0.04, 2000), (0.0, 100)])
def test_what_is_shown_at_great_cost_is_shown_rarely(
    qtbot, monkeypatch, seconds: float, wait_ms: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(pace.time, "perf_counter", clock)
    widget, shown = QWidget(), []
    qtbot.addWidget(widget)

    def show(number: int) -> None:
        clock.now += seconds
        shown.append(number)

    paced = pace.Pace(show, widget)
    paced.offer(1)
    qtbot.waitUntil(lambda: shown == [1])
    for number in range(2, 50):
        paced.offer(number)
    assert paced._timer.interval() == wait_ms
    paced.catch_up()
    paced.catch_up()
    assert shown == [1, 49]  # the newest, once
    paced.offer(50)
    paced.forget()
    paced.catch_up()
    assert shown == [1, 49]


def test_what_is_shown_is_painted_before_the_pace_is_set(qtbot) -> None:
    painted = []

    class Painted(QLabel):
        def paintEvent(self, event) -> None:  # noqa: N802
            super().paintEvent(event)
            painted.append(self.text())

    label = Painted("before")
    qtbot.addWidget(label)
    label.show()
    qtbot.waitUntil(lambda: painted == ["before"])
    paced = pace.Pace(label.setText, label)
    paced.offer("after")
    paced.catch_up()
    assert painted[-1] == "after"  # not whenever Qt comes to it


def test_the_window_lives_between_the_steps_of_long_work(qtbot) -> None:
    turns, done = Turns(None), []

    def steps() -> Iterator[None]:
        for number in range(3):
            done.append(number)
            yield

    turns.start(steps())
    assert done == []
    qtbot.waitUntil(lambda: done == [0])  # not all at once
    with qtbot.waitSignal(turns.ended):
        pass
    assert done == [0, 1, 2]
    assert garbage._holders == 0


def test_a_step_that_fails_ends_the_work(qtbot) -> None:
    def steps() -> Iterator[None]:
        yield
        raise ZeroDivisionError

    turns = Turns(None)
    with qtbot.captureExceptions() as raised, qtbot.waitSignal(turns.ended):
        turns.start(steps())
    assert [kind for kind, *_ in raised] == [ZeroDivisionError]
    assert garbage._holders == 0


def test_all_objects_are_not_looked_through_meanwhile() -> None:
    before = gc.get_threshold()
    gc.collect()
    garbage.put_off()
    garbage.put_off()
    garbage.allow()
    full = gc.get_stats()[2]["collections"]
    kept = [[number] for number in range(400_000)]  # would set off several full searches
    assert gc.get_stats()[2]["collections"] == full
    garbage.allow()
    assert gc.get_threshold() == before
    del kept
